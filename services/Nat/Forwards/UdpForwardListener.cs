using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.Nat.Flows;
using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Sockets;
using VNetMesh.Nat.Timing;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Forwards;

/// <summary>A UDP port of the host that leads to a guest: one socket for all clients, one flow for each.</summary>
internal sealed class UdpForwardListener : IReadyHandler, IDisposable
{
    private readonly GatewayContext _gateway;
    private readonly UdpForwardFlows _flows;
    private readonly FileDescriptor _socket;
    private readonly EventLoop.Registration _registration;
    private bool _closed;

    public UdpForwardListener(GatewayContext gateway, UdpForwardFlows flows, ForwardRule rule, FileDescriptor socket)
    {
        _gateway = gateway;
        _flows = flows;
        Rule = rule;
        _socket = socket;
        Endpoint = HostSocket.LocalEndpoint(socket.Number);
        _registration = gateway.Loop.Register(socket.Number, SysEpoll.EPOLLIN, this);
    }

    public ForwardRule Rule { get; }

    public HostEndpoint? Endpoint { get; }

    public void OnReady(uint events, long now)
    {
        int count = _gateway.Batch.Receive(_socket.Number);
        for (int i = 0; i < count; i++)
            _flows.FromClient(this, _gateway.Batch.Source(i), _gateway.Batch.Port(i), _gateway.Batch.Data(i), now);
    }

    /// <returns>Octets sent, or −errno.</returns>
    public int SendTo(Ipv4Address client, ushort port, ReadOnlySpan<byte> data) =>
        _closed ? -NativeErrno.EBADF : HostSocket.SendTo(_socket.Number, data, client, port);

    public void Dispose()
    {
        if (_closed)
            return;
        _closed = true;
        _gateway.Loop.Unregister(_registration);
        _socket.Dispose();
        _flows.Closed(this);
    }
}

/// <summary>One client of a UDP forward, talking with the guest under its own address.</summary>
internal sealed class UdpForwardFlow : Flow, ITimerOwner, INeighbourWaiter
{
    private readonly UdpForwardFlows _table;
    private readonly LoopTimer _timer;
    private byte[]? _held; // the first datagram, while the guest's hardware address is sought

    public UdpForwardFlow(GatewayContext gateway, UdpForwardFlows table, UdpForwardListener listener, Neighbour guest, Ipv4Address shown, ushort shownPort, Ipv4Address client, ushort clientPort, long now)
        : base(gateway, FlowProtocol.Udp, guest, (ushort)listener.Rule.GuestPort, shown, shownPort, FlowState.Established, inbound: true, now)
    {
        _table = table;
        Listener = listener;
        Client = client;
        ClientPort = clientPort;
        Host = listener.Endpoint;
        _timer = new LoopTimer(this);
    }

    public UdpForwardListener Listener { get; }
    public Ipv4Address Client { get; }
    public ushort ClientPort { get; }

    public void ToGuest(ReadOnlySpan<byte> data, long now)
    {
        Refresh(now);
        if (!Guest.IsResolved)
        {
            if (_held is not null)
            {
                Gateway.Drops.Count(DropCause.ArpUnresolved);
                return;
            }
            _held = data.ToArray();
            Gateway.Neighbours.TryResolve(Guest.Address, this, now);
            return;
        }
        if (Gateway.Sender.SendUdp(Guest, Remote, RemotePort, GuestPort, data))
            BytesToGuest += (ulong)data.Length;
    }

    public void FromGuest(ReadOnlySpan<byte> data, long now)
    {
        Refresh(now);
        int sent = Listener.SendTo(Client, ClientPort, data);
        if (sent < 0)
            Gateway.Drops.Count(DropCause.UdpHostFull);
        else
            BytesToRemote += (ulong)sent;
    }

    public void OnResolved(Neighbour neighbour, long now)
    {
        byte[]? held = _held;
        _held = null;
        if (held is not null && State != FlowState.Closed)
            ToGuest(held, now);
    }

    public void OnUnresolved(Neighbour neighbour, long now)
    {
        Gateway.Drops.Count(DropCause.ArpUnresolved);
        End("guest_unreachable");
    }

    public void OnTimer(long now) => End("idle_timeout");

    public override void End(string reason)
    {
        if (State == FlowState.Closed)
            return;
        Gateway.Timers.Cancel(_timer);
        _table.Forget(this);
        Gateway.Flows.Remove(this, reason);
    }

    private void Refresh(long now)
    {
        LastActivity = now;
        Gateway.Timers.Set(_timer, now + UdpMapping.LifeMicroseconds);
    }
}

/// <summary>The clients of a gateway's UDP forwards, by what each end knows of them.</summary>
internal sealed class UdpForwardFlows(GatewayContext gateway)
{
    private const ushort FirstAliasPort = 1024;

    private readonly Dictionary<(Ipv4Address Guest, ushort GuestPort, Ipv4Address Shown, ushort ShownPort), UdpForwardFlow> _byGuest = [];
    private readonly Dictionary<(UdpForwardListener Listener, Ipv4Address Client, ushort Port), UdpForwardFlow> _byClient = [];
    private ushort _nextAlias = FirstAliasPort;

    /// <summary>Takes a guest's datagram when it answers a client. False: it is the guest's own business.</summary>
    public bool TryFromGuest(Neighbour guest, ushort guestPort, Ipv4Address destination, ushort port, ReadOnlySpan<byte> data, long now)
    {
        if (_byGuest.Count == 0 || !_byGuest.TryGetValue((guest.Address, guestPort, destination, port), out UdpForwardFlow? flow))
            return false;
        flow.FromGuest(data, now);
        return true;
    }

    public void FromClient(UdpForwardListener listener, Ipv4Address client, ushort port, ReadOnlySpan<byte> data, long now)
    {
        if (!_byClient.TryGetValue((listener, client, port), out UdpForwardFlow? flow) && (flow = Begin(listener, client, port, now)) is null)
            return;
        flow.ToGuest(data, now);
    }

    public void Forget(UdpForwardFlow flow)
    {
        _byGuest.Remove((flow.Guest.Address, flow.GuestPort, flow.Remote, flow.RemotePort));
        _byClient.Remove((flow.Listener, flow.Client, flow.ClientPort));
    }

    public void Closed(UdpForwardListener listener)
    {
        foreach (UdpForwardFlow flow in _byClient.Values.Where(flow => flow.Listener == listener).ToArray())
            flow.End("forward_deleted");
    }

    private UdpForwardFlow? Begin(UdpForwardListener listener, Ipv4Address client, ushort port, long now)
    {
        ForwardRule rule = listener.Rule;
        Neighbour? guest = gateway.Neighbours.FindOrAdd(rule.GuestAddress, now);
        if (guest is null)
        {
            gateway.Drops.Count(DropCause.NeighbourTableFull);
            return null;
        }
        (Ipv4Address shown, ushort shownPort) = (client, port);
        if (ClientAddress.MustBeHidden(client, gateway.Settings) && !TryAlias(guest, rule, out shown, out shownPort))
        {
            gateway.Drops.Count(DropCause.ClientAddressBusy);
            return null;
        }
        if (_byGuest.ContainsKey((guest.Address, (ushort)rule.GuestPort, shown, shownPort)))
        {
            gateway.Drops.Count(DropCause.ClientAddressBusy);
            return null;
        }
        if (!gateway.Flows.MayBegin(guest))
            return null;
        var flow = new UdpForwardFlow(gateway, this, listener, guest, shown, shownPort, client, port, now);
        _byGuest.Add((guest.Address, flow.GuestPort, shown, shownPort), flow);
        _byClient.Add((listener, client, port), flow);
        gateway.Flows.Add(flow, default);
        return flow;
    }

    private bool TryAlias(Neighbour guest, ForwardRule rule, out Ipv4Address shown, out ushort shownPort)
    {
        shown = gateway.Settings.Address;
        for (int i = 0; i < 64; i++)
        {
            shownPort = _nextAlias;
            _nextAlias = _nextAlias == ushort.MaxValue ? FirstAliasPort : (ushort)(_nextAlias + 1);
            if (!_byGuest.ContainsKey((guest.Address, (ushort)rule.GuestPort, shown, shownPort)))
                return true;
        }
        shownPort = 0;
        return false;
    }
}

/// <summary>Under which address a client appears to the guest.</summary>
internal static class ClientAddress
{
    /// <summary>
    /// Loopback clients cannot be answered by a guest, and one inside the guest's own subnet (the host by its adapter)
    /// would be answered past the gateway: they appear as the gateway.
    /// </summary>
    public static bool MustBeHidden(Ipv4Address client, GatewaySettings settings) => client.IsLoopback || settings.Subnet.Contains(client);
}
