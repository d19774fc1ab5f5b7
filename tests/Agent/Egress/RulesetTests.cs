using VNetMesh.Agent.Devices;
using VNetMesh.Agent.Egress;
using VNetMesh.Agent.HostChanges;
using VNetMesh.Agent.Namespaces;
using VNetMesh.Agent.Tests.Support;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Tests.Egress;

public sealed class RulesetTests
{
    private static readonly NetworkSpec Snat = new("vmnet1", Ipv4Subnet.Parse("192.168.101.0/24"), false, Ipv4Address.Parse("192.168.101.1"), false, 1500, 1)
    {
        Egress = EgressMode.Snat,
        Ipv6Prefix = Ipv6Prefix.Parse("fd00:1:2:3::/64"),
    };

    private static readonly NetworkSpec Routed = new("lab", Ipv4Subnet.Parse("10.20.0.0/16"), false, Ipv4Address.Parse("10.20.0.1"), false, 1500, 1) { Egress = EgressMode.Routed };

    [Fact]
    public void The_table_is_written_as_it_is_documented()
    {
        string script = Ruleset.Write("vnetmesh-0", new RulesetPlan([Snat, Routed], ["vmnet8"], ["eth0", "wlan0"], ["eth0"], OpenedAllIpv6: false));
        string[] rules = [.. script.Split('\n').Select(line => line.Trim()).Where(line => line.Contains("ifname", StringComparison.Ordinal) || line.Contains("hook", StringComparison.Ordinal))];
        Assert.Equal(
        [
            "type filter hook forward priority filter - 5; policy accept;",
            "iifname \"vmnet1\" ip saddr != 192.168.101.0/24 counter drop",
            "iifname \"vmnet1\" ip6 saddr != fd00:1:2:3::/64 counter drop",
            "iifname \"lab\" ip saddr != 10.20.0.0/16 counter drop",
            "iifname \"lab\" meta nfproto ipv6 counter drop",
            "iifname { \"vmnet8\" } counter drop",
            "oifname \"vmnet1\" ct state established,related accept",
            "oifname \"lab\" accept",
            "oifname { \"vmnet1\", \"lab\", \"vmnet8\" } counter drop",
            "iifname \"vmnet1\" counter name vmnet1-sent accept",
            "iifname \"lab\" counter name lab-sent accept",
            "iifname { \"eth0\", \"wlan0\" } meta nfproto ipv4 counter drop",
            "iifname { \"eth0\" } meta nfproto ipv6 counter drop",
            "type filter hook forward priority 300; policy accept;",
            "iifname \"vmnet1\" counter name vmnet1-passed",
            "iifname \"lab\" counter name lab-passed",
            "type nat hook postrouting priority srcnat; policy accept;",
            "ip saddr 192.168.101.0/24 oifname != \"vmnet1\" masquerade",
            "ip6 saddr fd00:1:2:3::/64 oifname != \"vmnet1\" masquerade",
        ], rules);
    }

    [Fact]
    public void A_host_made_a_router_of_ipv6_forwards_for_the_networks_alone()
    {
        string script = Ruleset.Write("vnetmesh-0", new RulesetPlan([Snat], [], [], [], OpenedAllIpv6: true));
        Assert.Contains("iifname != { \"vmnet1\" } meta nfproto ipv6 counter drop", script, StringComparison.Ordinal);
    }

    /// <summary>nft(8) and the kernel take it, make it anew in place, and nothing is left of it.</summary>
    [Fact]
    public void The_kernel_takes_the_table_and_gives_it_back()
    {
        using var lab = new HostLab();
        string before = Nft(lab, "list", "ruleset");
        foreach (RulesetPlan plan in (RulesetPlan[])[new([Snat, Routed], ["vmnet8", "a.b"], ["eth0"], ["eth0.7"], true), new([], ["vmnet1"], [], [], false), new([Routed], [], [], [], true)])
        {
            HostLab.WithNetlink(lab.Host, _ =>
            {
                var change = new NftTableChange("agent", HostNamespaces.OwnIdentity(), "vnetmesh-t", Ruleset.Write("vnetmesh-t", plan), "");
                change.Do(null!);
                Assert.True(change.IsStillThere(null!));
                return true;
            });
        }
        Assert.DoesNotContain("vmnet1", Nft(lab, "list", "ruleset"), StringComparison.Ordinal); // the last plan's table, whole
        HostLab.WithNetlink(lab.Host, _ =>
        {
            var change = new NftTableChange("agent", HostNamespaces.OwnIdentity(), "vnetmesh-t", "", "");
            change.Undo(null!);
            change.Undo(null!);
            Assert.False(change.IsStillThere(null!));
            return true;
        });
        Assert.Equal(before, Nft(lab, "list", "ruleset"));
    }

    [Fact]
    public void Two_instances_have_two_tables()
    {
        Assert.NotEqual(EgressKeeper.TableOf("/var/lib/vnetmesh"), EgressKeeper.TableOf("/var/lib/vnetmesh2"));
        Assert.Matches("^vnetmesh-[0-9a-f]{8}$", EgressKeeper.TableOf("/var/lib/vnetmesh"));
    }

    private static string Nft(HostLab lab, params ReadOnlySpan<string> arguments) => Command.Run("ip", ["netns", "exec", lab.Host, "nft", .. arguments]);
}
