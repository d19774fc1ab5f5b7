using VNetMesh.Links;
using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Observability;

namespace VNetMesh.Nat.Flows;

/// <summary>The flows of one gateway, oldest first, and the bounds on them. On the loop's thread.</summary>
public sealed class FlowRegistry(GatewaySettings settings, NatLimits limits, DropCounters drops, FlowHub hub, NatMetrics metrics)
{
    private readonly Dictionary<long, Flow> _byNumber = [];
    private readonly int[] _counts = new int[3];
    private Flow? _oldest;
    private Flow? _newest;
    private long _lastNumber;

    public int CountOf(FlowProtocol protocol) => Volatile.Read(ref _counts[(int)protocol]);

    /// <summary>Whether one more flow of the guest may begin; counts the refusal.</summary>
    public bool MayBegin(Neighbour guest)
    {
        if (limits.Flows >= limits.MaxFlows)
        {
            drops.Count(DropCause.FlowLimit);
            return false;
        }
        if (guest.Flows >= limits.MaxFlowsPerGuest)
        {
            drops.Count(DropCause.FlowLimitGuest);
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
        limits.Flows++;
        flow.Guest.Flows++;
        NatTelemetry.Begin(flow, settings, parent);
        hub.Publish(FlowChangeKind.Created, flow);
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
        limits.Flows--;
        flow.Guest.Flows--;
        // The state is changed after the flow has left the list, so that watchers see one message, not two.
        flow.SetState(FlowState.Closed);
        NatTelemetry.End(flow);
        metrics.FlowEnded(settings.NetworkId, flow, EventLoop.Now);
        hub.Publish(FlowChangeKind.Deleted, flow);
    }

    public void Changed(Flow flow)
    {
        if (flow.State != FlowState.Closed)
            hub.Publish(FlowChangeKind.Updated, flow);
    }

    public Flow? Find(long number) => _byNumber.GetValueOrDefault(number);

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
