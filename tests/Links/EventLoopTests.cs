using System.Collections.Concurrent;
using VNetMesh.Native;

namespace VNetMesh.Links.Tests;

[Collection(CountsDescriptors.Name)]
public sealed class EventLoopTests
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);
    private readonly ConcurrentQueue<Exception> _faults = new();

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Posts_of_many_threads_all_run_each_thread_s_in_order()
    {
        using EventLoop loop = Started();
        var seen = new List<(int Thread, int Number)>();
        Task[] posters = [.. Enumerable.Range(0, 4).Select(thread => Task.Run(() =>
        {
            for (int i = 0; i < 5000; i++)
            {
                int number = i;
                loop.Post(() => seen.Add((thread, number)));
            }
        }, Cancellation))];
        await Task.WhenAll(posters);
        Assert.Equal(20_000, await loop.InvokeAsync(() => seen.Count).WaitAsync(Patience, Cancellation));
        for (int thread = 0; thread < 4; thread++)
            Assert.Equal(Enumerable.Range(0, 5000), seen.Where(entry => entry.Thread == thread).Select(entry => entry.Number));
    }

    /// <summary>The loop sleeps between these: one lost wake-up and an answer never comes.</summary>
    [Fact]
    public async Task No_wake_up_is_lost_between_posts()
    {
        using EventLoop loop = Started();
        for (int i = 0; i < 20_000; i++)
            Assert.Equal(i, await loop.InvokeAsync(() => i).WaitAsync(Patience, Cancellation));
    }

    [Fact]
    public async Task An_invocation_gives_its_exception_to_the_caller()
    {
        using EventLoop loop = Started();
        await Assert.ThrowsAsync<InvalidDataException>(() => loop.InvokeAsync<int>(() => throw new InvalidDataException()));
        Assert.True(await loop.InvokeAsync(() => loop.IsCurrent));
        Assert.False(loop.IsCurrent);
        Assert.Equal(5, await await loop.InvokeAsync(() => loop.InvokeAsync(() => 5)));
        Assert.Empty(_faults);
    }

    [Fact]
    public async Task Work_is_asked_again_when_it_said_and_not_much_later()
    {
        using EventLoop loop = Started();
        var work = new Deadline(30_000);
        loop.Post(() => loop.Add(work));
        (long due, long asked) = await work.Asked.WaitAsync(Patience, Cancellation);
        Assert.InRange(asked - due, 0, 1_000_000);
        // It slept, rather than went around.
        Assert.InRange(work.Turns, 2, 6);
    }

    [Fact]
    public async Task Work_that_was_removed_is_not_asked_and_the_rest_still_is()
    {
        using EventLoop loop = Started();
        var removed = new Deadline(5_000);
        var other = new Deadline(20_000);
        await loop.InvokeAsync(() =>
        {
            loop.Add(removed);
            loop.Add(other);
            loop.Remove(removed);
            return true;
        });
        await other.Asked.WaitAsync(Patience, Cancellation);
        Assert.False(removed.Asked.IsCompleted);
    }

    /// <summary>Of two that are ready at once the first ends the other's watch, and another's takes its slot.</summary>
    [Fact]
    public async Task An_event_of_a_watch_that_was_ended_does_not_reach_the_one_in_its_slot()
    {
        using EventLoop loop = Started();
        using FileDescriptor first = SysEpoll.CreateEvent(), second = SysEpoll.CreateEvent(), third = SysEpoll.CreateEvent();
        var log = new List<string>();
        var registrations = new Dictionary<string, EventLoop.Registration>();
        void EndOther(string other)
        {
            log.Add(other == "second" ? "first" : "second");
            loop.Unregister(registrations[other]);
            registrations["third"] = loop.Register(third.Number, SysEpoll.EPOLLIN, new Handler(() => log.Add("third")));
            SysEpoll.Drain(first.Number);
            SysEpoll.Drain(second.Number);
        }
        await loop.InvokeAsync(() =>
        {
            registrations["first"] = loop.Register(first.Number, SysEpoll.EPOLLIN, new Handler(() => EndOther("second")));
            registrations["second"] = loop.Register(second.Number, SysEpoll.EPOLLIN, new Handler(() => EndOther("first")));
            SysEpoll.Signal(first.Number);
            SysEpoll.Signal(second.Number);
            return true;
        });
        await loop.InvokeAsync(() => true);
        await Task.Delay(50, Cancellation);
        Assert.Single(log);
        SysEpoll.Signal(third.Number);
        await Task.Delay(50, Cancellation);
        Assert.Equal("third", (await loop.InvokeAsync(() => log.ToArray()))[1]);
        await loop.InvokeAsync(() =>
        {
            loop.Unregister(registrations["third"]);
            loop.Unregister(registrations["third"]);
            loop.Modify(registrations["third"], SysEpoll.EPOLLIN);
            loop.Unregister(default);
            return true;
        });
        Assert.Empty(_faults);
    }

    [Fact]
    public async Task A_descriptor_that_cannot_be_watched_is_refused_and_costs_no_slot()
    {
        using EventLoop loop = Started();
        string file = Path.GetTempFileName();
        using (FileStream regular = File.OpenRead(file))
        {
            int number = (int)regular.SafeFileHandle.DangerousGetHandle();
            for (int i = 0; i < 100; i++)
                Assert.Equal(NativeErrno.EPERM, (await Assert.ThrowsAsync<SyscallException>(() => loop.InvokeAsync(() => loop.Register(number, SysEpoll.EPOLLIN, new Handler(() => { }))))).Errno);
        }
        File.Delete(file);
        using FileDescriptor descriptor = SysEpoll.CreateEvent();
        Assert.Equal(1, (await loop.InvokeAsync(() => loop.Register(descriptor.Number, SysEpoll.EPOLLIN, new Handler(() => { })))).Index);
    }

    [Fact]
    public async Task One_that_fails_always_does_not_starve_the_others()
    {
        using EventLoop loop = Started();
        using FileDescriptor bad = SysEpoll.CreateEvent(), good = SysEpoll.CreateEvent();
        var heard = new TaskCompletionSource();
        var later = new Deadline(20_000);
        await loop.InvokeAsync(() =>
        {
            loop.Register(bad.Number, SysEpoll.EPOLLIN, new Handler(() => throw new InvalidOperationException("handler")));
            loop.Register(good.Number, SysEpoll.EPOLLIN, new Handler(() => heard.TrySetResult()));
            loop.Add(new FailingWork());
            loop.Add(later);
            return true;
        });
        loop.Post(() => throw new InvalidOperationException("post"));
        SysEpoll.Signal(bad.Number);
        SysEpoll.Signal(good.Number);
        await heard.Task.WaitAsync(Patience, Cancellation);
        await later.Asked.WaitAsync(Patience, Cancellation);
        Assert.Contains(_faults, fault => fault.Message == "handler");
        Assert.Contains(_faults, fault => fault.Message == "post");
        Assert.Contains(_faults, fault => fault.Message == "work");
    }

    [Fact]
    public async Task What_was_posted_before_the_end_is_run_and_what_comes_after_is_cancelled()
    {
        EventLoop loop = Started();
        var held = new ManualResetEventSlim();
        CancellationToken cancellation = Cancellation;
        loop.Post(() => held.Wait(Patience, cancellation));
        Task<int> before = loop.InvokeAsync(() => 1);
        Task end = Task.Run(loop.Dispose, cancellation);
        held.Set();
        await end.WaitAsync(Patience, Cancellation);
        Assert.Equal(1, await before.WaitAsync(Patience, Cancellation));
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => loop.InvokeAsync(() => 2).WaitAsync(Patience, Cancellation));
        var never = new EventLoop("never", _faults.Enqueue);
        never.Dispose();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => never.InvokeAsync(() => 2).WaitAsync(Patience, Cancellation));
    }

    /// <summary>The number of a closed descriptor soon is another's: a late post must not write into that.</summary>
    [Fact]
    public void A_post_after_the_end_writes_into_nobody_else_s_descriptor()
    {
        EventLoop loop = Started();
        loop.Dispose();
        FileDescriptor[] others = [.. Enumerable.Range(0, 32).Select(_ => SysEpoll.CreateEvent())];
        loop.Post(() => { });
        loop.Dispose();
        Assert.All(others, descriptor => Assert.Equal(0UL, Take(descriptor)));
        Array.ForEach(others, descriptor => descriptor.Dispose());
    }

    private static unsafe ulong Take(FileDescriptor descriptor)
    {
        ulong count = 0;
        return Unistd.read(descriptor.Number, &count, 8) == 8 ? count : 0;
    }

    private EventLoop Started()
    {
        var loop = new EventLoop("test", _faults.Enqueue);
        loop.Start();
        return loop;
    }

    private sealed class Handler(Action action) : IReadyHandler
    {
        public void OnReady(uint events, long now) => action();
    }

    private sealed class FailingWork : ILoopWork
    {
        public long OnTurn(long now) => throw new InvalidOperationException("work");

        public bool PrepareToSleep() => throw new InvalidOperationException("work");
    }

    /// <summary>Wants to be asked once, so many microseconds after it was asked first.</summary>
    private sealed class Deadline(long wait) : ILoopWork
    {
        private readonly TaskCompletionSource<(long Due, long Asked)> _asked = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private long _due;

        public Task<(long Due, long Asked)> Asked => _asked.Task;

        public int Turns { get; private set; }

        public long OnTurn(long now)
        {
            Turns++;
            if (_due == 0)
                _due = now + wait;
            if (EventLoop.Now >= _due)
            {
                _asked.TrySetResult((_due, EventLoop.Now));
                return long.MaxValue;
            }
            return _due;
        }

        public bool PrepareToSleep() => true;
    }
}
