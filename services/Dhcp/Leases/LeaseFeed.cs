using System.Collections.Immutable;
using System.Threading.Channels;

namespace VNetMesh.Dhcp.Leases;

/// <summary>Tells watchers of changes. Publishing is of one thread, and never waits for a watcher.</summary>
public sealed class LeaseFeed
{
    private ImmutableArray<LeaseWatch> _watches = [];

    public void Publish(LeaseChangeKind kind, Lease lease)
    {
        foreach (LeaseWatch watch in _watches)
            watch.Offer(kind, lease);
    }

    /// <param name="network">"networks/{id}"; null: all.</param>
    public LeaseWatch Watch(string? network)
    {
        var watch = new LeaseWatch(network, Remove);
        ImmutableInterlocked.Update(ref _watches, (list, added) => list.Add(added), watch);
        return watch;
    }

    private void Remove(LeaseWatch watch) => ImmutableInterlocked.Update(ref _watches, (list, removed) => list.Remove(removed), watch);
}

/// <summary>One watcher's changes. When it reads too slowly they are thrown away, and it needs a snapshot.</summary>
public sealed class LeaseWatch(string? network, Action<LeaseWatch> onDispose) : IDisposable
{
    private const int Capacity = 4096;

    private readonly Channel<(LeaseChangeKind Kind, Lease Lease)> _changes =
        Channel.CreateBounded<(LeaseChangeKind, Lease)>(new BoundedChannelOptions(Capacity) { SingleReader = true });
    private volatile bool _lagged;

    public ChannelReader<(LeaseChangeKind Kind, Lease Lease)> Changes => _changes.Reader;

    /// <summary>Changes were lost: what comes from <see cref="Changes"/> has a gap.</summary>
    public bool HasLagged => _lagged;

    /// <summary>Forgets all changes so far: a snapshot is taken. On the publishing thread.</summary>
    public void BeginAnew()
    {
        while (_changes.Reader.TryRead(out _))
        {
        }
        _lagged = false;
    }

    public void Dispose() => onDispose(this);

    internal void Offer(LeaseChangeKind kind, Lease lease)
    {
        if ((network is null || lease.Network == network) && !_lagged && !_changes.Writer.TryWrite((kind, lease)))
            _lagged = true;
    }
}
