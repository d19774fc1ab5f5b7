using VNetMesh.Agent.Netlink;
using VNetMesh.Agent.Tests.Support;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Tests.Netlink;

/// <summary>Against the kernel, in a namespace of its own.</summary>
public sealed class RtNetlinkTests
{
    [Fact]
    public void Links_addresses_and_routes_are_set_and_read()
    {
        using var lab = new HostLab();
        HostLab.Ip(lab.Host, "link", "add", "d0", "type", "veth", "peer", "name", "d1");
        HostLab.WithNetlink(lab.Host, netlink =>
        {
            LinkInfo link = netlink.FindLink("d0")!;
            Assert.Equal(("veth", false, ""), (link.Kind, link.IsUp, link.Alias));
            netlink.SetMac(link.Index, MacAddress.Parse("02:56:4e:00:00:01"));
            netlink.SetMtu(link.Index, 1400);
            netlink.SetAlias(link.Index, "vnetmesh test");
            netlink.SetUp(link.Index, up: true);
            netlink.AddAddress(link.Index, Ipv4Address.Parse("192.0.2.1"), 24);
            Assert.Equal(new LinkInfo(link.Index, "d0", MacAddress.Parse("02:56:4e:00:00:01"), 1400, true, "veth", "vnetmesh test") { HardwareType = VNetMesh.Native.LinuxRtnetlink.ARPHRD_ETHER }, netlink.FindLink(link.Index));
            Assert.Equal([new AddressInfo(link.Index, Ipv4Address.Parse("192.0.2.1"), 24, IsPermanent: true)], netlink.ListAddresses(link.Index));
            Assert.Contains("inet 192.0.2.1/24 brd 192.0.2.255", HostLab.Ip(lab.Host, "addr", "show", "d0"), StringComparison.Ordinal);
            Assert.Contains(netlink.ListRoutes(), route => route == new RouteInfo(Ipv4Subnet.Parse("192.0.2.0/24"), link.Index, 254, LinuxRtnetlink.RTN_UNICAST));

            netlink.RemoveAddress(link.Index, Ipv4Address.Parse("192.0.2.1"), 24);
            Assert.Empty(netlink.ListAddresses(link.Index));
            netlink.DeleteLink(link.Index);
            Assert.Null(netlink.FindLink(link.Index));
            Assert.Null(netlink.FindLink("d0"));
            return true;
        });
    }

    [Fact]
    public void A_refusal_bears_the_kernels_errno()
    {
        using var lab = new HostLab();
        HostLab.WithNetlink(lab.Host, netlink =>
        {
            int lo = netlink.FindLink("lo")!.Index;
            Assert.Equal(NativeErrno.EEXIST, Assert.Throws<NetlinkException>(() => netlink.AddAddress(lo, Ipv4Address.Parse("127.0.0.1"), 8)).Errno);
            Assert.Equal(NativeErrno.EADDRNOTAVAIL, Assert.Throws<NetlinkException>(() => netlink.RemoveAddress(lo, Ipv4Address.Parse("192.0.2.9"), 24)).Errno);
            Assert.Equal(NativeErrno.ENODEV, Assert.Throws<NetlinkException>(() => netlink.SetUp(4711, up: true)).Errno);
            // And the socket is as good as before.
            Assert.Equal("lo", netlink.FindLink(lo)!.Name);
            return true;
        });
    }

    [Fact]
    public void A_dump_of_many_messages_is_whole()
    {
        using var lab = new HostLab();
        HostLab.WithNetlink(lab.Host, netlink =>
        {
            int lo = netlink.FindLink("lo")!.Index;
            for (int i = 0; i < 1500; i++)
                netlink.AddAddress(lo, new Ipv4Address(0x0A000001u + ((uint)i << 2)), 30);
            Assert.Equal(1501, netlink.ListAddresses(lo).Count);
            Assert.True(netlink.ListRoutes().Count >= 1500);
            return true;
        });
    }
}
