namespace VNetMesh.Switch.Registry;

public enum ChangeKind
{
    Created = 1,
    Updated = 2,
    Deleted = 3,
}

/// <summary>One change, and the revision of the whole after it.</summary>
public sealed record Change<T>(ChangeKind Kind, T Item, ulong Revision);

/// <summary>What a watcher gets next: everything as it is, or what has changed since.</summary>
/// <param name="Snapshot">Null: <paramref name="Changes"/> says what is new.</param>
/// <param name="Revision">Where to go on from.</param>
public sealed record FeedBatch<T>(IReadOnlyList<T>? Snapshot, IReadOnlyList<Change<T>> Changes, ulong Revision);

/// <summary>
/// A history of changes that any number of watchers read at their own pace. There is no queue for each watcher: one
/// that falls behind the bounded history gets a snapshot instead. Publishing happens under the lock of the
/// owner, and so does taking a snapshot.
/// </summary>
public sealed class ChangeFeed<T>(Lock gate, Func<IReadOnlyList<T>> snapshot, ulong revision = 0, int history = 1024)
{
    private readonly Queue<Change<T>> _history = new();
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>The revision of the last change.</summary>
    public ulong Revision { get; private set; } = revision;

    /// <summary>Adds a change. The caller holds the lock.</summary>
    public void Publish(ChangeKind kind, T item, ulong revision)
    {
        _history.Enqueue(new Change<T>(kind, item, revision));
        if (_history.Count > history)
            _history.Dequeue();
        Revision = revision;
        TaskCompletionSource changed = _changed;
        _changed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        changed.SetResult();
    }

    /// <summary>What came after a revision, as soon as there is something; a snapshot at once where that is not known any more.</summary>
    /// <param name="after">Null: a snapshot.</param>
    public async Task<FeedBatch<T>> NextAsync(ulong? after, CancellationToken cancellation)
    {
        while (true)
        {
            Task changed;
            lock (gate)
            {
                if (after is not { } known || !Reaches(known))
                    return new FeedBatch<T>(snapshot(), [], Revision);
                if (known != Revision)
                    return new FeedBatch<T>(null, [.. _history.Where(change => change.Revision > known)], Revision);
                changed = _changed.Task;
            }
            await changed.WaitAsync(cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>Whether all changes after that revision are still held.</summary>
    private bool Reaches(ulong known) =>
        known == Revision || (known < Revision && _history.TryPeek(out Change<T>? oldest) && oldest.Revision <= known + 1);
}
