namespace VNetMesh.Nat.Timing;

/// <summary>Told on the loop's thread that its timer is due.</summary>
public interface ITimerOwner
{
    void OnTimer(long now);
}

/// <summary>One deadline of one owner; at most once in the queue.</summary>
public sealed class LoopTimer(ITimerOwner owner)
{
    internal readonly ITimerOwner Owner = owner;
    internal int Index = -1;

    /// <summary>Where it stands in the heap; never later than <see cref="Deadline"/>.</summary>
    internal long QueuedFor = long.MaxValue;

    /// <summary>Microseconds of the loop's clock; long.MaxValue: not set.</summary>
    public long Deadline { get; internal set; } = long.MaxValue;
}

/// <summary>
/// Deadlines of many flows: a binary heap in which a deadline that moves back stays where it is until its old place
/// comes up. Segments push deadlines back far more often than they come due, and that costs one store.
/// </summary>
public sealed class TimerQueue
{
    private LoopTimer[] _heap = new LoopTimer[64];

    public int Count { get; private set; }

    /// <summary>When <see cref="Run"/> must be called next; may be early, never late. long.MaxValue: nothing is set.</summary>
    public long Next => Count == 0 ? long.MaxValue : _heap[0].QueuedFor;

    /// <param name="deadline">Microseconds; long.MaxValue: none for now.</param>
    public void Set(LoopTimer timer, long deadline)
    {
        timer.Deadline = deadline;
        if (timer.Index >= 0)
        {
            if (deadline < timer.QueuedFor)
            {
                timer.QueuedFor = deadline;
                SiftUp(timer.Index);
            }
            return;
        }
        if (deadline != long.MaxValue)
            Push(timer);
    }

    /// <summary>Takes the timer out, so that the queue holds its owner no longer.</summary>
    public void Cancel(LoopTimer timer)
    {
        timer.Deadline = long.MaxValue;
        if (timer.Index >= 0)
            RemoveAt(timer.Index);
    }

    /// <summary>Calls the owners of all that is due. They may set and cancel timers.</summary>
    public void Run(long now)
    {
        while (Count > 0 && _heap[0].QueuedFor <= now)
        {
            LoopTimer timer = _heap[0];
            RemoveAt(0);
            if (timer.Deadline > now)
            {
                if (timer.Deadline != long.MaxValue)
                    Push(timer);
                continue;
            }
            timer.Deadline = long.MaxValue;
            timer.Owner.OnTimer(now);
        }
    }

    private void Push(LoopTimer timer)
    {
        if (Count == _heap.Length)
            Array.Resize(ref _heap, Count * 2);
        timer.QueuedFor = timer.Deadline;
        timer.Index = Count;
        _heap[Count++] = timer;
        SiftUp(timer.Index);
    }

    private void RemoveAt(int index)
    {
        LoopTimer removed = _heap[index];
        LoopTimer last = _heap[--Count];
        _heap[Count] = null!;
        removed.Index = -1;
        removed.QueuedFor = long.MaxValue;
        if (ReferenceEquals(last, removed))
            return;
        _heap[index] = last;
        last.Index = index;
        SiftUp(index);
        SiftDown(last.Index);
    }

    private void SiftUp(int index)
    {
        LoopTimer timer = _heap[index];
        while (index > 0)
        {
            int parent = (index - 1) / 2;
            if (_heap[parent].QueuedFor <= timer.QueuedFor)
                break;
            Place(_heap[parent], index);
            index = parent;
        }
        Place(timer, index);
    }

    private void SiftDown(int index)
    {
        LoopTimer timer = _heap[index];
        while (true)
        {
            int child = (index * 2) + 1;
            if (child >= Count)
                break;
            if (child + 1 < Count && _heap[child + 1].QueuedFor < _heap[child].QueuedFor)
                child++;
            if (_heap[child].QueuedFor >= timer.QueuedFor)
                break;
            Place(_heap[child], index);
            index = child;
        }
        Place(timer, index);
    }

    private void Place(LoopTimer timer, int index)
    {
        _heap[index] = timer;
        timer.Index = index;
    }
}
