using CsCheck;
using VNetMesh.Nat.Tcp;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tests.Tcp;

/// <summary>The pieces below a connection, against simple models of them.</summary>
public sealed class BufferTests
{
    [Fact]
    public void ASetOfRangesHoldsWhatASetOfNumbersWould() =>
        Gen.Select(Gen.UInt, Gen.Select(Gen.Int[0, 200], Gen.Int[1, 20], Gen.Int[0, 5]).Array[0, 60]).Sample((origin, steps) =>
        {
            var first = new SequenceNumber(origin);
            var set = new RangeSet();
            var model = new SortedSet<int>();
            foreach ((int start, int length, int kind) in steps)
            {
                if (kind == 0)
                {
                    set.RemoveBefore(first.Add(start));
                    model.RemoveWhere(n => n < start);
                }
                else if (set.Add(first.Add(start), first.Add(start + length)))
                {
                    model.UnionWith(Enumerable.Range(start, length));
                }
                var held = new List<int>();
                for (int i = 0; i < set.Count; i++)
                {
                    Assert.True(set[i].Start.IsBefore(set[i].End), "empty");
                    Assert.True(i == 0 || set[i - 1].End.IsBefore(set[i].Start), "touching or unsorted");
                    held.AddRange(Enumerable.Range(set[i].Start.Since(first), set[i].End.Since(set[i].Start)));
                }
                Assert.Equal(model, held);
                Assert.Equal(model.Count, set.Octets);
                Assert.InRange(set.Count, 0, RangeSet.Capacity);
            }
        });

    [Fact]
    public void AFullSetTakesWhatMergesAndRefusesTheRest()
    {
        var set = new RangeSet();
        for (int i = 0; i < RangeSet.Capacity; i++)
            Assert.True(set.Add(new SequenceNumber((uint)(i * 10)), new SequenceNumber((uint)((i * 10) + 5))));
        Assert.False(set.Add(new SequenceNumber(100_000), new SequenceNumber(100_001)));
        Assert.True(set.Add(new SequenceNumber(5), new SequenceNumber(10)));
        Assert.Equal(RangeSet.Capacity - 1, set.Count);
    }

    [Fact]
    public void AGrowingRingKeepsEveryOctetInItsPlace() => Gen.Select(Gen.UInt, Gen.Int[1, 20_000].Array[1, 30]).Sample((origin, lengths) =>
    {
        var pool = new TcpBufferPool();
        var ring = new SequenceRing(pool, 256 * 1024);
        var first = new SequenceNumber(origin);
        int queued = 0, written = 0;
        foreach (int length in lengths)
        {
            if (queued + length > ring.Capacity)
                break;
            // Every third time, half of it is taken out in front.
            if (length % 3 == 0)
            {
                first = first.Add(queued / 2);
                queued -= queued / 2;
            }
            byte[] octets = new byte[length];
            for (int i = 0; i < length; i++)
                octets[i] = Script.Octet(written + i);
            ring.Reserve(first, queued + length);
            ring.Write(first.Add(queued), octets);
            queued += length;
            written += length;
            for (int done = 0; done < queued;)
            {
                foreach (byte octet in ring.At(first.Add(done), queued - done))
                    Assert.Equal(Script.Octet(written - queued + done++), octet);
            }
        }
        Assert.Equal(1, pool.Rented);
        ring.Release();
        Assert.Equal(0, pool.Rented);
    }, iter: 200);

    [Fact]
    public void APoolGivesBackWhatItGotAndKeepsABoundedNumber()
    {
        var pool = new TcpBufferPool(maxFree: 2);
        byte[][] buffers = [pool.Rent(16384), pool.Rent(16384), pool.Rent(16384), pool.Rent(32768)];
        Assert.Equal(4, pool.Rented);
        foreach (byte[] buffer in buffers)
            pool.Return(buffer);
        Assert.Equal(0, pool.Rented);
        byte[][] again = [pool.Rent(16384), pool.Rent(16384), pool.Rent(16384)];
        Assert.Equal(2, again.Count(b => buffers.Contains(b)));
    }

    [Fact]
    public void BuffersThatAreNoPowerOfTwoAreRefused() =>
        Assert.Throws<ArgumentException>(() => new Script(new TcpOptions { ReceiveBuffer = 100_000 }));

    [Fact]
    public void TheWindowGrowsByWhatIsAcknowledgedAndHalvesOnLoss() // RFC 5681, 3.1 and 3.2
    {
        var congestion = new TcpCongestion(1000, 1_000_000);
        Assert.Equal(65536, congestion.Window);
        congestion.OnAcknowledged(60_000);
        Assert.Equal(125_536, congestion.Window);
        congestion.OnLoss(100_000);
        Assert.Equal(50_000, congestion.Window);
        congestion.OnAcknowledged(49_999);
        Assert.Equal(50_000, congestion.Window); // avoidance: a segment for each window
        congestion.OnAcknowledged(1);
        Assert.Equal(51_000, congestion.Window);
        congestion.OnTimeout(40_000, first: true);
        Assert.Equal((1000, 20_000), (congestion.Window, congestion.Threshold));
        congestion.OnTimeout(1000, first: false);
        Assert.Equal(20_000, congestion.Threshold); // not for the same segment again
        congestion.OnLoss(0);
        Assert.Equal(2000, congestion.Window);
        for (int i = 0; i < 5000; i++)
            congestion.OnAcknowledged(100_000);
        Assert.True(congestion.Window <= 1_000_000);
    }

    [Fact]
    public void TheTimeoutFollowsTheSamples() // RFC 6298, 2
    {
        var trip = new TcpRoundTrip(new TcpOptions { MinRto = 1000, MaxRto = 10_000_000, InitialRto = 1_000_000 });
        Assert.Equal(1_000_000, trip.Timeout);
        trip.Sample(100_000);
        Assert.Equal(100_000, trip.Smoothed);
        Assert.Equal(300_000, trip.Timeout); // SRTT + 4 * RTT/2
        trip.Sample(180_000);
        Assert.Equal(110_000, trip.Smoothed); // 7/8 of 100 + 1/8 of 180 ms
        Assert.Equal(110_000 + (4 * 57_500), trip.Timeout); // 3/4 of 50 + 1/4 of 80 ms
        trip.BackOff();
        Assert.Equal(2 * 340_000, trip.Timeout);
        for (int i = 0; i < 100; i++)
            trip.BackOff();
        Assert.Equal(10_000_000, trip.Timeout);
        trip.Sample(110_000);
        Assert.True(trip.Timeout < 340_000);
        trip.Sample(long.MaxValue / 2); // a lying echo
        Assert.InRange(trip.Timeout, 1000, 10_000_000);
    }

    [Fact]
    public void AllConnectionsTogetherAreBoundedAndEachKeepsItsSmallestBuffer()
    {
        var pool = new TcpBufferPool(limit: 64 * 1024);
        var greedy = new SequenceRing(pool, 256 * 1024);
        Assert.True(greedy.Reserve(new(0), 64 * 1024));
        Assert.False(greedy.Reserve(new(0), 64 * 1024 + 1));
        Assert.Equal((64 * 1024, 1L), (greedy.Size, pool.Refusals));
        var modest = new SequenceRing(pool, 256 * 1024);
        Assert.True(modest.Reserve(new(0), 10));
        Assert.Equal(SequenceRing.SmallestSize, modest.Size);
        Assert.False(modest.Reserve(new(0), SequenceRing.SmallestSize + 1));
        greedy.Release();
        Assert.True(modest.Reserve(new(0), SequenceRing.SmallestSize + 1));
        modest.Release();
        // Once large, it is small again where no more is to be had.
        greedy.Reserve(new(0), 64 * 1024);
        Assert.True(modest.Reserve(new(0), 10));
        Assert.Equal(SequenceRing.SmallestSize, modest.Size);
        greedy.Release();
        modest.Release();
        Assert.Equal((0, 0L), (pool.Rented, pool.Octets));
    }
}
