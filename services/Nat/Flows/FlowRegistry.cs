using VNetMesh.Links;
using VNetMesh.Nat.Dns;
using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Observability;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Flows;

/// <summary>The flows of one gateway, oldest first, and the bounds on them. On the loop's thread.</summary>
public sealed class FlowRegistry
{
    private readonly GatewaySettings _settings;
    private readonly NatLimits _limits;
    private readonly DropCounters _drops;
    private readonly DnsNames _names;
    private readonly FlowHub _hub;
    private readonly NatMetrics _metrics;
    private readonly Dictionary<long, Flow> _byNumber = [];
    private readonly int[] _counts = new int[3];
    private readonly long[] _begun = new long[3];
    private Flow? _oldest;
    private Flow? _newest;
    private long _lastNumber;

    internal FlowRegistry(GatewaySettings settings, NatLimits limits, DropCounters drops, DnsNames names, FlowHub hub, NatMetrics metrics)
    {
        _settings = settings;
        _limits = limits;
        _drops = drops;
        _names = names;
        _hub = hub;
        _metrics = metrics;
    }

    /// <summary>Those that ended last.</summary>
    public FlowHistory History { get; } = new();

    /// <summary>Who moved how much.</summary>
    public TalkerTable Talkers { get; } = new();

    /// <summary>Segments sent to guests again. The loop writes, anybody reads.</summary>
    public long Retransmits { get; internal set; }

    public int CountOf(FlowProtocol protocol) => Volatile.Read(ref _counts[(int)protocol]);

    /// <summary>Flows that began since the gateway did.</summary>
    public long BegunOf(FlowProtocol protocol) => Volatile.Read(ref _begun[(int)protocol]);

    /// <summary>Whether one more flow of the guest may begin; counts the refusal.</summary>
    public bool MayBegin(Neighbour guest)
    {
        if (_limits.Flows >= _limits.MaxFlows)
        {
            _drops.Count(DropCause.FlowLimit);
            return false;
        }
        if (guest.Flows >= _limits.MaxFlowsPerGuest)
        {
            _drops.Count(DropCause.FlowLimitGuest);
            return false;
        }
        return true;
    }

    public void Add(Flow flow, in TraceContext parent)
    {
        flow.Number = ++_lastNumber;
        flow.Previous = _newest;
        if (_newest is null)
            _oldest = flow;
        else
            _newest.Next = flow;
        _newest = flow;
        _byNumber.Add(flow.Number, flow);
        _counts[(int)flow.Protocol]++;
        _begun[(int)flow.Protocol]++;
        _limits.Flows++;
        if (flow.Guest.Flows++ == 0)
            flow.Guest.Talker = Talkers.Begin(flow.Guest.Address);
        flow.Story.Trace = parent;
        if (_names.Find(flow.Remote) is { } known)
            (flow.Story.DnsName, flow.Story.DnsAnswered) = known;
        _hub.Publish(FlowChangeKind.Created, flow);
    }

    /// <summary>Once for each flow, when it has let go of what it held.</summary>
    public void Remove(Flow flow, string reason)
    {
        if (!_byNumber.Remove(flow.Number))
            return;
        flow.EndReason = reason;
        if (flow.Previous is null)
            _oldest = flow.Next;
        else
            flow.Previous.Next = flow.Next;
        if (flow.Next is null)
            _newest = flow.Previous;
        else
            flow.Next.Previous = flow.Previous;
        flow.Previous = flow.Next = null;
        _counts[(int)flow.Protocol]--;
        _limits.Flows--;
        if (--flow.Guest.Flows == 0)
            Talkers.End(flow.Guest.Talker!);
        // The state is changed after the flow has left the list, so that watchers see one message, not two.
        flow.SetState(FlowState.Closed);
        long now = EventLoop.Now;
        flow.Story.Ended = now;
        NatTelemetry.End(flow, _settings);
        _metrics.FlowEnded(_settings.NetworkId, flow, now);
        History.Add(flow);
        _hub.Publish(FlowChangeKind.Deleted, flow);
    }

    public void Changed(Flow flow)
    {
        if (flow.State != FlowState.Closed)
            _hub.Publish(FlowChangeKind.Updated, flow);
    }

    public Flow? Find(long number) => _byNumber.GetValueOrDefault(number);

    /// <summary>A flow that is alive, or one of the last that ended; null: neither.</summary>
    public FlowRecord? Describe(long number, long now)
    {
        if (Find(number) is { } flow)
            return new FlowFacts(flow).ToRecord(now);
        foreach (FlowFacts ended in History.List())
        {
            if (ended.Number == number)
                return ended.ToRecord(now);
        }
        return null;
    }

    /// <summary>Flows alive and the last that ended, the newest first; of one guest where an address is given.</summary>
    public List<FlowRecord> Recent(Ipv4Address? guest, int count, long now)
    {
        var found = new List<FlowFacts>();
        for (Flow? flow = _newest; flow is not null && found.Count < count; flow = flow.Previous)
        {
            if (guest is null || flow.Guest.Address == guest)
                found.Add(new FlowFacts(flow));
        }
        found.AddRange(History.List().Where(ended => guest is null || ended.Guest == guest).Take(count));
        return [.. found.OrderByDescending(facts => facts.Number).Take(count).Select(facts => facts.ToRecord(now))];
    }

    /// <summary>Flows with numbers above the given one, oldest first.</summary>
    public List<FlowSnapshot> List(long after, int count, long now)
    {
        var list = new List<FlowSnapshot>();
        for (Flow? flow = _oldest; flow is not null && list.Count < count; flow = flow.Next)
        {
            if (flow.Number > after)
                list.Add(flow.Snapshot(now));
        }
        return list;
    }

    /// <summary>Ends every flow.</summary>
    public void EndAll(string reason)
    {
        while (_oldest is { } flow)
        {
            flow.End(reason);
            // A flow that cannot end by itself at once is let go of here.
            if (ReferenceEquals(_oldest, flow))
                Remove(flow, reason);
        }
    }
}
