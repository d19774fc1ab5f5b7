using VNetMesh.Declarations;

namespace VNetMesh.Switch.Registry;

/// <summary>A network that vnetmesh.yaml declares: which fields it sets, and how.</summary>
/// <param name="Line">Where it begins in the file.</param>
/// <param name="Fields">Paths of the fields, named as in switch.proto.</param>
public sealed record DeclaredNetwork(string Id, long Line, IReadOnlySet<string> Fields, Func<NetworkDraft, NetworkDraft> Apply);

/// <summary>
/// The networks of vnetmesh.yaml as drafts. What else the file holds (guests, reservations, forwards) belongs to other
/// services, to which `vnet apply` takes it.
/// </summary>
public static class NetworkDeclarations
{
    private static readonly Dictionary<string, NetworkKind> Kinds = new(StringComparer.Ordinal)
    {
        ["bridged"] = NetworkKind.Bridged,
        ["host-only"] = NetworkKind.HostOnly,
        ["nat"] = NetworkKind.Nat,
        ["isolated"] = NetworkKind.Isolated,
    };

    private static readonly Dictionary<string, NetworkEgress> Egresses = new(StringComparer.Ordinal)
    {
        ["none"] = NetworkEgress.None,
        ["snat"] = NetworkEgress.Snat,
        ["routed"] = NetworkEgress.Routed,
    };

    private static readonly Dictionary<string, UplinkDriver> Drivers = new(StringComparer.Ordinal) { ["tc"] = UplinkDriver.Tc, ["pcap"] = UplinkDriver.Pcap };

    private static readonly Dictionary<string, Func<NetworkDraft, object, NetworkDraft>> Setters = new(StringComparer.Ordinal)
    {
        ["kind"] = (draft, value) => draft with { Kind = Kinds[(string)value] },
        ["ipv4_subnet"] = (draft, value) => draft with { Subnet = (string)value },
        ["ipv4_subnet_auto"] = (draft, value) => draft with { SubnetAuto = (bool)value },
        ["ipv4_host_address"] = (draft, value) => draft with { HostAddress = (string)value },
        ["ipv4_gateway"] = (draft, value) => draft with { Gateway = (string)value },
        ["egress"] = (draft, value) => draft with { Egress = Egresses[(string)value] },
        ["ipv6_prefix"] = (draft, value) => (string)value == NetworkPlanner.AutoPrefix && !string.IsNullOrEmpty(draft.Ipv6Prefix) ? draft : draft with { Ipv6Prefix = (string)value },
        ["uplink"] = (draft, value) => draft with { Uplink = (string)value == "none" ? "" : (string)value },
        ["uplink_driver"] = (draft, value) => draft with { UplinkDriver = Drivers[(string)value] },
        ["mtu"] = (draft, value) => draft with { Mtu = (long)value },
        ["mac_ageing"] = (draft, value) => draft with { MacAgeing = (TimeSpan)value },
        ["max_macs"] = (draft, value) => draft with { MaxMacs = (long)value },
        ["max_macs_per_port"] = (draft, value) => draft with { MaxMacsPerPort = (long)value },
        ["isolate_ports"] = (draft, value) => draft with { IsolatePorts = (bool)value },
        ["dhcpv4.enabled"] = (draft, value) => draft with { Dhcp = draft.Dhcp with { Enabled = (bool)value } },
        ["dhcpv4.range_start"] = (draft, value) => draft with { Dhcp = draft.Dhcp with { RangeStart = (string)value } },
        ["dhcpv4.range_end"] = (draft, value) => draft with { Dhcp = draft.Dhcp with { RangeEnd = (string)value } },
        ["dhcpv4.server_address"] = (draft, value) => draft with { Dhcp = draft.Dhcp with { ServerAddress = (string)value } },
        ["dhcpv4.default_lease"] = (draft, value) => draft with { Dhcp = draft.Dhcp with { DefaultLease = (TimeSpan)value } },
        ["dhcpv4.max_lease"] = (draft, value) => draft with { Dhcp = draft.Dhcp with { MaxLease = (TimeSpan)value } },
        ["dhcpv4.domain"] = (draft, value) => draft with { Dhcp = draft.Dhcp with { Domain = (string)value } },
        ["dhcpv4.dns_servers"] = (draft, value) => draft with { Dhcp = draft.Dhcp with { DnsServers = (IReadOnlyList<string>)value } },
        ["dhcpv4.routers"] = (draft, value) => draft with { Dhcp = draft.Dhcp with { Routers = (IReadOnlyList<string>)value } },
    };

    /// <exception cref="DeclarationException">With the line, where there is one.</exception>
    public static IReadOnlyList<DeclaredNetwork> Parse(string yaml) => [.. DeclarationReader.Parse(yaml).Networks.Select(declared => Read(declared.Network))];

    private static DeclaredNetwork Read(DeclaredItem network) => new(network.Id, network.Line, network.Fields.Select(field => field.Path).ToHashSet(),
        draft => network.Fields.Aggregate(draft, (result, field) => Setters[field.Path](result, field.Value)));
}
