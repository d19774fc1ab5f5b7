using VNetMesh.Packets;
using VNetMesh.Switch.Registry;

namespace VNetMesh.Switch.Tests.Registry;

public sealed class NetworkPlannerTests
{
    private static readonly NetworkDraft Nat = new() { Id = "n", Kind = NetworkKind.Nat, Subnet = "10.1.0.0/24" };

    private static readonly NetworkDefinition Other = NetworkPlanner.Complete(new NetworkDraft { Id = "other", Kind = NetworkKind.HostOnly, Subnet = "192.168.101.0/24", Ipv6Prefix = "fd00:0:0:7::/64" }, []);

    public static TheoryData<string, NetworkDraft> Refused() => new()
    {
        { "NETWORK_ID_INVALID", Nat with { Id = "" } },
        { "NETWORK_ID_INVALID", Nat with { Id = "-a" } },
        { "NETWORK_ID_INVALID", Nat with { Id = "a-" } },
        { "NETWORK_ID_INVALID", Nat with { Id = "1a" } },
        { "NETWORK_ID_INVALID", Nat with { Id = "Ab" } },
        { "NETWORK_ID_INVALID", Nat with { Id = "a.b" } },
        { "NETWORK_ID_INVALID", Nat with { Id = "a\n" } },
        { "NETWORK_ID_INVALID", Nat with { Id = new string('a', 16) } },
        { "KIND_REQUIRED", Nat with { Kind = NetworkKind.Unspecified } },
        { "KIND_REQUIRED", Nat with { Kind = (NetworkKind)9 } },
        { "SUBNET_INVALID", Nat with { Subnet = "10.1.0.1/24" } },
        { "SUBNET_INVALID", Nat with { Subnet = "fd00::/64" } },
        { "SUBNET_INVALID", Nat with { Subnet = "10.0.0.0/7" } },
        { "SUBNET_INVALID", Nat with { Subnet = "127.0.0.0/24" } },
        { "SUBNET_INVALID", Nat with { Subnet = "169.254.0.0/16" } },
        { "SUBNET_INVALID", Nat with { Subnet = "224.0.0.0/8" } },
        { "SUBNET_INVALID", Nat with { Subnet = "0.0.0.0/8" } },
        { "SUBNET_INVALID", new NetworkDraft { Id = "b", Kind = NetworkKind.Bridged, Subnet = "10.0.0.0/24" } },
        { "SUBNET_TOO_SMALL", Nat with { Subnet = "10.1.0.0/30" } },
        { "SUBNET_OVERLAPS", Nat with { Subnet = "192.168.0.0/16" } },
        { "SUBNET_OVERLAPS", Nat with { Subnet = "192.168.101.128/25" } },
        { "ADDRESS_OUTSIDE_SUBNET", Nat with { HostAddress = "10.2.0.1" } },
        { "ADDRESS_OUTSIDE_SUBNET", Nat with { Gateway = "10.2.0.1" } },
        { "ADDRESS_OUTSIDE_SUBNET", Nat with { Dhcp = new DhcpDraft { RangeEnd = "10.1.1.9" } } },
        { "ADDRESS_OUTSIDE_SUBNET", Nat with { Dhcp = new DhcpDraft { ServerAddress = "10.1.1.9" } } },
        { "ADDRESS_OUTSIDE_SUBNET", new NetworkDraft { Id = "b", Kind = NetworkKind.Bridged, HostAddress = "10.0.0.1" } },
        { "ADDRESS_RESERVED", Nat with { HostAddress = "10.1.0.0" } },
        { "ADDRESS_RESERVED", Nat with { Gateway = "10.1.0.255" } },
        { "ADDRESS_RESERVED", Nat with { Dhcp = new DhcpDraft { RangeStart = "10.1.0.0" } } },
        { "ADDRESS_INVALID", Nat with { Gateway = "gateway" } },
        { "ADDRESS_INVALID", Nat with { Dhcp = new DhcpDraft { DnsServers = ["224.0.0.1"] } } },
        { "ADDRESS_CONFLICT", Nat with { HostAddress = "10.1.0.2" } },
        { "ADDRESS_CONFLICT", Nat with { Dhcp = new DhcpDraft { ServerAddress = "10.1.0.1" } } },
        { "ADDRESS_CONFLICT", new NetworkDraft { Id = "h", Kind = NetworkKind.HostOnly, Subnet = "10.1.0.0/24", Gateway = "10.1.0.2" } },
        { "DHCP_RANGE_INVALID", Nat with { Dhcp = new DhcpDraft { RangeStart = "10.1.0.20", RangeEnd = "10.1.0.10" } } },
        { "DHCP_RANGE_INVALID", Nat with { Dhcp = new DhcpDraft { RangeStart = "10.1.0.1" } } },
        { "DHCP_RANGE_INVALID", Nat with { Dhcp = new DhcpDraft { RangeEnd = "10.1.0.254" } } },
        { "DHCP_RANGE_INVALID", new NetworkDraft { Id = "i", Kind = NetworkKind.Isolated, Dhcp = new DhcpDraft { Enabled = true } } },
        { "DHCP_LEASE_INVALID", Nat with { Dhcp = new DhcpDraft { DefaultLease = TimeSpan.FromSeconds(59) } } },
        { "DHCP_LEASE_INVALID", Nat with { Dhcp = new DhcpDraft { MaxLease = TimeSpan.FromDays(366) } } },
        { "DHCP_LEASE_INVALID", Nat with { Dhcp = new DhcpDraft { DefaultLease = TimeSpan.FromHours(3), MaxLease = TimeSpan.FromHours(2) } } },
        { "DHCP_DOMAIN_INVALID", Nat with { Dhcp = new DhcpDraft { Domain = "a b" } } },
        { "EGRESS_INVALID", Nat with { Egress = NetworkEgress.Snat } },
        { "EGRESS_INVALID", Nat with { Egress = (NetworkEgress)4 } },
        { "EGRESS_INVALID", new NetworkDraft { Id = "i", Kind = NetworkKind.Isolated, Egress = NetworkEgress.Routed } },
        { "IPV6_PREFIX_INVALID", Nat with { Ipv6Prefix = "fd00::/48" } },
        { "IPV6_PREFIX_INVALID", Nat with { Ipv6Prefix = "fd00::1/64" } },
        { "IPV6_PREFIX_INVALID", Nat with { Ipv6Prefix = "fe80::/64" } },
        { "IPV6_PREFIX_INVALID", Nat with { Ipv6Prefix = "ff02::/64" } },
        { "IPV6_PREFIX_INVALID", Nat with { Ipv6Prefix = "::/64" } },
        { "IPV6_PREFIX_INVALID", Nat with { Ipv6Prefix = "10.0.0.0/24" } },
        { "IPV6_PREFIX_INVALID", new NetworkDraft { Id = "b", Kind = NetworkKind.Bridged, Ipv6Prefix = "auto" } },
        { "IPV6_PREFIX_OVERLAPS", Nat with { Ipv6Prefix = "fd00:0:0:7::/64" } },
        { "MTU_OUT_OF_RANGE", Nat with { Mtu = 575 } },
        { "MTU_OUT_OF_RANGE", Nat with { Mtu = 65536 } },
        { "AGEING_OUT_OF_RANGE", Nat with { MacAgeing = TimeSpan.FromSeconds(9) } },
        { "AGEING_OUT_OF_RANGE", Nat with { MacAgeing = TimeSpan.FromSeconds(1_000_001) } },
        { "LIMIT_OUT_OF_RANGE", Nat with { MaxMacs = 65537 } },
        { "LIMIT_OUT_OF_RANGE", Nat with { MaxMacsPerPort = 65537 } },
    };

    [Theory]
    [MemberData(nameof(Refused))]
    public void ARefusalHasItsReason(string reason, NetworkDraft draft)
    {
        RegistryException refusal = Assert.Throws<RegistryException>(() => NetworkPlanner.Complete(draft, [Other]));
        Assert.Equal(reason, refusal.Reason);
        Assert.NotEmpty(refusal.Message);
    }

    [Fact]
    public void ANatNetworkIsFilledIn()
    {
        NetworkDefinition network = NetworkPlanner.Complete(Nat, [Other]);
        Assert.Equal("10.1.0.1 10.1.0.2 10.1.0.128 10.1.0.253 10.1.0.254", string.Join(' ', network.HostAddress, network.Gateway, network.Dhcp.RangeStart, network.Dhcp.RangeEnd, network.Dhcp.ServerAddress));
        Assert.Equal((1500, 300, 8192, 256, false), (network.Mtu, (int)network.MacAgeing.TotalSeconds, network.MaxMacs, network.MaxMacsPerPort, network.SubnetAuto));
        Assert.True(network.Dhcp.Enabled);
        Assert.Equal(network.Gateway, Assert.Single(network.Dhcp.DnsServers));
        Assert.Equal(network.Gateway, Assert.Single(network.Dhcp.Routers));
        Assert.Equal((30, 120), (network.Dhcp.DefaultLease.TotalMinutes, network.Dhcp.MaxLease.TotalMinutes));
    }

    [Fact]
    public void TheSmallestSubnetHasRoomForAll()
    {
        NetworkDefinition network = NetworkPlanner.Complete(Nat with { Subnet = "10.1.0.8/29" }, []);
        Assert.Equal("10.1.0.9 10.1.0.10 10.1.0.12 10.1.0.13 10.1.0.14", string.Join(' ', network.HostAddress, network.Gateway, network.Dhcp.RangeStart, network.Dhcp.RangeEnd, network.Dhcp.ServerAddress));
    }

    [Fact]
    public void ASubnetIsChosenAmongTheFreeOnes()
    {
        NetworkDraft draft = Nat with { Subnet = "" };
        NetworkDefinition chosen = NetworkPlanner.Complete(draft, [Other]);
        Assert.Equal(("192.168.102.0/24", true), (chosen.Subnet.ToString(), chosen.SubnetAuto));
        Assert.Equal("192.168.104.0/24", NetworkPlanner.Complete(draft, [Other], Ipv4Subnet.Parse("192.168.103.0/24")).Subnet.ToString());
        Assert.Equal("192.168.102.0/24", NetworkPlanner.Complete(draft, [Other], Ipv4Subnet.Parse("192.168.254.0/24")).Subnet.ToString());
        NetworkDefinition wide = NetworkPlanner.Complete(new NetworkDraft { Id = "wide", Kind = NetworkKind.Isolated, Subnet = "192.168.0.0/16" }, []);
        Assert.Equal("NO_FREE_SUBNET", Assert.Throws<RegistryException>(() => NetworkPlanner.Complete(draft, [wide])).Reason);
    }

    [Fact]
    public void BridgedAndIsolatedNetworksNeedNoAddresses()
    {
        foreach (NetworkKind kind in new[] { NetworkKind.Bridged, NetworkKind.Isolated })
        {
            NetworkDefinition network = NetworkPlanner.Complete(new NetworkDraft { Id = "x", Kind = kind }, [Other]);
            Assert.Null(network.Subnet);
            Assert.Null(network.HostAddress);
            Assert.Null(network.Dhcp.RangeStart);
            Assert.False(network.Dhcp.Enabled);
        }
    }

    [Fact]
    public void A_network_with_an_egress_has_the_host_as_its_router_until_it_has_none()
    {
        var draft = new NetworkDraft { Id = "h", Kind = NetworkKind.HostOnly, Subnet = "10.1.0.0/24", Egress = NetworkEgress.Snat };
        NetworkDefinition network = NetworkPlanner.Complete(draft, []);
        Assert.Equal("10.1.0.1", Assert.Single(network.Dhcp.Routers).ToString());
        Assert.Empty(network.Dhcp.DnsServers); // dhcp fills in the host's own
        NetworkDraft closed = NetworkPlanner.Rebase(NetworkDraft.From(network) with { Egress = NetworkEgress.None }, network, new HashSet<string> { "egress" });
        Assert.Empty(NetworkPlanner.Complete(closed, []).Dhcp.Routers);
        NetworkDraft moved = NetworkPlanner.Rebase(NetworkDraft.From(network) with { Subnet = "10.2.0.0/24" }, network, new HashSet<string> { "ipv4_subnet" });
        Assert.Equal("10.2.0.1", Assert.Single(NetworkPlanner.Complete(moved, []).Dhcp.Routers).ToString());
    }

    [Fact]
    public void A_prefix_made_up_is_a_unique_local_one()
    {
        var draft = new NetworkDraft { Id = "h", Kind = NetworkKind.HostOnly, Subnet = "10.1.0.0/24", Ipv6Prefix = "auto" };
        Ipv6Prefix one = NetworkPlanner.Complete(draft, []).Ipv6Prefix!.Value, other = NetworkPlanner.Complete(draft, []).Ipv6Prefix!.Value;
        Assert.True(Ipv6Prefix.Parse("fd00::/8").Contains(one.Network), one.ToString());
        Assert.Equal(64, one.Length);
        Assert.NotEqual(one, other);
    }
}
