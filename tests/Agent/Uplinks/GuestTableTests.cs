using VNetMesh.Agent.Uplinks;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Tests.Uplinks;

public sealed class GuestTableTests
{
    private const long Second = 1_000_000;
    private static readonly MacAddress Host = MacAddress.Parse("02:00:00:00:00:01");
    private static readonly MacAddress Guest = MacAddress.Parse("02:00:00:00:00:02");
    private static readonly MacAddress Station = MacAddress.Parse("02:00:00:00:00:03");
    private static readonly MacAddress Group = MacAddress.Parse("01:00:5e:00:00:fb");
    private readonly GuestTable _table = new(Host);

    [Fact]
    public void OnlyFramesForGuestsAndGroupsAreOurs()
    {
        Assert.Equal(CaptureVerdict.NotOurs, _table.Judge(Guest, Station, 0));
        Assert.True(_table.LearnFromSwitch(Guest, 0));
        Assert.Equal(CaptureVerdict.ToSwitch, _table.Judge(Guest, Station, 0));
        Assert.Equal(CaptureVerdict.ToSwitch, _table.Judge(Group, Station, 0));
        Assert.Equal(CaptureVerdict.NotOurs, _table.Judge(Station, Host, 0));
    }

    [Fact]
    public void NobodyTakesTheHostsAddress()
    {
        Assert.False(_table.LearnFromSwitch(Host, 0));
        Assert.Equal(CaptureVerdict.NotOurs, _table.Judge(Host, Station, 0));
    }

    [Fact]
    public void AGuestsOwnFrameComesBackAtOnceAndAMovedGuestsLater()
    {
        _table.LearnFromSwitch(Guest, 0);
        Assert.Equal(CaptureVerdict.Reflected, _table.Judge(Group, Guest, Second));
        Assert.Equal(CaptureVerdict.ToSwitch, _table.Judge(Group, Guest, 3 * Second));
        Assert.Equal(CaptureVerdict.NotOurs, _table.Judge(Guest, Station, 3 * Second));
    }

    [Fact]
    public void ItIsBounded()
    {
        for (ulong i = 0; i < GuestTable.Capacity * 2; i++)
            _table.LearnFromSwitch(new MacAddress(0x0200_0000_0000 | (i + 16)), (long)i);
        Assert.Equal(CaptureVerdict.NotOurs, _table.Judge(new MacAddress(0x0200_0000_0010), Station, 0));
        Assert.Equal(CaptureVerdict.ToSwitch, _table.Judge(new MacAddress(0x0200_0000_0000 | (GuestTable.Capacity * 2 + 15)), Station, 0));
    }
}
