using CsCheck;
using VNetMesh.Switch.Forwarding;
using VNetMesh.Switch.Tests.Support;

namespace VNetMesh.Switch.Tests.Forwarding;

public sealed class MacTableTests
{
    [Fact]
    public void AFullTableIsFreedByAgeing()
    {
        var table = new MacTable(bound: 4, ageing: 10_000_000);
        for (int i = 0; i < 4; i++)
            Assert.Equal(LearnResult.Added, table.Learn(Frames.Station(i), i, 4, 0));
        Assert.Equal(LearnResult.Full, table.Learn(Frames.Station(9), 0, 4, 5_000_000));
        Assert.Equal(LearnResult.Added, table.Learn(Frames.Station(9), 0, 4, 10_000_001));
        Assert.Equal(1, table.Count);
    }

    [Fact]
    public void AMoveToAFullPortLeavesTheAddressWhereItIs()
    {
        var table = new MacTable(bound: 8, ageing: 10_000_000);
        table.Learn(Frames.Station(1), 1, 1, 0);
        table.Learn(Frames.Station(2), 2, 1, 0);
        Assert.Equal(LearnResult.Full, table.Learn(Frames.Station(1), 2, 1, 0));
        Assert.Equal(1, table.Find(Frames.Station(1), 0));
        Assert.Equal(LearnResult.Moved, table.Learn(Frames.Station(1), 3, 1, 0));
        Assert.Equal((0, 1), (table.CountOf(1), table.CountOf(3)));
    }

    /// <summary>Against a dictionary: whatever is learned, removed and aged in whatever order.</summary>
    [Fact]
    public void ItIsADictionaryWithBounds() => Gen.Select(Gen.Int[0, 3], Gen.Int[0, 60], Gen.Int[0, 4], Gen.Int[0, 3]).Array[1, 300].Sample(steps =>
    {
        const int Bound = 24, PortBound = 10;
        const long Ageing = 20_000_000;
        var table = new MacTable(Bound, Ageing);
        var model = new Dictionary<int, (int Port, long Seen)>();
        long now = 10_000_000;
        foreach ((int action, int station, int port, int pause) in steps)
        {
            now += pause * 1_000_000L;
            if (action == 3 && station < 6)
            {
                table.RemovePort(port);
                foreach (int key in model.Where(pair => pair.Value.Port == port).Select(pair => pair.Key).ToList())
                    model.Remove(key);
            }
            else if (action == 2 && station < 10)
            {
                table.Sweep(now);
                foreach (int key in model.Where(pair => now - pair.Value.Seen > Ageing).Select(pair => pair.Key).ToList())
                    model.Remove(key);
            }
            else if (table.Learn(Frames.Station(station), port, PortBound, now) != LearnResult.Full)
                model[station] = (port, now);
            Assert.InRange(table.Count, 0, Bound);
            for (int other = 0; other <= 60; other++)
            {
                int expected = model.TryGetValue(other, out (int Port, long Seen) held) && now - held.Seen <= Ageing ? held.Port : -1;
                Assert.Equal(expected, table.Find(Frames.Station(other), now));
            }
            for (int other = 0; other <= 4; other++)
                Assert.InRange(table.CountOf(other), 0, PortBound);
        }
    }, iter: 300);
}
