using System.Buffers.Binary;
using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Sockets;
using VNetMesh.Nat.Timing;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Flows;

/// <summary>
/// Echo of one guest, identifier and remote through one unprivileged ping socket of the host's (icmp(7)). The kernel puts
/// the socket's identifier in place of the guest's and takes only replies to it; on the way back the guest's returns.
/// Lives 60 s after the last request (RFC 5508, REQ-1).
/// </summary>
public sealed class PingFlow : Flow, IReadyHandler, ITimerOwner
{
    public const long LifeMicroseconds = 60_000_000;
    private const int ReceiveBatch = 16;
    private const int IdentifierOffset = 4;
    private const int ChecksumOffset = 2;

    private readonly PingFlows _table;
    private readonly FileDescriptor _socket;
    private readonly LoopTimer _timer;
    private readonly EventLoop.Registration _registration;
    private SocketTemper _temper;

    internal PingFlow(GatewayContext gateway, PingFlows table, in GuestPacket first, ushort identifier, FileDescriptor socket)
        : base(gateway, FlowProtocol.Icmp, first.Guest, identifier, first.Ip.Destination, 0, FlowState.Established, inbound: false, first.Now)
    {
        _table = table;
        _socket = socket;
        _timer = new LoopTimer(this);
        _registration = gateway.Loop.Register(socket.Number, SysEpoll.EPOLLIN, this);
    }

    internal void Send(in GuestPacket packet)
    {
        _temper.Apply(_socket.Number, (byte)(packet.Ip.TimeToLive - 1), packet.Ip.DontFragment);
        ReadOnlySpan<byte> message = packet.Ip.Payload;
        int sent = HostSocket.SendTo(_socket.Number, message, Remote, 0);
        if (sent < 0 && (RelayErrors(packet.Now) == 0 || sent != -NativeErrno.EMSGSIZE))
            sent = HostSocket.SendTo(_socket.Number, message, Remote, 0);
        LastActivity = packet.Now;
        Gateway.Timers.Set(_timer, packet.Now + LifeMicroseconds);
        if (sent >= 0)
        {
            Host ??= HostSocket.LocalEndpoint(_socket.Number);
            BytesToRemote += (ulong)(message.Length - Icmpv4View.HeaderLength);
        }
        else if (SocketErrors.UnreachableCode(-sent) is { } code)
        {
            Gateway.Drops.Count(DropCause.DialUnreachable);
            Gateway.Errors.Send(Guest, packet.Ip.Packet, Icmpv4Type.DestinationUnreachable, code, packet.Now);
        }
        else
        {
            Gateway.Drops.Count(DropCause.IcmpHostFull);
        }
    }

    public void OnReady(uint events, long now)
    {
        if ((events & SysEpoll.EPOLLERR) != 0)
            RelayErrors(now);
        for (int i = 0; i < ReceiveBatch; i++)
        {
            Span<byte> room = Gateway.Datagram;
            int length = HostSocket.ReceiveFrom(_socket.Number, room, out Ipv4Address source, out _, out byte timeToLive);
            if (length == -NativeErrno.EAGAIN)
                break;
            if (length < Icmpv4View.HeaderLength || source != Remote || room[0] != Icmpv4Type.EchoReply)
                continue;
            Reply(room[..length], timeToLive, now);
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

    private void Reply(Span<byte> message, byte timeToLive, long now)
    {
        if (BytesToGuest == 0)
            Note(FlowMoment.FirstByteFromRemote, now);
        RestoreIdentifier(message);
        byte left = timeToLive > 1 ? (byte)(timeToLive - 1) : (byte)63;
        if (Gateway.Sender.SendPayload(Guest, Remote, IpProtocol.Icmp, message, left))
            BytesToGuest += (ulong)(message.Length - Icmpv4View.HeaderLength);
    }

    private int RelayErrors(long now)
    {
        int relayed = 0;
        Span<byte> room = Gateway.Datagram;
        while (relayed < ReceiveBatch && HostSocket.TryTakeQueuedError(_socket.Number, room[Ipv4Header.Length..], out SocketError error))
        {
            relayed++;
            if (error.DataLength < Icmpv4View.HeaderLength || error.DataLength > 65535 - Ipv4Header.Length)
                continue;
            Span<byte> quote = room[..(Ipv4Header.Length + error.DataLength)];
            new Ipv4Header(Guest.Address, Remote, IpProtocol.Icmp, error.DataLength).Write(quote);
            RestoreIdentifier(quote[Ipv4Header.Length..]);
            ErrorRelay.Tell(Gateway, Guest, error, quote, now);
        }
        return relayed;
    }

    // RFC 1624, eqn. 3: the checksum for one word changed, whether or not the whole message is here.
    private void RestoreIdentifier(Span<byte> message)
    {
        uint sum = (ushort)~BinaryPrimitives.ReadUInt16BigEndian(message[ChecksumOffset..]);
        sum += (ushort)~BinaryPrimitives.ReadUInt16BigEndian(message[IdentifierOffset..]);
        sum += GuestPort;
        sum = (sum & 0xFFFF) + (sum >> 16);
        sum = (sum & 0xFFFF) + (sum >> 16);
        BinaryPrimitives.WriteUInt16BigEndian(message[ChecksumOffset..], (ushort)~sum);
        BinaryPrimitives.WriteUInt16BigEndian(message[IdentifierOffset..], GuestPort);
    }
}

/// <summary>The echo flows of one gateway. Where the host does not let nat have ping sockets, asks again each second at most.</summary>
internal sealed class PingFlows(GatewayContext gateway)
{
    private const long RetryMicroseconds = 1_000_000;

    private readonly Dictionary<(Ipv4Address Guest, ushort Identifier, Ipv4Address Remote), PingFlow> _flows = [];
    private long _refusedUntil = long.MinValue;

    /// <summary>Takes an echo request whose checks are done, to a destination that the guest may reach.</summary>
    public void Receive(in GuestPacket packet, ushort identifier)
    {
        if (!_flows.TryGetValue((packet.Guest.Address, identifier, packet.Ip.Destination), out PingFlow? flow) && (flow = Begin(packet, identifier)) is null)
            return;
        flow.Send(packet);
    }

    public void Forget(PingFlow flow) => _flows.Remove((flow.Guest.Address, flow.GuestPort, flow.Remote));

    private PingFlow? Begin(in GuestPacket packet, ushort identifier)
    {
        if (packet.Now < _refusedUntil)
        {
            gateway.Drops.Count(DropCause.PingNotPermitted);
            return null;
        }
        if (!gateway.Flows.MayBegin(packet.Guest))
            return null;
        FileDescriptor? socket = HostSocket.Open(SysSocket.AF_INET, SysSocket.SOCK_DGRAM, SysSocket.IPPROTO_ICMP, out int errno);
        if (socket is null)
        {
            // EACCES: net.ipv4.ping_group_range is closed to nat's group. The agent may open it at any time.
            bool closed = errno is NativeErrno.EACCES or NativeErrno.EPERM;
            gateway.Drops.Count(closed ? DropCause.PingNotPermitted : DropCause.SocketUnavailable);
            if (closed)
                _refusedUntil = packet.Now + RetryMicroseconds;
            return null;
        }
        _ = SysSocket.SetOption(socket.Number, SysSocket.SOL_IP, SysSocket.IP_RECVERR, 1);
        _ = SysSocket.SetOption(socket.Number, SysSocket.SOL_IP, LinuxErrqueue.IP_RECVTTL, 1);
        var flow = new PingFlow(gateway, this, packet, identifier, socket);
        _flows.Add((packet.Guest.Address, identifier, packet.Ip.Destination), flow);
        gateway.Flows.Add(flow, packet.Trace);
        return flow;
    }
}
