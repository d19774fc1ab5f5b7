using VNetMesh.Agent.Devices;
using VNetMesh.Agent.Netlink;
using VNetMesh.Agent.Tests.Support;
using VNetMesh.Links;
using VNetMesh.Native;

namespace VNetMesh.Agent.Tests.Devices;

public sealed class TapDeviceTests
{
    [Fact]
    public void A_device_outlives_its_queues_and_takes_new_ones()
    {
        using var lab = new HostLab();
        HostLab.WithNetlink(lab.Host, netlink =>
        {
            TapDevice.Create("t0");
            LinkInfo made = netlink.FindLink("t0")!;
            Assert.Equal("tun", made.Kind);
            using (TapQueue first = TapDevice.Attach("t0"))
            using (TapQueue second = TapDevice.Attach("t0"))
            {
                // What the switch asks of a descriptor that it is handed.
                Assert.Null(TapLink.Inspect(first.Descriptor, out string name));
                Assert.Equal("t0", name);
                // UDP segments where the kernel has them, the rest always.
                Assert.Equal(LinkOffloads.Tcp, first.Offloads & LinkOffloads.Tcp);
                Assert.Equal(first.Offloads, second.Offloads);
                second.SetAside();
                second.TakeUp();
                second.TakeUp();
                Assert.Null(TapLink.Inspect(second.Descriptor, out _));
            }
            Assert.Equal(made.Index, netlink.FindLink("t0")!.Index);
            return true;
        });
    }

    [Fact]
    public void A_queue_that_is_set_aside_keeps_the_carrier()
    {
        using var lab = new HostLab();
        HostLab.WithNetlink(lab.Host, netlink =>
        {
            TapDevice.Create("t0");
            netlink.SetUp(netlink.FindLink("t0")!.Index, up: true);
            Assert.Contains("NO-CARRIER", HostLab.Ip(lab.Host, "link", "show", "t0"), StringComparison.Ordinal);
            using TapQueue queue = TapDevice.Attach("t0");
            queue.SetAside();
            Assert.DoesNotContain("NO-CARRIER", HostLab.Ip(lab.Host, "link", "show", "t0"), StringComparison.Ordinal);
            return true;
        });
    }

    [Fact]
    public void A_name_that_is_taken_is_refused_and_left_alone()
    {
        using var lab = new HostLab();
        HostLab.Ip(lab.Host, "tuntap", "add", "dev", "t0", "mode", "tap");
        int before = HostLab.IndexOf(lab.Host, "t0");
        HostLab.WithNetlink(lab.Host, netlink =>
        {
            Assert.Equal(NativeErrno.EBUSY, Assert.Throws<SyscallException>(() => TapDevice.Create("t0")).Errno);
            return true;
        });
        Assert.Equal(before, HostLab.IndexOf(lab.Host, "t0"));
    }
}
