using VNetMesh.Agent.Netlink;
using VNetMesh.Agent.Uplinks;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Tests.Uplinks;

public sealed class NicChoiceTests
{
    private const byte Unicast = 1;
    private const uint Main = 254;

    private static readonly LinkInfo[] Links =
    [
        Link(1, "lo") with { HardwareType = 772 },
        Link(2, "eth0"),
        Link(3, "eth1"),
        Link(4, "wlan0"),
        Link(5, "wg0", "wireguard") with { HardwareType = 65534 },
        Link(6, "tap9", "tun"),
        Link(7, "mv0", "macvlan"),
        Link(8, "slave0") with { Master = 9 },
        Link(9, "br0", "bridge"),
        Link(10, "vmnet8", "tun", "vnetmesh networks/vmnet8/ports/host"),
    ];

    [Fact]
    public void AutoIsTheDefaultRouteOfTheLowestMetric()
    {
        Assert.Equal("eth1", Choose("auto", 0, Default(2, 200), Default(3, 100)).Name);
        Assert.Equal("eth0", Choose("auto", 3, Default(2, 0), Default(3, 100)).Name);
    }

    [Fact]
    public void AutoPassesTunnelsAndOurOwnDevicesOver() =>
        Assert.Equal("eth0", Choose("auto", 0, Default(5, 10), Default(6, 20), Default(10, 30), Default(2, 40)).Name);

    [Fact]
    public void AutoKeepsItsNicWhileThereIsNoDefaultRoute()
    {
        Assert.Equal("eth1", Choose("auto", 3).Name);
        Assert.Equal("UPLINK_NOT_FOUND", Refusal("auto"));
    }

    [Fact]
    public void OnlyTheMainTablesDefaultRoutesCount()
    {
        var other = new RouteInfo(new Ipv4Subnet(default, 0), 2, 100, Unicast);
        var unreachable = new RouteInfo(new Ipv4Subnet(default, 0), 2, Main, 7);
        var narrow = new RouteInfo(new Ipv4Subnet(default, 1), 2, Main, Unicast);
        Assert.Equal("eth1", Choose("auto", 0, other, unreachable, narrow, Default(3, 100)).Name);
    }

    [Theory]
    [InlineData("eth7", "UPLINK_NOT_FOUND")]
    [InlineData("lo", "UPLINK_NOT_ETHERNET")]
    [InlineData("wg0", "UPLINK_NOT_ETHERNET")]
    [InlineData("mv0", "UPLINK_ONE_MAC")]
    [InlineData("wlan0", "UPLINK_ONE_MAC")]
    [InlineData("slave0", "UPLINK_ENSLAVED")]
    [InlineData("vmnet8", "UPLINK_IS_OURS")]
    public void WhatCannotBeAnUplinkIsRefusedWithItsReason(string name, string reason) => Assert.Equal(reason, Refusal(name));

    [Fact]
    public void ABridgeCanBeAnUplink() => Assert.Equal("br0", Choose("br0", 0).Name);

    private static string Refusal(string name) => Assert.Throws<UplinkException>(() => Choose(name, 0)).Reason;

    private static LinkInfo Choose(string name, int present, params RouteInfo[] routes) => NicChoice.Choose(name, present, Links, routes, link => link.Name == "wlan0");

    private static RouteInfo Default(int link, uint metric) => new(new Ipv4Subnet(default, 0), link, Main, Unicast) { Metric = metric };

    private static LinkInfo Link(int index, string name, string kind = "", string alias = "") => new(index, name, default, 1500, true, kind, alias) { HardwareType = 1 };
}
