using System.Security.Cryptography;
using System.Runtime.InteropServices;
using VNetMesh.Native;

namespace VNetMesh.Links.Tests;

public sealed class RingTests
{
    private const int Capacity = 256 * 1024;

    [Fact]
    public void Gives_records_and_traces_as_they_were_sent()
    {
        using var pair = new RingPair();
        var trace = new TraceContext(1, 2, 3, true);
        Assert.Equal(SendStatus.Sent, pair.Maker.TrySend("first"u8, trace));
        Assert.Equal(SendStatus.Sent, pair.Maker.TrySend("second"u8, default));
        Assert.Equal(ReceiveStatus.Received, pair.Other.TryReceive(out ReadOnlySpan<byte> record, out TraceContext seen));
        Assert.True(record.SequenceEqual("first"u8));
        Assert.Equal(trace, seen);
        Assert.Equal(ReceiveStatus.Received, pair.Other.TryReceive(out record, out seen));
        Assert.True(record.SequenceEqual("second"u8));
        Assert.False(seen.IsPresent);
        Assert.Equal(ReceiveStatus.Empty, pair.Other.TryReceive(out _, out _));
        // The other way is independent.
        Assert.Equal(SendStatus.Sent, pair.Other.TrySend("back"u8, default));
        Assert.Equal(ReceiveStatus.Received, pair.Maker.TryReceive(out record, out _));
        Assert.True(record.SequenceEqual("back"u8));
    }

    [Fact]
    public void A_doorbell_rings_for_what_is_new_and_for_nothing_else()
    {
        using var pair = new RingPair();
        Assert.True(pair.Maker.PrepareToSleep());
        Assert.True(pair.Other.PrepareToSleep());
        // Both sleep. One is woken for some reason of its own, looks, and sleeps again: the other must not notice.
        pair.Maker.Flush();
        Assert.True(pair.Maker.PrepareToSleep());
        Assert.False(WasRung(pair.Other));
        // Something new rings once.
        Assert.Equal(SendStatus.Sent, pair.Maker.TrySend("first"u8, default));
        pair.Maker.Flush();
        Assert.True(WasRung(pair.Other));
        pair.Maker.Flush();
        Assert.False(WasRung(pair.Other));
        // The one that was woken takes it and sleeps; that room was made wakes nobody who did not wait for it.
        Assert.Equal(ReceiveStatus.Received, pair.Other.TryReceive(out _, out _));
        Assert.Equal(ReceiveStatus.Empty, pair.Other.TryReceive(out _, out _));
        Assert.True(pair.Other.PrepareToSleep());
        Assert.False(WasRung(pair.Maker));
        // The next is heard again.
        Assert.Equal(SendStatus.Sent, pair.Maker.TrySend("second"u8, default));
        pair.Maker.Flush();
        Assert.True(WasRung(pair.Other));
    }

    [Fact]
    public void Room_rings_for_a_producer_that_waits_for_it()
    {
        using var pair = new RingPair();
        byte[] record = new byte[60_000];
        while (pair.Maker.TrySend(record, default) == SendStatus.Sent)
        {
        }
        pair.Maker.Flush();
        for (int round = 0; round < 3; round++)
        {
            Assert.True(pair.Maker.PrepareToSleep());
            Assert.False(WasRung(pair.Maker));
            Assert.Equal(ReceiveStatus.Received, pair.Other.TryReceive(out _, out _));
            pair.Other.Flush();
            Assert.True(WasRung(pair.Maker));
            Assert.Equal(SendStatus.Sent, pair.Maker.TrySend(record, default));
            Assert.Equal(SendStatus.Full, pair.Maker.TrySend(record, default));
        }
    }

    private static unsafe bool WasRung(RingLink link)
    {
        ulong count;
        return Unistd.read(link.Descriptor, &count, 8) == 8;
    }

    [Fact]
    public void A_full_ring_says_so_and_loses_nothing()
    {
        using var pair = new RingPair();
        byte[] record = new byte[1000];
        int sent = 0;
        while (pair.Maker.TrySend(Numbered(record, sent), default) == SendStatus.Sent)
            sent++;
        // 1000 octets and the header of 32, in steps of 64.
        Assert.Equal(Capacity / 1088, sent);
        Assert.Equal(SendStatus.Full, pair.Maker.TrySend(record, default));
        for (int i = 0; i < sent; i++)
        {
            Assert.Equal(ReceiveStatus.Received, pair.Other.TryReceive(out ReadOnlySpan<byte> received, out _));
            Assert.Equal(i, MemoryMarshal.Read<int>(received));
        }
        Assert.Equal(ReceiveStatus.Empty, pair.Other.TryReceive(out _, out _));
        Assert.Equal(SendStatus.Sent, pair.Maker.TrySend(record, default));
    }

    /// <summary>The largest record must fit an empty ring of the smallest capacity wherever the ring happens to stand.</summary>
    [Fact]
    public void The_largest_record_fits_an_empty_ring_at_every_position()
    {
        using var pair = new RingPair();
        byte[] largest = new byte[FrameRecord.MaxLength];
        for (int i = 0; i < Capacity / 64; i++)
        {
            Assert.Equal(SendStatus.Sent, pair.Maker.TrySend(largest, default));
            Assert.Equal(ReceiveStatus.Received, pair.Other.TryReceive(out ReadOnlySpan<byte> record, out _));
            Assert.Equal(largest.Length, record.Length);
            Assert.Equal(SendStatus.Sent, pair.Maker.TrySend([1], default));
            Assert.Equal(ReceiveStatus.Received, pair.Other.TryReceive(out _, out _));
            Assert.Equal(ReceiveStatus.Empty, pair.Other.TryReceive(out _, out _));
        }
    }

    [Theory]
    [InlineData(0)]
    [InlineData(FrameRecord.MaxLength + 1)]
    public void A_record_that_cannot_be_is_refused(int length)
    {
        using var pair = new RingPair();
        Assert.Equal(SendStatus.Refused, pair.Maker.TrySend(new byte[length], default));
        Assert.True(pair.Maker.Reserve(length).IsEmpty);
        Assert.Equal(SendStatus.Refused, pair.Maker.Commit(1, default));
        pair.Maker.Reserve(10);
        Assert.Equal(SendStatus.Refused, pair.Maker.Commit(11, default));
    }

    [Fact]
    public void A_reservation_that_is_not_committed_was_never_there()
    {
        using var pair = new RingPair();
        Assert.Equal(5000, pair.Maker.Reserve(5000).Length);
        pair.Maker.Reserve(5)[0] = 7;
        Assert.Equal(SendStatus.Sent, pair.Maker.Commit(1, default));
        Assert.Equal(ReceiveStatus.Received, pair.Other.TryReceive(out ReadOnlySpan<byte> record, out _));
        Assert.Equal([7], record.ToArray());
        Assert.Equal(ReceiveStatus.Empty, pair.Other.TryReceive(out _, out _));
    }

    /// <summary>One doorbell serves for records and for room: drained for the one, it must not be lost for the other.</summary>
    [Fact]
    public void Room_that_was_waited_for_is_not_slept_through()
    {
        using var pair = new RingPair();
        byte[] record = new byte[1000];
        while (pair.Maker.TrySend(record, default) == SendStatus.Sent)
        {
        }
        Assert.True(pair.Maker.PrepareToSleep());
        while (pair.Other.TryReceive(out _, out _) == ReceiveStatus.Received)
        {
        }
        pair.Other.Flush();
        Assert.False(pair.Maker.PrepareToSleep());
        Assert.True(pair.Maker.PrepareToSleep());
    }

    [Fact]
    public void A_consumer_that_sleeps_is_rung_for_once()
    {
        using var pair = new RingPair();
        Assert.True(pair.Other.PrepareToSleep());
        Assert.False(IsReadable(pair.Other.Descriptor));
        pair.Maker.TrySend([1], default);
        pair.Maker.TrySend([2], default);
        Assert.False(IsReadable(pair.Other.Descriptor));
        pair.Maker.Flush();
        Assert.True(IsReadable(pair.Other.Descriptor));
        Assert.False(pair.Other.PrepareToSleep());
        Assert.False(IsReadable(pair.Other.Descriptor));
        // It is awake: no system call is made for it.
        pair.Maker.TrySend([3], default);
        pair.Maker.Flush();
        Assert.False(IsReadable(pair.Other.Descriptor));
    }

    /// <summary>
    /// Two loops, each the producer of one ring and the consumer of the other, with sizes at random and rings that are too
    /// small, so that both sleep often and for both reasons. One lost doorbell, and it does not end.
    /// </summary>
    [Fact]
    public async Task Two_threads_lose_neither_a_record_nor_a_wake_up()
    {
        using var pair = new RingPair();
        using var makers = new RingTraffic(pair.Maker, seed: 1, records: 60_000);
        using var others = new RingTraffic(pair.Other, seed: 2, records: 60_000);
        makers.Start();
        others.Start();
        await Task.WhenAll(makers.Done, others.Done).WaitAsync(TimeSpan.FromSeconds(60), TestContext.Current.CancellationToken);
        Assert.Equal(makers.Sent.GetCurrentHash(), others.Received.GetCurrentHash());
        Assert.Equal(others.Sent.GetCurrentHash(), makers.Received.GetCurrentHash());
    }

    [Fact]
    public void Allocates_nothing()
    {
        using var pair = new RingPair();
        byte[] record = new byte[1514];
        Exchange(pair, record, 100);
        long before = GC.GetAllocatedBytesForCurrentThread();
        Exchange(pair, record, 10_000);
        Assert.Equal(before, GC.GetAllocatedBytesForCurrentThread());
    }

    [Fact]
    public void Memory_that_could_shrink_or_is_too_small_is_not_mapped()
    {
        using var unsealed = new FileDescriptor(Syscall.Check(SysMman.memfd_create("test", SysMman.MFD_CLOEXEC | SysMman.MFD_ALLOW_SEALING), "memfd_create"));
        Syscall.Check(Unistd.ftruncate(unsealed.Number, 2L * Ring.SizeOf(Capacity)), "ftruncate");
        Assert.Throws<InvalidDataException>(() => RingMemory.Map(unsealed, Capacity));
        using RingMemory memory = RingMemory.Create(Capacity);
        Assert.Throws<InvalidDataException>(() => RingMemory.Map(memory.Descriptor, Capacity * 2));
        Assert.Throws<InvalidDataException>(() => RingMemory.Map(memory.Descriptor, Capacity - 1));
        Assert.Throws<ArgumentOutOfRangeException>(() => RingMemory.Create(128 * 1024));
    }

    [Fact]
    public void After_disposal_it_is_closed()
    {
        using var pair = new RingPair();
        pair.Maker.Dispose();
        Assert.Equal(ReceiveStatus.Closed, pair.Maker.TryReceive(out _, out _));
        Assert.Equal(SendStatus.Closed, pair.Maker.TrySend([1], default));
        Assert.True(pair.Maker.Reserve(1).IsEmpty);
        pair.Maker.Flush();
        Assert.True(pair.Maker.PrepareToSleep());
    }

    private static byte[] Numbered(byte[] record, int number)
    {
        MemoryMarshal.Write(record, in number);
        return record;
    }

    private static void Exchange(RingPair pair, byte[] record, int count)
    {
        for (int i = 0; i < count; i++)
        {
            pair.Maker.TrySend(record, default);
            pair.Maker.Flush();
            if (pair.Other.TryReceive(out _, out _) != ReceiveStatus.Received)
                throw new InvalidOperationException("nothing came");
            if (pair.Other.TryReceive(out _, out _) != ReceiveStatus.Empty)
                throw new InvalidOperationException("too much came");
            pair.Other.Flush();
            pair.Other.PrepareToSleep();
            pair.Maker.PrepareToSleep();
        }
    }

    private static unsafe bool IsReadable(int descriptor)
    {
        using var epoll = new FileDescriptor(Syscall.Check(SysEpoll.epoll_create1(SysEpoll.EPOLL_CLOEXEC), "epoll_create1"));
        var watch = new SysEpoll.epoll_event { events = SysEpoll.EPOLLIN, data = 0xFEED_FACE_CAFE_F00D };
        Syscall.Check(SysEpoll.epoll_ctl(epoll.Number, SysEpoll.EPOLL_CTL_ADD, descriptor, &watch), "epoll_ctl");
        SysEpoll.epoll_event ready;
        int count = SysEpoll.epoll_wait(epoll.Number, &ready, 1, 0);
        return count == 1 && ready.data == 0xFEED_FACE_CAFE_F00D;
    }

    /// <summary>One side's thread: sends numbered records of random sizes as room is there, and hashes what it gets.</summary>
    private sealed class RingTraffic : ILoopWork, IReadyHandler, IDisposable
    {
        private readonly RingLink _link;
        private readonly EventLoop _loop;
        private readonly Random _random;
        private readonly byte[] _record = new byte[FrameRecord.MaxLength];
        private readonly TaskCompletionSource _done = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly int _records;
        private int _pending;
        private int _sentCount;
        private bool _waitsForRoom;
        private int _receivedCount;

        public RingTraffic(RingLink link, int seed, int records)
        {
            _link = link;
            _records = records;
            _random = new Random(seed);
            _loop = new EventLoop("ring-test", exception => _done.TrySetException(exception));
            _loop.Register(link.Descriptor, SysEpoll.EPOLLIN, this);
            _loop.Add(this);
        }

        public IncrementalHash Sent { get; } = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);

        public IncrementalHash Received { get; } = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);

        public Task Done => _done.Task;

        public void Start() => _loop.Start();

        public void OnReady(uint events, long now)
        {
        }

        public long OnTurn(long now)
        {
            for (int i = 0; i < 64 && _link.TryReceive(out ReadOnlySpan<byte> record, out _) == ReceiveStatus.Received; i++)
            {
                Received.AppendData(record);
                _receivedCount++;
            }
            _waitsForRoom = false;
            for (int i = 0; i < 64 && _sentCount < _records && !_waitsForRoom; i++)
                _waitsForRoom = !TrySendNext();
            _link.Flush();
            if (_sentCount == _records && _receivedCount == _records)
                _done.TrySetResult();
            return long.MaxValue;
        }

        public bool PrepareToSleep() => _link.PrepareToSleep() && (_waitsForRoom || _sentCount == _records);

        public void Dispose() => _loop.Dispose();

        private bool TrySendNext()
        {
            if (_pending == 0)
            {
                _pending = _random.Next(20) == 0 ? _random.Next(1, FrameRecord.MaxLength + 1) : _random.Next(1, 1600);
                _random.NextBytes(_record.AsSpan(0, Math.Min(_pending, 64)));
            }
            ReadOnlySpan<byte> record = _record.AsSpan(0, _pending);
            SendStatus status = _link.TrySend(record, default);
            if (status == SendStatus.Full)
                return false;
            if (status != SendStatus.Sent)
                throw new InvalidOperationException(status.ToString());
            Sent.AppendData(record);
            _sentCount++;
            _pending = 0;
            return true;
        }
    }
}
