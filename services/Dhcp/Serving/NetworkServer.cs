using VNetMesh.Dhcp.Leases;
using VNetMesh.Dhcp.Observability;
using VNetMesh.Dhcp.Protocol;
using VNetMesh.Dhcp.RouterAdvertisements;
using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Serving;

/// <summary>What the servers of all networks share.</summary>
public sealed record ServerContext(EventLoop Loop, StoreWriter Writer, DhcpOptions Options, TimeProvider Time, LeaseFeed Feed, DhcpMetrics Metrics, ILogger Logger);

/// <summary>
/// One network's server: its port's frames go to the <see cref="DhcpCore"/>, and the core's decisions are carried out here.
/// It lives on the loop's thread; the disk has a thread of its own, which hands its answer back to the loop.
/// <code>
/// frame → FrameReader → DhcpCore.Handle → Decision → Carry out
///                        DhcpCore.Tick  ↗            ├ Probe: an ARP request
///                        ARP answer     ↗            ├ Offer, Nak, Inform: a frame
///                                                    └ Ack: StoreWriter → loop → DhcpCore.Committed → a frame
/// </code>
/// The port comes and goes with the switch; leases, offers and pending writes stay. An answer that finds no link is
/// dropped, and the client asks again.
/// </summary>
public sealed partial class NetworkServer : IPortHandler, IReadyHandler, ILoopWork, IObservedServer
{
    private const int ReceiveBatch = 256;

    private readonly ServerContext _context;
    private readonly ILogger _logger;
    private readonly ExchangeTraces _traces;
    private IFrameLink? _link;
    private EventLoop.Registration _registration;
    private bool _mayHoldMore;
    private volatile bool _isLinkUp;
    private long _poolSize;

    public NetworkServer(string network, MacAddress mac, ServerContext context)
    {
        Network = network;
        Mac = mac;
        _context = context;
        _logger = context.Logger;
        _traces = new ExchangeTraces(network, context.Time);
        _advertiser = new RouterAdvertiser(mac, Random.Shared.NextDouble);
        Exchanges = new ExchangeLog(network, context.Time);
        Core = new DhcpCore(network, context.Options, context.Feed.Publish);
    }

    /// <summary>"networks/{id}".</summary>
    /// <summary>What the last clients asked and were told. On the loop's thread.</summary>
    public ExchangeLog Exchanges { get; }

    public string Network { get; }

    public string NetworkId => Network[(Network.LastIndexOf('/') + 1)..];

    /// <summary>The server's own address on the network.</summary>
    public MacAddress Mac { get; }

    /// <summary>Of the loop's thread.</summary>
    public DhcpCore Core { get; }

    public LeaseTable Table => Core.Table;

    /// <summary>From any thread.</summary>
    public DhcpCounters Counters { get; } = new();

    /// <summary>From any thread.</summary>
    public bool IsLinkUp => _isLinkUp;

    /// <summary>From any thread.</summary>
    public long PoolSize => Volatile.Read(ref _poolSize);

    /// <summary>Fills in what is on disk. Before <see cref="Open"/>.</summary>
    public void Load(IEnumerable<Lease> leases, IEnumerable<Reservation> reservations)
    {
        foreach (Lease lease in leases.Take(_context.Options.MaxLeases))
            Core.Table.SetLease(lease);
        foreach (Reservation reservation in reservations)
            Core.Reservations.Add(reservation);
    }

    /// <summary>Begins to take part in the loop. On the loop's thread, or before the loop's start.</summary>
    public void Open()
    {
        _context.Loop.Add(this);
        _context.Metrics.Add(this);
    }

    /// <summary>The network is served no more. Its leases go from sight, and stay on disk. On the loop's thread.</summary>
    public void Close()
    {
        OnLinkDown("closed");
        _context.Loop.Remove(this);
        _context.Metrics.Remove(this);
        Core.Suspend();
        foreach (Lease lease in Core.Table.Views.ToArray())
            _context.Feed.Publish(LeaseChangeKind.Deleted, lease);
    }

    /// <summary>Takes over settings, the first or changed ones. On the loop's thread.</summary>
    public void Configure(NetworkSettings settings)
    {
        if (Core.Settings is { } current && current.Means(settings))
            return;
        LogServing(Network, settings.RangeStart, settings.RangeEnd, settings.ServerAddress);
        Volatile.Write(ref _poolSize, settings.RangeSize);
        if (Core.Configure(settings) is not { } outside)
            return;
        LogVoid(Network, outside.Deletes.Count);
        _context.Writer.TryWrite(outside, null);
    }

    /// <summary>DHCP is not wanted here now; leases stay. On the loop's thread.</summary>
    public void Suspend() => Core.Suspend();

    public void OnLinkUp(IFrameLink link)
    {
        OnLinkDown("replaced");
        _link = link;
        _registration = _context.Loop.Register(link.Descriptor, SysEpoll.EPOLLIN, this);
        _mayHoldMore = true;
        _isLinkUp = true;
        _advertiser.LinkIsUp(EventLoop.Now);
    }

    public void OnLinkDown(string reason)
    {
        if (_link is null)
            return;
        _context.Loop.Unregister(_registration);
        _link = null;
        _isLinkUp = false;
    }

    // The link's descriptor only wakes the loop; OnTurn does the work.
    public void OnReady(uint events, long now) => _mayHoldMore = true;

    public long OnTurn(long now)
    {
        if (_mayHoldMore)
            _mayHoldMore = ReceiveSome(now);
        DateTimeOffset time = _context.Time.GetUtcNow();
        if (Core.NextDue <= time)
            RunTimers(time);
        // While the link is down what is due waits for it.
        if (_link is not null && _advertiser.NextDue <= now)
            SendAdvertisements(now);
        _link?.Flush();
        long advertise = _link is null ? long.MaxValue : _advertiser.NextDue;
        DateTimeOffset due = Core.NextDue;
        // The clock on the wall may be set: look again within a minute.
        long serve = due - time > TimeSpan.FromMinutes(1) ? now + 60_000_000 : now + Math.Max(0, (long)(due - time).TotalMicroseconds + 1);
        return Math.Min(serve, advertise);
    }

    public bool PrepareToSleep()
    {
        if (_link is not { } link)
            return true;
        if (!_mayHoldMore && link.PrepareToSleep())
            return true;
        _mayHoldMore = true;
        return false;
    }

    private bool ReceiveSome(long now)
    {
        for (int i = 0; i < ReceiveBatch; i++)
        {
            if (_link is not { } link || link.TryReceive(out ReadOnlySpan<byte> record, out TraceContext trace) != ReceiveStatus.Received)
                return false;
            Receive(record, trace, now);
        }
        return true;
    }

    private void RunTimers(DateTimeOffset time)
    {
        (IReadOnlyList<Decision> decisions, IReadOnlyList<Lease> expired) = Core.Tick(time);
        foreach (Decision decision in decisions)
            CarryOut(decision);
        foreach (Lease lease in expired)
            LogExpired(Network, lease.Address, lease.Mac);
        _traces.Sweep(time);
    }

    /// <summary>Takes one record from the link, whatever its bytes.</summary>
    internal void Receive(ReadOnlySpan<byte> record, in TraceContext trace, long now)
    {
        if (IsIpv6(record))
        {
            ReceiveIpv6(record, now);
            return;
        }
        if (Core.Settings is not { } settings)
        {
            Counters.Count(DropCause.NotForUs);
            return;
        }
        switch (FrameReader.Read(record, settings, Mac, out ReceivedFrame frame, out DropCause cause))
        {
            case FrameContent.Dhcp:
                ReceiveDhcp(frame, trace, now);
                break;
            case FrameContent.Arp:
                ReceiveArp(frame.Arp, settings);
                break;
            case FrameContent.EchoRequest:
                AnswerEcho(frame, settings);
                break;
            default:
                Counters.Count(cause);
                break;
        }
    }

    private void ReceiveDhcp(in ReceivedFrame frame, in TraceContext trace, long now)
    {
        if (!DhcpMessage.TryRead(frame.Payload, out DhcpMessage? message, out DropCause cause))
        {
            Counters.Count(cause);
            return;
        }
        Counters.Count(message.Type);
        Decision decision = Core.Handle(message with { From = frame.From, Arrived = now }, frame.IsToServer, _context.Time.GetUtcNow());
        _traces.Decided(decision, trace);
        CarryOut(decision);
    }

    private void ReceiveArp(in ArpPacket arp, NetworkSettings settings)
    {
        if (!arp.SenderIp.IsAny && Core.AddressInUse(arp.SenderIp, arp.SenderMac, _context.Time.GetUtcNow()) is var (write, next))
        {
            LogConflict(Network, arp.SenderIp, arp.SenderMac);
            _context.Writer.TryWrite(write, null);
            _traces.Decided(next, default);
            CarryOut(next);
        }
        if (arp.Operation == ArpPacket.Request && arp.TargetIp == settings.ServerAddress)
            SendArp(new ArpPacket(ArpPacket.Reply, Mac, settings.ServerAddress, arp.SenderMac, arp.SenderIp), arp.SenderMac);
    }

    private void CarryOut(Decision decision)
    {
        if (decision.Cause is { } cause)
            Counters.Count(cause);
        Exchanges.Add(decision);
        LogDecision(Network, decision.Message.Type, decision.Message.Mac, decision.Kind, decision.Address, decision.Reason);
        switch (decision.Kind)
        {
            case DecisionKind.Probe:
                SendArp(new ArpPacket(ArpPacket.Request, Mac, default, default, decision.Address), MacAddress.Broadcast);
                return;
            case DecisionKind.Ack:
                Commit(decision);
                return;
            case DecisionKind.Release:
                LogReleased(Network, decision.Address, decision.Message.Mac);
                break;
            case DecisionKind.Decline:
                LogConflict(Network, decision.Address, default);
                break;
        }
        if (decision.Write is { } write)
            _context.Writer.TryWrite(write, null);
        if (decision.Reply is not null)
            Send(decision);
    }

    private void Commit(Decision decision)
    {
        long began = EventLoop.Now;
        bool queued = _context.Writer.TryWrite(decision.Write!, failure => _context.Loop.Post(() =>
        {
            _context.Metrics.Committed(NetworkId, failure is null, TimeSpan.FromMicroseconds(EventLoop.Now - began));
            Written(decision, failure is null ? null : DropCause.StoreFailed);
        }));
        if (!queued)
            Written(decision, DropCause.StoreBusy);
    }

    private void Written(Decision decision, DropCause? failure)
    {
        DateTimeOffset now = _context.Time.GetUtcNow();
        if (failure is { } cause)
        {
            Counters.Count(cause);
            Decision failed = Core.CommitFailed(decision, cause, now);
            Exchanges.Add(failed);
            _traces.Answered(failed, DropCauses.NameOf(cause));
            return;
        }
        Decision done = Core.Committed(decision, now);
        if (done.Kind == DecisionKind.Ack)
            LogGrant(done);
        else
            _context.Writer.TryWrite(done.Write!, null);
        Send(done);
    }

    private void LogGrant(Decision decision)
    {
        Lease lease = decision.Lease!;
        if (lease.Start + decision.Reply!.LeaseTime == lease.Expire)
            LogGranted(Network, lease.Address, lease.Mac, lease.HostName, (long)(lease.Expire - lease.Start).TotalSeconds, decision.Reason);
        else
            LogExtended(Network, lease.Address, lease.Mac, decision.Reason);
    }

    [LoggerMessage(LogLevel.Information, "{Network}: serving {Start} to {End} as {Server}")]
    private partial void LogServing(string network, Ipv4Address start, Ipv4Address end, Ipv4Address server);

    [LoggerMessage(LogLevel.Information, "{Network}: {Count} leases are void, the network was changed")]
    private partial void LogVoid(string network, int count);

    [LoggerMessage(LogLevel.Information, "{Network}: {Address} leased to {Mac} {HostName} for {Seconds} s: {Reason}")]
    private partial void LogGranted(string network, Ipv4Address address, MacAddress mac, string hostName, long seconds, string reason);

    [LoggerMessage(LogLevel.Debug, "{Network}: {Address} extended for {Mac}: {Reason}")]
    private partial void LogExtended(string network, Ipv4Address address, MacAddress mac, string reason);

    [LoggerMessage(LogLevel.Information, "{Network}: {Address} released by {Mac}")]
    private partial void LogReleased(string network, Ipv4Address address, MacAddress mac);

    [LoggerMessage(LogLevel.Information, "{Network}: {Address} expired, it was {Mac}'s")]
    private partial void LogExpired(string network, Ipv4Address address, MacAddress mac);

    [LoggerMessage(LogLevel.Warning, "{Network}: {Address} is in use by somebody ({Mac}) without a lease, and set aside")]
    private partial void LogConflict(string network, Ipv4Address address, MacAddress mac);

    [LoggerMessage(LogLevel.Debug, "{Network}: {Type} of {Mac}: {Kind} {Address}: {Reason}")]
    private partial void LogDecision(string network, Dhcpv4MessageType type, MacAddress mac, DecisionKind kind, Ipv4Address address, string reason);
}
