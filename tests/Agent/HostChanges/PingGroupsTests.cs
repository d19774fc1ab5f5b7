using VNetMesh.Agent.HostChanges;

namespace VNetMesh.Agent.Tests.HostChanges;

public sealed class PingGroupsTests
{
    [Theory]
    [InlineData("1 0", "63108 63108")] // closed, as the kernel begins
    [InlineData("0 2147483647", null)] // open to all, as systemd sets it
    [InlineData("63108 63108", null)]
    [InlineData("100 200", "100 63108")]
    [InlineData("70000 80000", "63108 80000")]
    public void The_range_is_widened_by_no_more_than_it_must(string range, string? expected) => Assert.Equal(expected, PingGroups.Widen(range, 63108));
}
