using System.Collections.Immutable;
using System.Threading.Channels;
using VNetMesh.Links;

namespace VNetMesh.Nat.Flows;

public enum FlowChangeKind
{
    Created,
    Updated,
    Deleted,
}

public readonly record struct FlowChange(FlowChangeKind Kind, FlowSnapshot Flow);

/// <summary>Tells watchers of flows' changes. A watcher that is too slow misses some, and is told how many.</summary>
public sealed class FlowHub
{
    private ImmutableArray<FlowWatch> _watches = [];

    public void Publish(FlowChangeKind kind, Flow flow)
    {
        ImmutableArray<FlowWatch> watches = _watches;
        if (watches.IsEmpty)
            return;
        var change = new FlowChange(kind, flow.Snapshot(EventLoop.Now));
        foreach (FlowWatch watch in watches)
            watch.Offer(change);
    }

    public FlowWatch Watch(string? network)
    {
        var watch = new FlowWatch(this, network);
        ImmutableInterlocked.Update(ref _watches, static (list, added) => list.Add(added), watch);
        return watch;
    }

    internal void Remove(FlowWatch watch) => ImmutableInterlocked.Update(ref _watches, static (list, removed) => list.Remove(removed), watch);
}

/// <summary>One watcher's queue of at most <see cref="Capacity"/> changes.</summary>
public sealed class FlowWatch : IDisposable
{
    public const int Capacity = 4096;

    private readonly FlowHub _hub;
    private readonly string? _network;
    private readonly Channel<FlowChange> _changes = Channel.CreateBounded<FlowChange>(new BoundedChannelOptions(Capacity) { SingleReader = true, FullMode = BoundedChannelFullMode.Wait });
    private long _missed;

    internal FlowWatch(FlowHub hub, string? network)
    {
        _hub = hub;
        _network = network;
    }

    public ChannelReader<FlowChange> Changes => _changes.Reader;

    /// <summary>Changes left out since this was called last.</summary>
    public ulong TakeMissed() => (ulong)Interlocked.Exchange(ref _missed, 0);

    public void Dispose() => _hub.Remove(this);

    internal void Offer(in FlowChange change)
    {
        if (_network is not null && change.Flow.Network != _network)
            return;
        if (!_changes.Writer.TryWrite(change))
            Interlocked.Increment(ref _missed);
    }
}
