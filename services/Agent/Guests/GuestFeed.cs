using System.Collections.Immutable;
using System.Threading.Channels;

namespace VNetMesh.Agent.Guests;

public enum GuestEvent
{
    Created,
    Updated,
    Deleted,
}

/// <summary>The guests as they are, for any thread to read, and their changes for those who watch.</summary>
public sealed class GuestFeed
{
    private const int MaxPending = 1024;
    private readonly Lock _gate = new();
    private readonly List<Channel<(GuestEvent, GuestView)>> _watchers = [];
    private ImmutableSortedDictionary<string, GuestView> _current = ImmutableSortedDictionary.Create<string, GuestView>(StringComparer.Ordinal);

    /// <summary>By id.</summary>
    public ImmutableSortedDictionary<string, GuestView> Current => Volatile.Read(ref _current);

    public void Publish(IEnumerable<GuestView> guests)
    {
        ImmutableSortedDictionary<string, GuestView> next = guests.ToImmutableSortedDictionary(guest => guest.Spec.Id, guest => guest, StringComparer.Ordinal);
        lock (_gate)
        {
            foreach ((string id, GuestView guest) in next)
            {
                if (!_current.TryGetValue(id, out GuestView? before))
                    Tell(GuestEvent.Created, guest);
                else if (before != guest)
                    Tell(GuestEvent.Updated, guest);
            }
            foreach (GuestView gone in _current.Values.Where(guest => !next.ContainsKey(guest.Spec.Id)))
                Tell(GuestEvent.Deleted, gone);
            Volatile.Write(ref _current, next);
        }
    }

    /// <summary>The guests now, and every change after; dispose to end it. A watcher that falls 1024 changes behind is ended.</summary>
    public Watch Subscribe()
    {
        Channel<(GuestEvent, GuestView)> channel = Channel.CreateBounded<(GuestEvent, GuestView)>(MaxPending);
        lock (_gate)
        {
            _watchers.Add(channel);
            return new Watch(this, _current, channel);
        }
    }

    private void Tell(GuestEvent change, GuestView guest)
    {
        foreach (Channel<(GuestEvent, GuestView)> watcher in _watchers.ToArray())
        {
            if (watcher.Writer.TryWrite((change, guest)))
                continue;
            watcher.Writer.TryComplete(new WatcherTooSlowException());
            _watchers.Remove(watcher);
        }
    }

    public sealed class Watch(GuestFeed feed, ImmutableSortedDictionary<string, GuestView> snapshot, Channel<(GuestEvent Event, GuestView Guest)> channel) : IDisposable
    {
        public ImmutableSortedDictionary<string, GuestView> Snapshot { get; } = snapshot;

        /// <summary>Fails with <see cref="WatcherTooSlowException"/> when the watcher fell behind.</summary>
        public ChannelReader<(GuestEvent Event, GuestView Guest)> Changes => channel.Reader;

        public void Dispose()
        {
            lock (feed._gate)
                feed._watchers.Remove(channel);
        }
    }
}

/// <summary>A watcher did not read its changes; it begins anew with a snapshot.</summary>
public sealed class WatcherTooSlowException() : Exception("the watcher fell behind");
