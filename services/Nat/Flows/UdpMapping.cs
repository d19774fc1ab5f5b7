using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Sockets;
using VNetMesh.Nat.Timing;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Flows;

/// <summary>
/// One guest address and port, and the one host socket that speaks for it to everybody: endpoint-independent mapping
/// (RFC 4787, REQ-1). Filtering is address-dependent (REQ-8): whoever the guest has not sent to may not send to
/// it, since the host socket stands in the host's network, where nobody expects guests to be reachable. The mapping
/// lives <see cref="LifeMicroseconds"/> after the last datagram out, or in from an address that may (REQ-6: with filtering, a
/// stranger cannot keep it alive); <see cref="DnsLifeMicroseconds"/> while it has spoken to port 53 only (REQ-5a).
/// </summary>
public sealed class UdpMapping : Flow, IReadyHandler, ITimerOwner
{
    public const long LifeMicroseconds = 180_000_000;
    public const long DnsLifeMicroseconds = 15_000_000;
    private const int DnsPort = 53;
    private const int ReceiveBatch = 32;

    private readonly UdpMappings _table;
    private readonly FileDescriptor _socket;
    private readonly LoopTimer _timer;
    private readonly EventLoop.Registration _registration;
    private readonly ContactSet _contacts = new();
    private bool _dnsOnly = true;
    private bool _heard;
    private SocketTemper _temper;

    internal UdpMapping(GatewayContext gateway, UdpMappings table, in GuestPacket first, in UdpView datagram, FileDescriptor socket)
        : base(gateway, FlowProtocol.Udp, first.Guest, datagram.SourcePort, first.Ip.Destination, datagram.DestinationPort, FlowState.Established, inbound: false, first.Now)
    {
        _table = table;
        _socket = socket;
        _timer = new LoopTimer(this);
        _registration = gateway.Loop.Register(socket.Number, SysEpoll.EPOLLIN, this);
    }

    /// <summary>Sends a guest's datagram; a large one that the guest's kernel left whole (USO) as the datagrams it stands for.</summary>
    internal void Send(in GuestPacket packet, in UdpView datagram)
    {
        Remote = packet.Ip.Destination;
        RemotePort = datagram.DestinationPort;
        _contacts.Add(Remote);
        _dnsOnly &= RemotePort == DnsPort;
        _temper.Apply(_socket.Number, (byte)(packet.Ip.TimeToLive - 1), packet.Ip.DontFragment);
        ReadOnlySpan<byte> rest = datagram.Payload;
        int step = packet.GsoKind == VirtioNetHeader.GsoUdpL4 ? packet.GsoSize : Math.Max(1, rest.Length);
        do
        {
            ReadOnlySpan<byte> piece = rest[..Math.Min(step, rest.Length)];
            rest = rest[piece.Length..];
            if (!SendOne(packet, piece))
                break;
        }
        while (!rest.IsEmpty);
        Refresh(packet.Now);
    }

    public void OnReady(uint events, long now)
    {
        if ((events & SysEpoll.EPOLLERR) != 0)
            RelayErrors(now);
        for (int i = 0; i < ReceiveBatch; i++)
        {
            int length = HostSocket.ReceiveFrom(_socket.Number, Gateway.Datagram, out Ipv4Address source, out ushort port, out _);
            if (length == -NativeErrno.EAGAIN)
                break;
            if (length < 0)
                continue; // an error that the queue tells in full
            if (!_contacts.Contains(source))
            {
                Gateway.Drops.Count(DropCause.UdpFiltered);
                continue;
            }
            if (!_heard)
            {
                _heard = true;
                Note(FlowMoment.FirstByteFromRemote, now);
            }
            if (Gateway.Sender.SendUdp(Guest, source, port, GuestPort, Gateway.Datagram.AsSpan(0, length)))
                BytesToGuest += (ulong)length;
            Refresh(now);
        }
    }

    public void OnTimer(long now) => End("idle_timeout");

    public override void End(string reason)
    {
        if (State == FlowState.Closed)
            return;
        Gateway.Loop.Unregister(_registration);
        Gateway.Timers.Cancel(_timer);
        _socket.Dispose();
        _table.Forget(this);
        Gateway.Flows.Remove(this, reason);
    }

    private bool SendOne(in GuestPacket packet, ReadOnlySpan<byte> data)
    {
        int sent = HostSocket.SendTo(_socket.Number, data, Remote, RemotePort);
        if (sent is -NativeErrno.ECONNREFUSED or -NativeErrno.EHOSTUNREACH or -NativeErrno.ENETUNREACH or -NativeErrno.EMSGSIZE)
        {
            // Either an earlier datagram's error, which the queue holds, or this one's own.
            bool told = RelayErrors(packet.Now) > 0;
            if (sent != -NativeErrno.EMSGSIZE)
                sent = HostSocket.SendTo(_socket.Number, data, Remote, RemotePort);
            else if (told)
                return false;
        }
        if (sent >= 0)
        {
            Host ??= HostSocket.LocalEndpoint(_socket.Number);
            BytesToRemote += (ulong)sent;
            return true;
        }
        if (SocketErrors.UnreachableCode(-sent) is { } code)
        {
            Gateway.Drops.Count(DropCause.DialUnreachable);
            Gateway.Errors.Send(Guest, packet.Ip.Packet, Icmpv4Type.DestinationUnreachable, code, packet.Now);
        }
        else
        {
            Gateway.Drops.Count(DropCause.UdpHostFull);
        }
        return false;
    }

    private int RelayErrors(long now)
    {
        int relayed = 0;
        Span<byte> room = Gateway.Datagram;
        const int Headers = Ipv4Header.Length + UdpView.HeaderLength;
        while (relayed < ReceiveBatch && HostSocket.TryTakeQueuedError(_socket.Number, room[Headers..], out SocketError error))
        {
            relayed++;
            if (!_contacts.Contains(error.Destination) || Headers + error.DataLength > 65535)
                continue;
            Span<byte> quote = room[..(Headers + error.DataLength)];
            new Ipv4Header(Guest.Address, error.Destination, IpProtocol.Udp, quote.Length - Ipv4Header.Length).Write(quote);
            UdpView.Write(quote[Ipv4Header.Length..], Guest.Address, error.Destination, GuestPort, error.DestinationPort);
            ErrorRelay.Tell(Gateway, Guest, error, quote, now);
        }
        return relayed;
    }

    private void Refresh(long now)
    {
        LastActivity = now;
        Gateway.Timers.Set(_timer, now + (_dnsOnly ? DnsLifeMicroseconds : LifeMicroseconds));
    }
}

/// <summary>The mappings of one gateway.</summary>
internal sealed class UdpMappings(GatewayContext gateway)
{
    private readonly Dictionary<(Ipv4Address, ushort), UdpMapping> _mappings = [];

    /// <summary>Takes a datagram whose checks are done, to a destination that the guest may reach.</summary>
    public void Receive(in GuestPacket packet, in UdpView datagram)
    {
        if (!_mappings.TryGetValue((packet.Guest.Address, datagram.SourcePort), out UdpMapping? mapping) && (mapping = Begin(packet, datagram)) is null)
            return;
        mapping.Send(packet, datagram);
    }

    public void Forget(UdpMapping mapping) => _mappings.Remove((mapping.Guest.Address, mapping.GuestPort));

    private UdpMapping? Begin(in GuestPacket packet, in UdpView datagram)
    {
        if (!gateway.Flows.MayBegin(packet.Guest))
            return null;
        FileDescriptor? socket = HostSocket.Open(SysSocket.AF_INET, SysSocket.SOCK_DGRAM, 0, out _);
        if (socket is null)
        {
            gateway.Drops.Count(DropCause.SocketUnavailable);
            return null;
        }
        _ = SysSocket.SetOption(socket.Number, SysSocket.SOL_IP, SysSocket.IP_RECVERR, 1);
        var mapping = new UdpMapping(gateway, this, packet, datagram, socket);
        _mappings.Add((packet.Guest.Address, datagram.SourcePort), mapping);
        gateway.Flows.Add(mapping, packet.Trace);
        return mapping;
    }
}

/// <summary>The addresses that a mapping has sent to: at most <see cref="Capacity"/>; the first met is the first forgotten.</summary>
internal sealed class ContactSet
{
    public const int Capacity = 1024;

    private readonly Queue<Ipv4Address> _order = new();
    private readonly HashSet<Ipv4Address> _set = [];
    private Ipv4Address _last;

    public void Add(Ipv4Address address)
    {
        if (address == _last || !_set.Add(address))
            return;
        _last = address;
        _order.Enqueue(address);
        if (_order.Count > Capacity)
            _set.Remove(_order.Dequeue());
    }

    public bool Contains(Ipv4Address address) => address == _last || _set.Contains(address);
}

/// <summary>Time to live and "don't fragment" of what a socket sends, set only when a packet wants them otherwise than the last.</summary>
internal struct SocketTemper
{
    private byte _timeToLive;
    private byte _discovery;

    public void Apply(int fd, byte timeToLive, bool dontFragment)
    {
        if (_timeToLive != timeToLive)
        {
            _timeToLive = timeToLive;
            _ = SysSocket.SetOption(fd, SysSocket.SOL_IP, SysSocket.IP_TTL, timeToLive);
        }
        byte discovery = dontFragment ? (byte)LinuxErrqueue.IP_PMTUDISC_DO : (byte)LinuxErrqueue.IP_PMTUDISC_DONT;
        if (_discovery == discovery + 1)
            return;
        _discovery = (byte)(discovery + 1);
        _ = SysSocket.SetOption(fd, SysSocket.SOL_IP, LinuxErrqueue.IP_MTU_DISCOVER, discovery);
    }
}

/// <summary>Tells a guest what the host's kernel noted about a datagram of its.</summary>
internal static class ErrorRelay
{
    public static void Tell(GatewayContext gateway, Neighbour guest, in SocketError error, ReadOnlySpan<byte> quote, long now)
    {
        if (error.IsIcmp && error.Type is Icmpv4Type.DestinationUnreachable or Icmpv4Type.TimeExceeded)
            gateway.Errors.Send(guest, quote, error.Type, error.Code, now, error.Code == Icmpv4Type.CodeFragmentationNeeded ? error.Mtu : 0, error.Offender);
        else if (error.Errno == NativeErrno.EMSGSIZE)
            gateway.Errors.Send(guest, quote, Icmpv4Type.DestinationUnreachable, Icmpv4Type.CodeFragmentationNeeded, now, error.Mtu);
        else if (SocketErrors.UnreachableCode(error.Errno) is { } code)
            gateway.Errors.Send(guest, quote, Icmpv4Type.DestinationUnreachable, code, now);
    }
}
