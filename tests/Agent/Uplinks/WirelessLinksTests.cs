using VNetMesh.Agent.Netlink;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Tests.Uplinks;

/// <summary>Answers as nl80211 gives them, and a sysfs in a folder: machines with Wi-Fi are few among those that run tests.</summary>
public sealed class WirelessLinksTests
{
    private static readonly LinkInfo Wlan = new(7, "wlan0", MacAddress.Parse("02:00:00:00:00:07"), 1500, true, "", "") { HardwareType = LinuxRtnetlink.ARPHRD_ETHER };

    [Theory]
    [InlineData(WirelessLinks.TypeStation, null, true)]
    [InlineData(WirelessLinks.TypeStation, (byte)0, true)]
    [InlineData(WirelessLinks.TypeStation, (byte)1, false)] // WDS: frames bear four addresses
    [InlineData(WirelessLinks.TypeP2pClient, null, true)]
    [InlineData(3u, null, false)] // an access point
    public void TheInterfacesTypeDecides(uint type, byte? fourAddresses, bool isStation)
    {
        NetlinkWriter answer = new NetlinkWriter(0x20, 0, [7, 1, 0, 0]).Attribute(3, 7u).Attribute(WirelessLinks.AttrInterfaceType, type);
        if (fourAddresses is { } value)
            answer.Attribute(WirelessLinks.AttrFourAddresses, [value]);
        Assert.Equal(isStation, WirelessLinks.IsStation(answer.Finish(1)));
    }

    [Fact]
    public void AnAnswerThatIsCutShortIsNoStation() =>
        Assert.False(WirelessLinks.IsStation(new NetlinkWriter(0x20, 0, [7, 1, 0, 0]).Attribute(WirelessLinks.AttrInterfaceType, 2u).Finish(1)[..22]));

    [Fact]
    public void SysfsCountsWhereItSpeaksOfTheSameInterface()
    {
        string sysfs = Directory.CreateTempSubdirectory("sysfs").FullName;
        try
        {
            string folder = Directory.CreateDirectory(Path.Combine(sysfs, "class/net/wlan0/phy80211")).Parent!.FullName;
            File.WriteAllText(Path.Combine(folder, "ifindex"), "7\n");
            File.WriteAllText(Path.Combine(folder, "address"), "02:00:00:00:00:07\n");
            Assert.True(WirelessLinks.IsWirelessBySysfs(sysfs, Wlan));
            Assert.False(WirelessLinks.IsWirelessBySysfs(sysfs, Wlan with { Index = 8 }));
            Assert.False(WirelessLinks.IsWirelessBySysfs(sysfs, Wlan with { Mac = MacAddress.Parse("02:00:00:00:00:08") }));
            Assert.False(WirelessLinks.IsWirelessBySysfs(sysfs, Wlan with { Name = "eth0" }));
        }
        finally
        {
            Directory.Delete(sysfs, recursive: true);
        }
    }

    [Fact]
    public void TheMachinesLoopbackIsNoStation()
    {
        using RtNetlink netlink = RtNetlink.Open();
        Assert.False(WirelessLinks.IsStation(netlink.FindLink("lo")!));
    }
}
