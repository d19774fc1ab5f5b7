using VNetMesh.Agent.Devices;
using VNetMesh.Agent.Egress;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Tests.Egress;

public sealed class FirewallWatchTests
{
    private const string Own = "vnetmesh-0";
    private const string Nothing = """{"nftables": [{"metainfo": {}}]}""";

    // As `nft -j list ruleset` of nftables 1.0.6 prints what dockerd sets up by iptables-nft.
    private const string Docker = """
        {"nftables": [{"metainfo": {"version": "1.0.6"}},
        {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
        {"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER", "handle": 2}},
        {"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 3, "expr": [{"counter": {"packets": 0, "bytes": 0}}, {"jump": {"target": "DOCKER-USER"}}]}}%RULES%]}
        """;

    private const string DockerUser = """
        , {"rule": {"family": "ip", "table": "filter", "chain": "DOCKER-USER", "handle": 4, "expr": [{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "vmnet1"}}, {"counter": {"packets": 0, "bytes": 0}}, {"accept": null}]}}
        """;

    private static readonly NetworkSpec[] Networks = [new("vmnet1", Ipv4Subnet.Parse("192.168.101.0/24"), false, null, false, 1500, 1)];

    [Fact]
    public void A_chain_that_drops_by_default_is_told_of_with_the_rule_to_add()
    {
        string? told = new FirewallWatch().Judge("vmnet1", Docker.Replace("%RULES%", ""), Own);
        Assert.Contains("iptables -I DOCKER-USER -i vmnet1 -j ACCEPT", told, StringComparison.Ordinal);
        Assert.Contains("iptables -I DOCKER-USER -o vmnet1 -j ACCEPT", told, StringComparison.Ordinal);
    }

    [Fact]
    public void A_rule_for_the_adapter_in_a_chain_that_is_jumped_to_suffices() =>
        Assert.Null(new FirewallWatch().Judge("vmnet1", Docker.Replace("%RULES%", DockerUser), Own));

    [Fact]
    public void A_rule_for_another_adapter_does_not() =>
        Assert.NotNull(new FirewallWatch().Judge("vmnet10", Docker.Replace("%RULES%", DockerUser), Own));

    [Theory]
    [InlineData("inet", "mine", "fwd", "nft insert rule inet mine fwd iifname vmnet1 accept")]
    [InlineData("inet", "firewalld", "filter_FORWARD", "firewall-cmd --permanent --zone=trusted --add-interface=vmnet1")]
    [InlineData("ip", "filter", "FORWARD", "iptables -I FORWARD -i vmnet1 -j ACCEPT")]
    public void The_remedy_is_that_of_the_firewall(string family, string table, string chain, string remedy)
    {
        string ruleset = $$$"""{"nftables": [{"chain": {"family": "{{{family}}}", "table": "{{{table}}}", "name": "{{{chain}}}", "hook": "forward", "policy": "drop"}}]}""";
        Assert.Contains(remedy, new FirewallWatch().Judge("vmnet1", ruleset, Own), StringComparison.Ordinal);
    }

    [Fact]
    public void Our_own_table_other_hooks_and_chains_that_accept_are_no_suspects()
    {
        string ruleset = $$$"""
            {"nftables": [{"chain": {"family": "inet", "table": "{{{Own}}}", "name": "x", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "inet", "table": "t", "name": "in", "hook": "input", "policy": "drop"}},
            {"chain": {"family": "inet", "table": "t", "name": "fwd", "hook": "forward", "policy": "accept"}}]}
            """;
        Assert.Null(new FirewallWatch().Judge("vmnet1", ruleset, Own));
    }

    [Fact]
    public void What_happens_counts_more_than_what_is_written()
    {
        string suspect = Docker.Replace("%RULES%", "");
        var watch = new FirewallWatch();
        watch.Observe(Counters(5, 5), Networks);
        Assert.Null(watch.Judge("vmnet1", suspect, Own)); // it passes, whatever the rules look like
        Assert.False(watch.IsInDoubt("vmnet1"));
        watch.Observe(Counters(9, 5), Networks);
        Assert.Contains("drops what vmnet1 sends out", watch.Judge("vmnet1", Nothing, Own), StringComparison.Ordinal); // by iptables-legacy, say
        watch.Observe(Counters(9, 5), Networks);
        Assert.NotNull(watch.Judge("vmnet1", Nothing, Own)); // silence proves nothing
        watch.Observe(Counters(2, 1), Networks); // the table was made anew
        Assert.Null(watch.Judge("vmnet1", Nothing, Own));
    }

    private static string Counters(int sent, int passed) => $$$"""
        {"nftables": [{"metainfo": {}}, {"counter": {"family": "inet", "name": "vmnet1-sent", "table": "{{{Own}}}", "packets": {{{sent}}}, "bytes": 0}},
        {"counter": {"family": "inet", "name": "vmnet1-passed", "table": "{{{Own}}}", "packets": {{{passed}}}, "bytes": 0}}]}
        """;
}
