using System.Collections.Concurrent;
using System.Diagnostics;
using VNetMesh.Native;

namespace VNetMesh.Links;

/// <summary>Told on the loop's thread that a descriptor is ready.</summary>
public interface IReadyHandler
{
    /// <param name="events">EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP.</param>
    /// <param name="now">Microseconds of the loop's clock.</param>
    void OnReady(uint events, long now);
}

/// <summary>Asked on the loop's thread, each time around, before the loop sleeps.</summary>
public interface ILoopWork
{
    /// <summary>Does what is due and says when it must be asked again, in microseconds; long.MaxValue: not by time.</summary>
    long OnTurn(long now);

    /// <summary>Arms doorbells. False: something has come meanwhile; the loop goes around again without sleeping.</summary>
    bool PrepareToSleep();
}

/// <summary>
/// One thread and one epoll set: run to completion. Handlers, work and posted actions run on the thread and
/// nowhere else, so what they own needs no locks. It sleeps when there is nothing to do.
/// </summary>
public sealed unsafe class EventLoop : IDisposable
{
    private const int Batch = 64;
    private const long FaultPause = 10_000; // microseconds

    private readonly FileDescriptor _epoll = new(Syscall.Check(SysEpoll.epoll_create1(SysEpoll.EPOLL_CLOEXEC), "epoll_create1"));
    private readonly FileDescriptor _wake = SysEpoll.CreateEvent();
    private readonly ConcurrentQueue<Action> _posted = new();
    private readonly List<ILoopWork> _work = [];
    private readonly Action<Exception> _onFault;
    private readonly Thread _thread;
    private Slot[] _slots = new Slot[16];
    private int _slotCount = 1; // slot 0 is the wake descriptor
    private readonly Stack<int> _freeSlots = new();
    private volatile bool _stop;
    private volatile bool _ended;
    private int _wakePending;
    private int _workVersion;

    /// <param name="name">Thread name, at most 15 characters show in ps.</param>
    /// <param name="onFault">Told of an exception that a handler let out; the loop goes on.</param>
    public EventLoop(string name, Action<Exception> onFault)
    {
        _onFault = onFault;
        var wake = new SysEpoll.epoll_event { events = SysEpoll.EPOLLIN, data = 0 };
        Syscall.Check(SysEpoll.epoll_ctl(_epoll.Number, SysEpoll.EPOLL_CTL_ADD, _wake.Number, &wake), "epoll_ctl");
        _thread = new Thread(Run) { Name = name, IsBackground = true };
    }

    /// <summary>Microseconds since an arbitrary start; never goes back.</summary>
    public static long Now => (long)(Stopwatch.GetTimestamp() * (1_000_000.0 / Stopwatch.Frequency));

    /// <summary>True on the loop's own thread.</summary>
    public bool IsCurrent => Thread.CurrentThread == _thread;

    /// <summary>Times around since the start: a loop that does not move while it has work is stuck.</summary>
    public long Turns { get; private set; }

    /// <summary>Time of the longest turn since it was read last, in microseconds.</summary>
    public long TakeLongestTurn() => Interlocked.Exchange(ref _longestTurn, 0);

    private long _longestTurn;
    private long _busy;

    /// <summary>As the thread is called.</summary>
    public string Name => _thread.Name!;

    /// <summary>Microseconds spent in turns, not asleep, since the start; from any thread.</summary>
    public long Busy => Volatile.Read(ref _busy);

    /// <summary>Actions that were posted and have not run yet; from any thread.</summary>
    public int Queued => _posted.Count;

    public void Start() => _thread.Start();

    /// <summary>Runs an action on the loop's thread, soon. From any thread. Not run when the loop has ended.</summary>
    public void Post(Action action)
    {
        _posted.Enqueue(action);
        if (Interlocked.Exchange(ref _wakePending, 1) == 0)
            SysEpoll.Signal(_wake);
    }

    /// <summary>Runs a function on the loop's thread and gives its result; cancelled when the loop has ended. From any thread.</summary>
    public Task<T> InvokeAsync<T>(Func<T> function)
    {
        if (IsCurrent)
            return Task.FromResult(function());
        var completion = new TaskCompletionSource<T>(TaskCreationOptions.RunContinuationsAsynchronously);
        Post(() =>
        {
            try
            {
                completion.TrySetResult(function());
            }
            catch (Exception exception)
            {
                completion.TrySetException(exception);
            }
        });
        // Either this sees that the loop has ended, or the loop's last look at what was posted sees this.
        Interlocked.MemoryBarrier();
        if (_ended)
            completion.TrySetCanceled();
        return completion.Task;
    }

    /// <summary>Adds work to be asked each time around. On the loop's thread, or before the start.</summary>
    public void Add(ILoopWork work)
    {
        _work.Add(work);
        _workVersion++;
    }

    public void Remove(ILoopWork work)
    {
        if (_work.Remove(work))
            _workVersion++;
    }

    /// <summary>Watches a descriptor. On the loop's thread, or before the start.</summary>
    /// <returns>A registration to change or end the watch by.</returns>
    public Registration Register(int descriptor, uint events, IReadyHandler handler)
    {
        int index = _freeSlots.Count > 0 ? _freeSlots.Pop() : _slotCount++;
        if (index == _slots.Length)
            Array.Resize(ref _slots, _slots.Length * 2);
        ref Slot slot = ref _slots[index];
        slot.Handler = handler;
        slot.Generation++;
        var registration = new Registration(index, slot.Generation, descriptor);
        var request = new SysEpoll.epoll_event { events = events, data = registration.Data };
        if (SysEpoll.epoll_ctl(_epoll.Number, SysEpoll.EPOLL_CTL_ADD, descriptor, &request) < 0)
        {
            int errno = Syscall.Errno;
            slot.Handler = null;
            _freeSlots.Push(index);
            throw new SyscallException("epoll_ctl(ADD)", errno);
        }
        return registration;
    }

    public void Modify(Registration registration, uint events)
    {
        if (!IsLive(registration))
            return;
        var request = new SysEpoll.epoll_event { events = events, data = registration.Data };
        Syscall.Check(SysEpoll.epoll_ctl(_epoll.Number, SysEpoll.EPOLL_CTL_MOD, registration.Descriptor, &request), "epoll_ctl(MOD)");
    }

    /// <summary>Ends a watch, before the descriptor is closed. Doing it twice does nothing.</summary>
    public void Unregister(Registration registration)
    {
        if (!IsLive(registration))
            return;
        SysEpoll.epoll_event unused;
        _ = SysEpoll.epoll_ctl(_epoll.Number, SysEpoll.EPOLL_CTL_DEL, registration.Descriptor, &unused);
        _slots[registration.Index].Handler = null;
        _freeSlots.Push(registration.Index);
    }

    /// <summary>Ends a watch whose descriptor is closed right after: the kernel takes it out of the set by itself, and a call is saved.</summary>
    public void Forget(Registration registration)
    {
        if (!IsLive(registration))
            return;
        _slots[registration.Index].Handler = null;
        _freeSlots.Push(registration.Index);
    }

    /// <summary>Stops the thread and waits for it. What was posted before is still run.</summary>
    public void Dispose()
    {
        _stop = true;
        SysEpoll.Signal(_wake);
        bool started = (_thread.ThreadState & System.Threading.ThreadState.Unstarted) == 0;
        if (!started)
            _ended = true;
        // A thread that does not come back keeps its descriptors: closed, their numbers could become another's under it.
        if (started && !IsCurrent && !_thread.Join(TimeSpan.FromSeconds(5)))
            return;
        _epoll.Dispose();
        _wake.Dispose();
    }

    private bool IsLive(Registration registration) =>
        registration.Index > 0 && _slots[registration.Index].Generation == registration.Generation && _slots[registration.Index].Handler is not null;

    private void Run()
    {
        SysEpoll.epoll_event* events = stackalloc SysEpoll.epoll_event[Batch];
        int timeout = 0;
        while (!_stop)
        {
            int count = SysEpoll.epoll_wait(_epoll.Number, events, Batch, timeout);
            long now = Now;
            for (int i = 0; i < count && !_stop; i++)
                Dispatch(events[i].data, events[i].events, now);
            RunPosted();
            timeout = _stop ? 0 : Turn(now);
            Turns++;
            long took = Now - now;
            Volatile.Write(ref _busy, _busy + took);
            if (took > Volatile.Read(ref _longestTurn))
                Volatile.Write(ref _longestTurn, took);
        }
        _ended = true;
        Interlocked.MemoryBarrier();
        RunPosted();
    }

    private void Dispatch(ulong data, uint events, long now)
    {
        int index = (int)(data & 0xFFFF_FFFF);
        if (index == 0)
        {
            SysEpoll.Drain(_wake.Number);
            return;
        }
        // A handler earlier in the batch may have ended this watch, and its slot may be another's by now.
        ref Slot slot = ref _slots[index];
        if (slot.Generation != (uint)(data >> 32) || slot.Handler is not { } handler)
            return;
        try
        {
            handler.OnReady(events, now);
        }
        catch (Exception exception)
        {
            _onFault(exception);
        }
    }

    private void RunPosted()
    {
        Volatile.Write(ref _wakePending, 0);
        Interlocked.MemoryBarrier();
        // Bounded: actions that post again wait for the next time around.
        for (int i = _posted.Count; i > 0 && _posted.TryDequeue(out Action? action); i--)
        {
            try
            {
                action();
            }
            catch (Exception exception)
            {
                _onFault(exception);
            }
        }
    }

    /// <returns>Milliseconds to sleep; −1: until something is ready.</returns>
    private int Turn(long now)
    {
        int version = _workVersion;
        long deadline = long.MaxValue;
        for (int i = 0; i < _work.Count; i++)
            deadline = Math.Min(deadline, Ask(_work[i], now));
        bool maySleep = _posted.IsEmpty;
        for (int i = 0; i < _work.Count; i++)
            maySleep &= Prepare(_work[i]);
        // Work that came or went moved the others in the list: one of them may not have been asked.
        if (!maySleep || version != _workVersion)
            return 0;
        if (deadline == long.MaxValue)
            return -1;
        long wait = deadline - Now;
        return wait <= 0 ? 0 : (int)(Math.Min(wait, 60_000_000) + 999) / 1000;
    }

    // One that fails must not keep the others from their turn; it is asked again after a while, not at once.
    private long Ask(ILoopWork work, long now)
    {
        try
        {
            return work.OnTurn(now);
        }
        catch (Exception exception)
        {
            _onFault(exception);
            return now + FaultPause;
        }
    }

    private bool Prepare(ILoopWork work)
    {
        try
        {
            return work.PrepareToSleep();
        }
        catch (Exception exception)
        {
            _onFault(exception);
            return true;
        }
    }

    private struct Slot
    {
        public IReadyHandler? Handler;
        public uint Generation;
    }

    /// <summary>One watch of one descriptor.</summary>
    public readonly record struct Registration(int Index, uint Generation, int Descriptor)
    {
        internal ulong Data => (uint)Index | ((ulong)Generation << 32);
    }
}
