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
    private const int ErrorBatch = 32;
    private const int ReceiveTurns = 4;
    private const int BusyBatch = 8;
    private const int BusyReceiveBuffer = 1024 * 1024; // the kernel gives as much of it as net.core.rmem_max allows
    private const int QuotedHeaders = Ipv4Header.Length + UdpView.HeaderLength;
    private const int QuotedData = 512;

    private readonly UdpMappings _table;
    private readonly FileDescriptor _socket;
    private readonly LoopTimer _timer;
    private readonly EventLoop.Registration _registration;
    private readonly ContactSet _contacts = new();
    private bool _dnsOnly = true;
    private bool _heard;
    private bool _isBusy;
    private bool _cannotSegment;
    private SocketTemper _temper;

    internal UdpMapping(GatewayContext gateway, UdpMappings table, in GuestPacket first, in UdpView datagram, FileDescriptor socket)
        : base(gateway, FlowProtocol.Udp, first.Guest, datagram.SourcePort, first.Ip.Destination, datagram.DestinationPort, FlowState.Established, inbound: false, first.Now)
    {
        _table = table;
        _socket = socket;
        _timer = new LoopTimer(this);
        _registration = gateway.Loop.Register(socket.Number, SysEpoll.EPOLLIN, this);
    }

    /// <summary>Takes a guest's datagram; a large one that the guest's kernel left whole (USO) stands for several.</summary>
    internal void Send(in GuestPacket packet, in UdpView datagram, UdpOutbox outbox)
    {
        Remote = packet.Ip.Destination;
        RemotePort = datagram.DestinationPort;
        _contacts.Add(Remote);
        _dnsOnly &= RemotePort == DnsPort;
        outbox.Put(this, packet, datagram);
        Refresh(packet.Now);
    }

    /// <summary>Sends what was gathered.</summary>
    /// <param name="data">One payload after the other.</param>
    /// <param name="segment">Octets of each; the last may have less.</param>
    internal void Send(in UdpTarget target, ReadOnlySpan<byte> data, int segment, long now)
    {
        if (State == FlowState.Closed)
            return;
        _temper.Apply(_socket.Number, target.TimeToLive, target.DontFragment);
        if (data.Length > segment && SendMany(target, data, segment))
            return;
        do
        {
            ReadOnlySpan<byte> piece = data[..Math.Min(segment, data.Length)];
            data = data[piece.Length..];
            if (!SendOne(target, piece, now))
                break;
        }
        while (!data.IsEmpty);
    }

    public void OnReady(uint events, long now)
    {
        if ((events & SysEpoll.EPOLLERR) != 0)
            RelayErrors(now);
        for (int turn = 0; turn < ReceiveTurns; turn++)
        {
            int count = Gateway.Batch.Receive(_socket.Number);
            if (count == -NativeErrno.EAGAIN)
                break;
            if (count < 0)
                continue; // an error that the queue tells in full
            Deliver(count, now);
            if (count < DatagramBatch.Capacity)
                break;
        }
    }

    // Datagrams of one sender and one size go to the guest in one record, where its kernel takes such.
    private void Deliver(int count, long now)
    {
        DatagramBatch batch = Gateway.Batch;
        if (count >= BusyBatch && !_isBusy)
            BecomeBusy();
        for (int i = 0; i < count;)
        {
            if (!_contacts.Contains(batch.Source(i)))
            {
                Gateway.Drops.Count(DropCause.UdpFiltered);
                i++;
                continue;
            }
            if (!_heard)
            {
                _heard = true;
                Note(FlowMoment.FirstByteFromRemote, now);
            }
            BytesToGuest += UdpTrain.Send(Gateway, Guest, GuestPort, batch, ref i, count);
            Refresh(now);
        }
    }

    // Not for the many mappings that ask one question: calls that only a stream of datagrams is worth.
    private void BecomeBusy()
    {
        _isBusy = true;
        _ = SysSocket.SetOption(_socket.Number, SysSocket.SOL_SOCKET, SysSocket.SO_RCVBUF, BusyReceiveBuffer);
        if (Gateway.Sender.AcceptsDatagramTrains)
            _ = SysSocket.SetOption(_socket.Number, LinuxUdp.SOL_UDP, LinuxUdp.UDP_GRO, 1);
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

    private bool SendMany(in UdpTarget target, ReadOnlySpan<byte> data, int segment)
    {
        if (_cannotSegment)
            return false;
        int sent = HostSocket.SendSegments(_socket.Number, data, segment, target.Address, target.Port);
        if (sent < 0)
        {
            // Too large for the way there, or a device without checksums: one by one, which tells the guest what there is to tell.
            _cannotSegment = sent is -NativeErrno.EINVAL or -NativeErrno.EIO;
            return false;
        }
        NoteSent(sent);
        return true;
    }

    private bool SendOne(in UdpTarget target, ReadOnlySpan<byte> data, long now)
    {
        int sent = HostSocket.SendTo(_socket.Number, data, target.Address, target.Port);
        if (sent is -NativeErrno.ECONNREFUSED or -NativeErrno.EHOSTUNREACH or -NativeErrno.ENETUNREACH or -NativeErrno.EMSGSIZE)
        {
            // Either an earlier datagram's error, which the queue holds, or this one's own.
            bool told = RelayErrors(now) > 0;
            if (sent != -NativeErrno.EMSGSIZE)
                sent = HostSocket.SendTo(_socket.Number, data, target.Address, target.Port);
            else if (told)
                return false;
        }
        if (sent >= 0)
        {
            NoteSent(sent);
            return true;
        }
        if (SocketErrors.UnreachableCode(-sent) is { } code)
        {
            Gateway.Drops.Count(DropCause.DialUnreachable);
            Span<byte> quote = Gateway.Datagram.AsSpan(0, QuotedHeaders + Math.Min(data.Length, QuotedData));
            data[..(quote.Length - QuotedHeaders)].CopyTo(quote[QuotedHeaders..]);
            WriteQuote(quote, target.Address, target.Port);
            Gateway.Errors.Send(Guest, quote, Icmpv4Type.DestinationUnreachable, code, now);
        }
        else
        {
            Gateway.Drops.Count(DropCause.UdpHostFull);
        }
        return false;
    }

    private void NoteSent(int octets)
    {
        Host ??= HostSocket.LocalEndpoint(_socket.Number);
        BytesToRemote += (ulong)octets;
    }

    // The datagram as the guest had sent it, around payload that is in place.
    private void WriteQuote(Span<byte> quote, Ipv4Address destination, ushort port)
    {
        new Ipv4Header(Guest.Address, destination, IpProtocol.Udp, quote.Length - Ipv4Header.Length).Write(quote);
        UdpView.Write(quote[Ipv4Header.Length..], Guest.Address, destination, GuestPort, port);
    }

    private int RelayErrors(long now)
    {
        int relayed = 0;
        Span<byte> room = Gateway.Datagram;
        while (relayed < ErrorBatch && HostSocket.TryTakeQueuedError(_socket.Number, room[QuotedHeaders..], out SocketError error))
        {
            relayed++;
            if (!_contacts.Contains(error.Destination) || QuotedHeaders + error.DataLength > 65535)
                continue;
            Span<byte> quote = room[..(QuotedHeaders + error.DataLength)];
            WriteQuote(quote, error.Destination, error.DestinationPort);
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
