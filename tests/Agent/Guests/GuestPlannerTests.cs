using VNetMesh.Agent.Devices;
using VNetMesh.Agent.Guests;
using VNetMesh.Agent.Namespaces;

namespace VNetMesh.Agent.Tests.Guests;

public sealed class GuestPlannerTests
{
    private static readonly GuestDraft Web1 = new("web1", "networks/vmnet8", "", "", "", false);

    [Fact]
    public void What_was_left_empty_is_filled_in()
    {
        GuestSpec guest = GuestPlanner.Complete(Web1, DateTimeOffset.UnixEpoch);
        Assert.Equal(new GuestSpec("web1", "vmnet8", MacAddresses.ForPort("networks/vmnet8/ports/web1").ToString(), "/run/netns/web1", "eth0", MakesNetns: true, NoDhcp: false, DateTimeOffset.UnixEpoch), guest);
    }

    [Theory]
    [InlineData("")]
    [InlineData("Web1")]
    [InlineData("1web")]
    [InlineData("web_1")]
    [InlineData("web/1")]
    [InlineData("../web")]
    [InlineData("web1\n")]
    [InlineData("a12345678901234567890123456789012")] // 33
    [InlineData("host")]
    [InlineData("nat")]
    [InlineData("dhcp")]
    public void A_bad_id_is_refused(string id) => AssertRefused("GUEST_ID_INVALID", Web1 with { Id = id });

    [Theory]
    [InlineData("")]
    [InlineData("vmnet8")]
    [InlineData("networks/")]
    [InlineData("networks/../x")]
    public void A_bad_network_is_refused(string network) => AssertRefused("NETWORK_REQUIRED", Web1 with { Network = network });

    [Theory]
    [InlineData("01:00:5e:00:00:01")] // multicast
    [InlineData("ff:ff:ff:ff:ff:ff")]
    [InlineData("00:00:00:00:00:00")]
    [InlineData("02:56:4e:00:00")]
    [InlineData("nonsense")]
    public void A_bad_mac_is_refused(string mac) => AssertRefused("MAC_INVALID", Web1 with { Mac = mac });

    [Theory]
    [InlineData("lo")]
    [InlineData("..")]
    [InlineData("eth0/1")]
    [InlineData("eth 0")]
    [InlineData("a234567890123456")] // 16
    public void A_bad_interface_is_refused(string name) => AssertRefused("INTERFACE_INVALID", Web1 with { Interface = name });

    [Theory]
    [InlineData("0")]
    [InlineData("relative/path")]
    [InlineData("..")]
    [InlineData("/run/netns/x\0")]
    [InlineData("--all")]
    public void A_bad_namespace_is_refused(string netns) => AssertRefused("NETNS_INVALID", Web1 with { Netns = netns });

    [Theory]
    [InlineData("4711", "/proc/4711/ns/net")]
    [InlineData("/proc/4711/ns/net", "/proc/4711/ns/net")]
    [InlineData("/run/netns/../netns/x", "/run/netns/x")]
    [InlineData("box.1", "/run/netns/box.1")]
    public void A_namespace_is_named_by_process_path_or_name(string text, string path)
    {
        GuestSpec guest = GuestPlanner.Complete(Web1 with { Netns = text }, DateTimeOffset.UnixEpoch);
        Assert.Equal((path, false), (guest.Netns, guest.MakesNetns));
    }

    [Theory]
    [InlineData("/run/netns/x", "x")]
    [InlineData("/var/run/netns/x", "x")]
    [InlineData("/run/netns/x/y", null)]
    [InlineData("/proc/1/ns/net", null)]
    public void Only_a_named_namespace_has_a_name(string path, string? name) => Assert.Equal(name, NamespaceReference.NameOf(path));

    private static void AssertRefused(string reason, GuestDraft draft)
    {
        GuestException refusal = Assert.Throws<GuestException>(() => GuestPlanner.Complete(draft, DateTimeOffset.UnixEpoch));
        Assert.Equal((GuestProblem.Invalid, reason), (refusal.Problem, refusal.Reason));
    }
}
