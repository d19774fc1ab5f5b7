using System.Security.Cryptography;
using VNetMesh.Native;
using VNetMesh.Nat.Dns;
using VNetMesh.Nat.Forwards;
using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Sockets;
using VNetMesh.Nat.Tcp;
using VNetMesh.Nat.Timing;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Flows;

/// <summary>
/// The TCP flows of one gateway, by the addresses that the guest sees. Segments that belong to none are answered as a
/// closed port answers (RFC 9293, 3.10.7.1). Flows that took segments are polled once at the end of the turn, so that a
/// batch costs one acknowledgement.
/// </summary>
internal sealed class TcpFlowTable
{
    private const int ResetsPerSecond = 1000;
    private const ushort FirstAliasPort = 1024;

    private readonly GatewayContext _gateway;
    private readonly DnsProxy _dns;
    private readonly Dictionary<TcpFlowKey, TcpFlow> _flows = [];
    private readonly BufferTier[] _tiers;
    private readonly TcpBufferPool _pool;
    private readonly TcpLingering _lingering;
    private readonly byte[] _random = new byte[4096];
    private int _randomUsed;
    private List<TcpFlow> _dirty = [];
    private List<TcpFlow> _dirtyNext = [];
    private List<TcpFlow> _readable = [];
    private List<TcpFlow> _readableNext = [];
    private List<TcpFlow> _blocked = [];
    private List<TcpFlow> _blockedNext = [];
    private TokenBucket _resets = new(ResetsPerSecond, ResetsPerSecond / 4);
    private ushort _nextAlias = FirstAliasPort;

    public TcpFlowTable(GatewayContext gateway, DnsProxy dns)
    {
        _gateway = gateway;
        _dns = dns;
        _pool = gateway.Shared.TcpBuffers;
        _lingering = new TcpLingering(gateway);
        _randomUsed = _random.Length;
        int mtu = gateway.Settings.Mtu;
        _tiers =
        [
            new BufferTier(128, new TcpOptions { Mtu = mtu }),
            new BufferTier(1024, new TcpOptions { Mtu = mtu, SendBuffer = 128 * 1024, ReceiveBuffer = 128 * 1024 }),
            new BufferTier(int.MaxValue, new TcpOptions { Mtu = mtu, SendBuffer = 32 * 1024, ReceiveBuffer = 32 * 1024 }),
        ];
    }

    private sealed record BufferTier(int UpTo, TcpOptions Options);

    public int Count => _flows.Count;

    /// <summary>Buffers in use by connections; for tests.</summary>
    public int BuffersRented => _pool.Rented;

    /// <summary>Takes a packet whose IP header is checked, to a destination that the guest may reach.</summary>
    public void Receive(in GuestPacket packet, bool toGateway)
    {
        if (!TcpView.TryParse(packet.Ip.Payload, out TcpView view) || view.SourcePort == 0 || view.DestinationPort == 0)
        {
            _gateway.Drops.Count(DropCause.TcpMalformed);
            return;
        }
        if (!packet.ChecksumTrusted && !view.HasValidChecksum(packet.Ip.Source, packet.Ip.Destination))
        {
            _gateway.Drops.Count(DropCause.TcpChecksum);
            return;
        }
        TcpSegmentIn segment = TcpSegmentIn.From(view);
        var key = new TcpFlowKey(packet.Ip.Source, packet.Ip.Destination, view.SourcePort, view.DestinationPort);
        if (_flows.TryGetValue(key, out TcpFlow? flow) && !flow.Connection.MayBeReplacedBy(segment))
        {
            long refusals = _pool.Refusals;
            flow.Receive(segment, packet.Now);
            if (_pool.Refusals != refusals)
                _gateway.Drops.Count(DropCause.TcpBuffersFull);
            return;
        }
        flow?.End("replaced");
        if (flow is null && _lingering.Take(packet, key, segment))
            return;
        bool opens = (segment.Flags & (TcpFlags.Syn | TcpFlags.Ack | TcpFlags.Rst | TcpFlags.Fin)) == TcpFlags.Syn;
        if (opens && (!toGateway || view.DestinationPort == DnsProxy.Port))
            Dial(packet, segment, key, toGateway);
        else
            AnswerStray(packet, segment, view, opens);
    }

    /// <summary>Takes a client's connection that came in by a forward; owns the socket from now on.</summary>
    public void Accept(FileDescriptor client, Ipv4Address address, ushort port, Ipv4Address guestAddress, ushort guestPort, long now)
    {
        Neighbour? guest = _gateway.Neighbours.FindOrAdd(guestAddress, now);
        DropCause? refusal = null;
        var key = new TcpFlowKey(guestAddress, address, guestPort, port);
        if (guest is null)
            refusal = DropCause.NeighbourTableFull;
        else if (ClientAddress.MustBeHidden(address, _gateway.Settings) ? !TryAlias(ref key) : _flows.ContainsKey(key))
            refusal = DropCause.ClientAddressBusy;
        else if (!_gateway.Flows.MayBegin(guest))
            refusal = null;
        else
        {
            Add(new TcpFlow(_gateway, this, guest, key, inbound: true, now), key, default).BeginInbound(client, now);
            return;
        }
        if (refusal is { } cause)
            _gateway.Drops.Count(cause);
        HostSocket.ResetOnClose(client.Number);
        client.Dispose();
    }

    /// <summary>The link has room again, or is back: goes on with the flows that found none.</summary>
    public void OnRoom(long now)
    {
        (_blocked, _blockedNext) = (_blockedNext, _blocked);
        foreach (TcpFlow flow in _blockedNext)
            flow.OnRoom(now);
        _blockedNext.Clear();
    }

    /// <summary>Acknowledges and sends what the segments of this turn made due.</summary>
    public void PollDirty(long now)
    {
        while (_dirty.Count > 0)
        {
            (_dirty, _dirtyNext) = (_dirtyNext, _dirty);
            foreach (TcpFlow flow in _dirtyNext)
                flow.PollNow(now);
            _dirtyNext.Clear();
        }
    }

    /// <summary>Reads host sockets that had more to give than their turn took, each once.</summary>
    /// <returns>True: some have still more.</returns>
    public bool ReadMore(long now)
    {
        (_readable, _readableNext) = (_readableNext, _readable);
        foreach (TcpFlow flow in _readableNext)
            flow.ReadMore(now);
        _readableNext.Clear();
        return _readable.Count > 0;
    }

    public void MarkReadable(TcpFlow flow) => _readable.Add(flow);

    public void MarkDirty(TcpFlow flow) => _dirty.Add(flow);

    public void MarkBlocked(TcpFlow flow) => _blocked.Add(flow);

    /// <summary>The flow is over, but its guest may not have heard the last word.</summary>
    public void Linger(in TcpFlowKey key, in TcpRemains remains, long now) => _lingering.Add(key, remains, now);

    public void Forget(TcpFlow flow) => _flows.Remove(flow.Key);

    public TcpConnection CreateConnection(TcpFlow flow)
    {
        // RFC 6528 asks for numbers that nobody can foretell. Drawn in bulk: each draw is calls to the kernel.
        if (_randomUsed == _random.Length)
        {
            RandomNumberGenerator.Fill(_random);
            _randomUsed = 0;
        }
        uint initial = BitConverter.ToUInt32(_random, _randomUsed);
        _randomUsed += sizeof(uint);
        // The more flows there are, the less each may hold: should all stall with full buffers, the pool's limit comes late.
        TcpOptions options = Array.Find(_tiers, tier => _gateway.Shared.Limits.Flows < tier.UpTo)!.Options;
        return new TcpConnection(options, flow, flow, _pool, initial);
    }

    private void Dial(in GuestPacket packet, in TcpSegmentIn syn, in TcpFlowKey key, bool toGateway)
    {
        if (!_gateway.Flows.MayBegin(packet.Guest))
            return;
        List<HostEndpoint> targets = toGateway ? _dns.Candidates(packet.Now) : [new HostEndpoint(key.Remote, key.RemotePort)];
        Add(new TcpFlow(_gateway, this, packet.Guest, key, inbound: false, packet.Now), key, packet.Trace).BeginOutbound(packet, syn, targets);
    }

    private TcpFlow Add(TcpFlow flow, in TcpFlowKey key, in Links.TraceContext trace)
    {
        _flows.Add(key, flow);
        _gateway.Flows.Add(flow, trace);
        return flow;
    }

    private void AnswerStray(in GuestPacket packet, in TcpSegmentIn segment, in TcpView view, bool opens)
    {
        if (!opens)
            _gateway.Drops.Count(DropCause.TcpNoFlow);
        if (segment.Has(TcpFlags.Rst))
            return;
        if (!_resets.TryTake(packet.Now))
        {
            _gateway.Drops.Count(DropCause.TcpRateLimited);
            return;
        }
        bool acknowledged = segment.Has(TcpFlags.Ack);
        var reset = new TcpHeader(view.DestinationPort, view.SourcePort,
            acknowledged ? segment.Acknowledgment : default,
            acknowledged ? default : segment.Sequence.Add(segment.SequenceLength),
            acknowledged ? TcpFlags.Rst : TcpFlags.Rst | TcpFlags.Ack, 0);
        var header = new Ipv4Header(packet.Ip.Destination, packet.Guest.Address, IpProtocol.Tcp, TcpView.MinHeaderLength);
        if (!_gateway.Sender.TryBegin(packet.Guest.Mac, header, out Span<byte> payload))
        {
            _gateway.Sender.CountUnsent();
            return;
        }
        reset.Write(payload, default);
        TcpFrames.CompleteChecksum(payload, header);
        _gateway.Sender.Send(payload);
    }

    // A client that may not show its address appears as the gateway, at any free port.
    private bool TryAlias(ref TcpFlowKey key)
    {
        for (int i = 0; i < 64; i++)
        {
            var alias = new TcpFlowKey(key.Guest, _gateway.Settings.Address, key.GuestPort, _nextAlias);
            _nextAlias = _nextAlias == ushort.MaxValue ? FirstAliasPort : (ushort)(_nextAlias + 1);
            if (_flows.ContainsKey(alias))
                continue;
            key = alias;
            return true;
        }
        return false;
    }
}

/// <summary>A connection as the guest sees it. The hash is seeded per process, so that no guest can make collisions.</summary>
internal readonly record struct TcpFlowKey(Ipv4Address Guest, Ipv4Address Remote, ushort GuestPort, ushort RemotePort)
{
    public override int GetHashCode() => HashCode.Combine(((ulong)Guest.Value << 32) | Remote.Value, ((uint)GuestPort << 16) | RemotePort);
}
