using System.Text.Json;
using PacketDotNet;
using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>What leads out of vmnet1, on a host that is no router of its own.</summary>
public sealed class EgressTests : OwnInstanceTest
{
    private const string Settings = "sysctl -a 2>/dev/null | grep -E '^net.ipv[46].*(forwarding|accept_ra|ip_forward) ' | sort; nft list ruleset";

    protected override InstanceOptions Options => new() { Up = false, HostCommands = [["sysctl", "-qw", "net.ipv4.ip_forward=0"]] };

    [Fact]
    public async Task Guests_get_out_as_the_network_says_and_the_host_is_a_router_for_nobody_else()
    {
        // Behind another interface of the host is somebody whom the wan must not reach.
        string other = Instance.Prefix + "-other";
        var aside = await NetworkNamespace.CreateAsync(other);
        (await Command.RunAsync("sh", "-c", $"""
            set -e
            ip link add aside0 netns {Instance.Host.Name} type veth peer name eth0 netns {other}
            ip -n {Instance.Host.Name} addr add 203.0.113.1/24 dev aside0
            ip -n {Instance.Host.Name} link set aside0 up
            ip -n {other} addr add 203.0.113.2/24 dev eth0
            ip -n {other} link set eth0 up
            ip -n {other} route add default via 203.0.113.1
            ip -n {Instance.Wan.Name} route add 203.0.113.0/24 via {Instance.HostWanAddress}
            ip -n {Instance.Wan.Name} route add 192.168.101.0/24 via {Instance.HostWanAddress}
            """)).EnsureSuccess();
        string before = (await Instance.Host.RunAsync("sh", "-c", Settings)).Output;
        (await Instance.VnetAsync("up")).EnsureSuccess();
        await using TestGuest early = await Instance.AddGuestAsync("early", "vmnet1");
        (await early.RunAsync("ip", "route", "replace", "default", "via", "192.168.101.1")).EnsureSuccess();
        Assert.False(await early.FetchesAsync());

        CommandResult snat = (await Instance.VnetAsync("network", "update", "vmnet1", "--egress", "snat")).EnsureSuccess();
        Assert.Contains("snat by", snat.Output, StringComparison.Ordinal);
        Assert.True(await early.FetchesAsync());
        await using TestGuest guest = await Instance.AddGuestAsync("guest", "vmnet1");
        string address = (await guest.AddressAsync()).ToString();
        Assert.Contains("default via 192.168.101.1", (await guest.RunAsync("ip", "route")).Output, StringComparison.Ordinal);
        Assert.Equal([Instance.HostWanAddress], await SourcesAsync(guest));
        Assert.False(await PingsAsync(Instance.Wan, address), "the wan began a conversation with a guest that is masqueraded");
        await AssertNoRouterForOthersAsync(aside);

        // What somebody flushes comes back; an agent that dies is not missed.
        (await Instance.Host.RunAsync("nft", "flush", "ruleset")).EnsureSuccess();
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "the table is back", async () => (await Instance.Host.RunAsync("nft", "list", "ruleset")).Output.Contains("masquerade", StringComparison.Ordinal));
        await Instance.KillAsync("agent");
        Assert.True(await guest.FetchesAsync());

        CommandResult routed = (await Instance.VnetAsync("network", "update", "vmnet1", "--egress", "routed")).EnsureSuccess();
        Assert.Contains($"ip route add 192.168.101.0/24 via {Instance.HostWanAddress}", routed.Output, StringComparison.Ordinal);
        Assert.Contains($"ip route add 192.168.101.0/24 via {Instance.HostWanAddress}", (await Instance.VnetAsync("network", "show", "vmnet1")).Output, StringComparison.Ordinal);
        Assert.Equal([address], await SourcesAsync(guest));
        Assert.True(await PingsAsync(Instance.Wan, address));
        await AssertNoRouterForOthersAsync(aside);
        await AssertSpoofingFailsAsync(guest);

        using (JsonDocument changes = await Instance.JsonAsync("host", "changes"))
        {
            string[] targets = [.. changes.RootElement.EnumerateArray().Select(change => change.GetProperty("target").GetString()!)];
            Assert.Single(targets, target => target.StartsWith("nftables table inet vnetmesh-", StringComparison.Ordinal));
            Assert.Contains("net.ipv4.conf.wan0.forwarding", targets);
            Assert.DoesNotContain("net.ipv4.ip_forward", targets);
        }
        (await Instance.VnetAsync("network", "update", "vmnet1", "--egress", "none")).EnsureSuccess();
        await Wait.UntilAsync(TimeSpan.FromSeconds(5), "the host is no router any more", async () => (await Instance.Host.RunAsync("sh", "-c", Settings)).Output.Split('\n').Where(line => !line.Contains("vmnet", StringComparison.Ordinal)).SequenceEqual(before.Split('\n')));
        Assert.False(await guest.FetchesAsync());

        // As it was, also where the agent died with it open.
        (await Instance.VnetAsync("network", "update", "vmnet1", "--egress", "snat")).EnsureSuccess();
        await Instance.KillAsync("agent");
        (await Instance.VnetAsync("down")).EnsureSuccess();
        Assert.Equal(before, (await Instance.Host.RunAsync("sh", "-c", Settings)).Output);
    }

    /// <summary>The wan and the other net do not reach each other by way of a host that turned forwarding on for its guests.</summary>
    private async Task AssertNoRouterForOthersAsync(NetworkNamespace aside)
    {
        Assert.True(await PingsAsync(aside, "203.0.113.1"));
        Assert.False(await PingsAsync(Instance.Wan, "203.0.113.2"), "the host routes for the wan");
        Assert.False(await PingsAsync(aside, Instance.WanAddress), "the host routes for somebody else");
    }

    private async Task AssertSpoofingFailsAsync(TestGuest guest)
    {
        (await guest.RunAsync("ip", "addr", "add", "198.18.0.5/32", "dev", "eth0")).EnsureSuccess();
        using PacketCapture wan = PacketCapture.Start(Instance.Wan, "host0", "src host 198.18.0.5");
        await guest.RunAsync("ping", "-c", "2", "-i", "0.2", "-W", "1", "-I", "198.18.0.5", Instance.WanAddress);
        Assert.Empty(wan.Frames);
    }

    /// <summary>The addresses that the wan sees while the guest fetches.</summary>
    private async Task<string[]> SourcesAsync(TestGuest guest)
    {
        using PacketCapture wan = PacketCapture.Start(Instance.Wan, "host0", "tcp dst port 80");
        Assert.True(await guest.FetchesAsync("3"));
        await Wait.UntilAsync(TimeSpan.FromSeconds(3), "the capture has it", () => wan.Frames.Count > 0);
        return [.. wan.Frames.Select(frame => frame.Packet.Extract<IPv4Packet>().SourceAddress.ToString()).Distinct()];
    }

    internal static async Task<bool> PingsAsync(NetworkNamespace from, string address) => (await from.RunAsync("ping", "-c", "1", "-W", "1", address)).ExitCode == 0;
}

/// <summary>IPv6 on vmnet1: guests configure themselves, and get out as IPv4 does.</summary>
public sealed class EgressIpv6Tests : OwnInstanceTest
{
    private const string WanAddress = "2001:db8:9::1", HostWanAddress = "2001:db8:9::10";
    private const string Settings = "sysctl -a 2>/dev/null | grep -E '^net.ipv6.*(forwarding|accept_ra) ' | sort; nft list ruleset; ip -6 route show default";

    protected override InstanceOptions Options => new()
    {
        Up = false,
        HostCommands =
        [
            ["sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.wan0.accept_dad=0", "net.ipv6.conf.wan0.disable_ipv6=0"],
            ["ip", "addr", "add", HostWanAddress + "/64", "dev", "wan0", "nodad"],
            ["ip", "-6", "route", "add", "default", "via", WanAddress],
        ],
    };

    [Fact]
    public async Task Guests_have_addresses_routers_and_nameservers_of_the_network()
    {
        await File.WriteAllTextAsync($"/etc/netns/{Instance.Host.Name}/resolv.conf", $"nameserver 127.0.0.53\nnameserver {Instance.WanAddress}\n", Cancellation);
        (await Command.RunAsync("sh", "-c", $"""
            set -e
            ip -n {Instance.Wan.Name} addr add {WanAddress}/64 dev host0 nodad
            ip -n {Instance.Wan.Name} -6 route add fd00:0:0:77::/64 via {HostWanAddress}
            """)).EnsureSuccess();
        string before = (await Instance.Host.RunAsync("sh", "-c", Settings)).Output;
        (await Instance.VnetAsync("up")).EnsureSuccess();
        (await Instance.VnetAsync("network", "update", "vmnet1", "--ipv6-prefix", "fd00:0:0:77::/64")).EnsureSuccess();
        await using TestGuest guest = await Instance.AddGuestAsync("guest", "vmnet1");
        await using TestGuest peer = await Instance.AddGuestAsync("peer", "vmnet1");
        string address = await AddressAsync(guest), other = await AddressAsync(peer);
        Assert.True(await EgressTests.PingsAsync(guest.Namespace, "fd00:0:0:77::1"), "the host");
        Assert.True(await EgressTests.PingsAsync(guest.Namespace, other), "a peer");
        Assert.DoesNotContain("default", (await guest.RunAsync("ip", "-6", "route")).Output, StringComparison.Ordinal);

        // A guest that takes the host for its router all the same.
        (await guest.RunAsync("ip", "-6", "route", "add", "default", "via", "fe80::1", "dev", "eth0", "metric", "1")).EnsureSuccess();
        Assert.False(await EgressTests.PingsAsync(guest.Namespace, WanAddress));
        (await guest.RunAsync("ip", "-6", "route", "del", "default", "via", "fe80::1", "dev", "eth0", "metric", "1")).EnsureSuccess();

        (await Instance.VnetAsync("network", "update", "vmnet1", "--egress", "snat")).EnsureSuccess();
        await Wait.UntilAsync(TimeSpan.FromSeconds(5), "the guest has a router", async () => (await guest.RunAsync("ip", "-6", "route")).Output.Contains("default via fe80::1", StringComparison.Ordinal));
        Assert.Equal([HostWanAddress], await SourcesAsync(guest));
        Assert.False(await EgressTests.PingsAsync(Instance.Wan, address));
        CommandResult routed = (await Instance.VnetAsync("network", "update", "vmnet1", "--egress", "routed")).EnsureSuccess();
        Assert.Contains($"ip -6 route add fd00:0:0:77::/64 via {HostWanAddress}", routed.Output, StringComparison.Ordinal);
        Assert.Equal([address], await SourcesAsync(guest));
        Assert.True(await EgressTests.PingsAsync(Instance.Wan, address));

        // The host's nameservers that guests can reach, by DHCP.
        await using TestGuest late = await Instance.AddGuestAsync("late", "vmnet1");
        Assert.Equal(["nameserver " + Instance.WanAddress], (await File.ReadAllLinesAsync($"/etc/netns/{late.Name}/resolv.conf", Cancellation)).Where(line => line.StartsWith("nameserver", StringComparison.Ordinal)));

        (await Instance.VnetAsync("network", "update", "vmnet1", "--egress", "none")).EnsureSuccess();
        await Wait.UntilAsync(TimeSpan.FromSeconds(5), "the guest has no router any more", async () => !(await guest.RunAsync("ip", "-6", "route")).Output.Contains("default", StringComparison.Ordinal));
        (await Instance.VnetAsync("network", "update", "vmnet1", "--egress", "snat", "--ipv6-prefix", "auto")).EnsureSuccess(); // "auto" leaves the prefix
        await Wait.UntilAsync(TimeSpan.FromSeconds(5), "it has one again", async () => (await guest.RunAsync("ip", "-6", "route")).Output.Contains("default via fe80::1", StringComparison.Ordinal));
        Assert.Equal([HostWanAddress], await SourcesAsync(guest));
        (await Instance.VnetAsync("down")).EnsureSuccess();
        Assert.Equal(before, (await Instance.Host.RunAsync("sh", "-c", Settings)).Output);
    }

    private static async Task<string> AddressAsync(TestGuest guest)
    {
        string found = "";
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "the guest has made itself an address", async () =>
        {
            string[] words = (await guest.RunAsync("ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "global", "-tentative")).Output.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
            found = words.FirstOrDefault(word => word.StartsWith("fd00::77:", StringComparison.Ordinal))?.Split('/')[0] ?? "";
            return found.Length > 0;
        });
        return found;
    }

    private async Task<string[]> SourcesAsync(TestGuest guest)
    {
        using PacketCapture wan = PacketCapture.Start(Instance.Wan, "host0", "icmp6 and ip6[40] == 128");
        Assert.True(await EgressTests.PingsAsync(guest.Namespace, WanAddress));
        await Wait.UntilAsync(TimeSpan.FromSeconds(3), "the capture has it", () => wan.Frames.Count > 0);
        return [.. wan.Frames.Select(frame => frame.Packet.Extract<IPv6Packet>().SourceAddress.ToString()).Distinct()];
    }
}

/// <summary>A host that is a router already, and has a firewall of its own.</summary>
public sealed class EgressBesideFirewallTests : OwnInstanceTest
{
    protected override InstanceOptions Options => new() { Up = false };

    [Fact]
    public async Task A_host_that_forwards_goes_on_forwarding()
    {
        (await Instance.Host.RunAsync("sh", "-c", "nft add table inet mine && nft add chain inet mine guard '{ type filter hook forward priority 0; policy accept; }' && nft add rule inet mine guard counter")).EnsureSuccess();
        string before = await Instance.DescribeHostAsync();
        (await Instance.VnetAsync("up")).EnsureSuccess();
        CommandResult update = (await Instance.VnetAsync("network", "update", "vmnet1", "--egress", "snat")).EnsureSuccess();
        Assert.DoesNotContain("condition", update.Output, StringComparison.Ordinal);
        await using (TestGuest guest = await Instance.AddGuestAsync("guest", "vmnet1"))
            Assert.True(await guest.FetchesAsync("3"));
        Assert.DoesNotContain("forwarding", (await Instance.VnetAsync("host", "changes")).Output, StringComparison.Ordinal);
        (await Instance.VnetAsync("down")).EnsureSuccess();
        Assert.Equal(WithoutCounts(before), WithoutCounts(await Instance.DescribeHostAsync()));
    }

    [Theory]
    [InlineData("iptables")]
    [InlineData("nft")]
    public async Task A_firewall_that_drops_is_told_of_and_its_owner_opens_it(string program)
    {
        Require.Programs(program);
        // What dockerd sets up; and the same in a table of nftables' own.
        (await Instance.Host.RunAsync("sh", "-c", program == "iptables"
            ? "iptables -N DOCKER-USER && iptables -P FORWARD DROP && iptables -A FORWARD -j DOCKER-USER && iptables -A DOCKER-USER -j RETURN"
            : "nft add table inet mine && nft add chain inet mine guard '{ type filter hook forward priority 0; policy drop; }'")).EnsureSuccess();
        (await Instance.VnetAsync("up")).EnsureSuccess();
        CommandResult update = (await Instance.VnetAsync("network", "update", "vmnet1", "--egress", "snat")).EnsureSuccess();
        string[] remedies = [.. update.Output.Split('\'').Where(part => part.StartsWith(program + " ", StringComparison.Ordinal))];
        Assert.Equal(2, remedies.Length);
        await using TestGuest guest = await Instance.AddGuestAsync("guest", "vmnet1");
        Assert.False(await guest.FetchesAsync());
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "it is told that packets are dropped", async () =>
            (await Instance.VnetAsync("network", "show", "vmnet1")).Output.Contains("drops what vmnet1 sends out", StringComparison.Ordinal));

        foreach (string remedy in remedies)
            (await Instance.Host.RunAsync("sh", "-c", remedy)).EnsureSuccess();
        Assert.True(await guest.FetchesAsync("3"));
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "nothing is told any more", async () => !(await Instance.VnetAsync("network", "show", "vmnet1")).Output.Contains("condition", StringComparison.Ordinal));
        (await Instance.VnetAsync("down")).EnsureSuccess();
        string left = (await Instance.Host.RunAsync("nft", "list", "ruleset")).Output;
        Assert.DoesNotContain("vnetmesh", left, StringComparison.Ordinal);
        Assert.Contains("vmnet1", left, StringComparison.Ordinal); // the owner's own rules are theirs
    }

    private static string WithoutCounts(string text) => System.Text.RegularExpressions.Regex.Replace(text, @"packets \d+ bytes \d+", "");
}
