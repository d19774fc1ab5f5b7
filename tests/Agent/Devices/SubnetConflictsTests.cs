using VNetMesh.Agent.Devices;
using VNetMesh.Agent.Netlink;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Tests.Devices;

public sealed class SubnetConflictsTests
{
    private static readonly Ipv4Subnet Vmnet8 = Ipv4Subnet.Parse("192.168.108.0/24");

    [Theory]
    [InlineData("192.168.108.0/24", true)]
    [InlineData("192.168.0.0/16", true)] // wider
    [InlineData("192.168.108.77/32", true)] // narrower
    [InlineData("192.168.109.0/24", false)]
    [InlineData("0.0.0.0/0", false)] // a default route leads everywhere
    [InlineData("128.0.0.0/1", false)] // as do the halves of one
    public void A_route_to_some_of_its_addresses_is_in_the_way(string destination, bool expected) =>
        Assert.Equal(expected, SubnetConflicts.Find(Vmnet8, [Route(destination)], new HashSet<int>()) is not null);

    [Fact]
    public void Our_own_adapters_route_is_not() =>
        Assert.Null(SubnetConflicts.Find(Vmnet8, [Route("192.168.108.0/24", link: 5)], new HashSet<int> { 5 }));

    [Fact]
    public void A_blackhole_is_and_a_local_or_broadcast_route_is_not()
    {
        Assert.NotNull(SubnetConflicts.Find(Vmnet8, [Route("192.168.108.0/24", type: LinuxRtnetlink.RTN_BLACKHOLE)], new HashSet<int>()));
        Assert.Null(SubnetConflicts.Find(Vmnet8, [Route("192.168.108.255/32", type: 3)], new HashSet<int>()));
        Assert.Null(SubnetConflicts.Find(Vmnet8, [Route("192.168.108.1/32", table: LinuxRtnetlink.RT_TABLE_LOCAL)], new HashSet<int>()));
    }

    private static RouteInfo Route(string destination, int link = 2, uint table = 254, byte type = LinuxRtnetlink.RTN_UNICAST) => new(Ipv4Subnet.Parse(destination), link, table, type);
}
