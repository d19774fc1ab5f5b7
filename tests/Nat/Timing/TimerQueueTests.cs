using CsCheck;
using VNetMesh.Nat.Timing;

namespace VNetMesh.Nat.Tests.Timing;

public sealed class TimerQueueTests
{
    private sealed class Owner : ITimerOwner
    {
        public Owner() => Timer = new LoopTimer(this);

        public LoopTimer Timer { get; }
        public List<long> Fired { get; } = [];

        public void OnTimer(long now) => Fired.Add(now);
    }

    /// <summary>Against a plain table: each timer fires in the first run at or after its deadline, once, and Next is never late.</summary>
    [Fact]
    public void Fires_what_is_due_and_nothing_else()
    {
        Gen.Select(Gen.Int[0, 7], Gen.Int[0, 3], Gen.Long[0, 200]).Array[1, 60].Sample(steps =>
        {
            var queue = new TimerQueue();
            Owner[] owners = [.. Enumerable.Range(0, 8).Select(_ => new Owner())];
            long?[] wanted = new long?[8];
            int[] expected = new int[8];
            long now = 0;
            foreach ((int which, int action, long value) in steps)
            {
                switch (action)
                {
                    case 0 or 1:
                        queue.Set(owners[which].Timer, now + value);
                        wanted[which] = now + value;
                        break;
                    case 2:
                        queue.Cancel(owners[which].Timer);
                        wanted[which] = null;
                        break;
                    default:
                        now += value;
                        queue.Run(now);
                        for (int i = 0; i < 8; i++)
                        {
                            if (wanted[i] <= now)
                            {
                                expected[i]++;
                                wanted[i] = null;
                            }
                            Assert.Equal(expected[i], owners[i].Fired.Count);
                        }
                        break;
                }
                long first = wanted.Min() ?? long.MaxValue;
                Assert.True(queue.Next <= first);
            }
        });
    }

    [Fact]
    public void A_bucket_lets_its_rate_through()
    {
        var bucket = new TokenBucket(1000, 250);
        int taken = 0;
        for (long now = 10_000_000; now < 12_000_000; now += 100)
            taken += bucket.TryTake(now) ? 1 : 0;
        Assert.InRange(taken, 2000, 2260);
    }
}
