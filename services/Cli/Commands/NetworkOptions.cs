using System.CommandLine;
using Google.Protobuf.WellKnownTypes;
using VNetMesh.V1;
using Option = System.CommandLine.Option;

namespace VNetMesh.Cli.Commands;

/// <summary>The settings of a network as options, for create and update alike.</summary>
internal sealed class NetworkOptions
{
    private static readonly Dictionary<string, NetworkKind> Kinds = new()
    {
        ["bridged"] = NetworkKind.Bridged,
        ["host-only"] = NetworkKind.HostOnly,
        ["nat"] = NetworkKind.Nat,
        ["isolated"] = NetworkKind.Isolated,
    };

    private static readonly Dictionary<string, NetworkEgress> Egresses = new()
    {
        ["none"] = NetworkEgress.None,
        ["snat"] = NetworkEgress.Snat,
        ["routed"] = NetworkEgress.Routed,
    };

    private static readonly Dictionary<string, UplinkDriver> Drivers = new()
    {
        ["tc"] = UplinkDriver.Tc,
        ["pcap"] = UplinkDriver.Pcap,
    };

    private readonly List<(Option Option, string Path, Action<ParseResult, Network> Apply)> _settings = [];

    public NetworkOptions(Command command, bool withKind)
    {
        if (withKind)
        {
            var kind = new Option<string>("--kind") { Description = "bridged, host-only, nat or isolated", Required = true };
            kind.AcceptOnlyFromAmong([.. Kinds.Keys]);
            Add(kind, "kind", (parsed, network) => network.Kind = Kinds[parsed.GetRequiredValue(kind)]);
        }
        Text("--subnet", "IPv4 subnet, e.g. 10.44.0.0/24; by default the first free /24", "ipv4_subnet", (network, value) => network.Ipv4Subnet = value);
        Text("--host-address", "The host's own address on it", "ipv4_host_address", (network, value) => network.Ipv4HostAddress = value);
        Text("--gateway", "Where nat answers", "ipv4_gateway", (network, value) => network.Ipv4Gateway = value);
        var egress = new Option<string>("--egress") { Description = "What leads out of a host-only network: none, snat or routed" };
        egress.AcceptOnlyFromAmong([.. Egresses.Keys]);
        Add(egress, "egress", (parsed, network) => network.Egress = Egresses[parsed.GetRequiredValue(egress)]);
        Text("--uplink", "The NIC that a bridged network is joined to; auto: the default route's, none: no NIC", "uplink", (network, value) => network.Uplink = value == "none" ? "" : value);
        var driver = new Option<string>("--uplink-driver") { Description = "How frames get to the NIC and from it: tc or pcap" };
        driver.AcceptOnlyFromAmong([.. Drivers.Keys]);
        Add(driver, "uplink_driver", (parsed, network) => network.UplinkDriver = Drivers[parsed.GetRequiredValue(driver)]);
        Text("--ipv6-prefix", "IPv6 prefix, a /64; auto makes one up, an empty text takes it away", "ipv6_prefix", (network, value) => network.Ipv6Prefix = value);
        Number("--mtu", "Largest IP packet, 576 to 65535", "mtu", (network, value) => network.Mtu = value);
        Text("--dhcp-start", "First address that DHCP gives out", "dhcpv4.range_start", (network, value) => Dhcp(network).RangeStart = value);
        Text("--dhcp-end", "Last address that DHCP gives out", "dhcpv4.range_end", (network, value) => Dhcp(network).RangeEnd = value);
        Text("--dhcp-server", "The DHCP server's own address", "dhcpv4.server_address", (network, value) => Dhcp(network).ServerAddress = value);
        Text("--domain", "Domain that DHCP tells", "dhcpv4.domain", (network, value) => Dhcp(network).Domain = value);
        Seconds("--lease", "Lease time, seconds", "dhcpv4.default_lease", (network, value) => Dhcp(network).DefaultLease = value);
        Seconds("--max-lease", "Longest lease a client may ask for, seconds", "dhcpv4.max_lease", (network, value) => Dhcp(network).MaxLease = value);
        Many("--dns", "DNS server that DHCP tells; may be repeated", "dhcpv4.dns_servers", (network, values) => Dhcp(network).DnsServers.AddRange(values));
        Many("--router", "Router that DHCP tells; may be repeated", "dhcpv4.routers", (network, values) => Dhcp(network).Routers.AddRange(values));
        var dhcp = new Option<bool?>("--dhcp") { Description = "Whether DHCP serves it: true or false" };
        Add(dhcp, "dhcpv4.enabled", (parsed, network) => Dhcp(network).Enabled = parsed.GetValue(dhcp)!.Value);
        Seconds("--mac-ageing", "Seconds after which a silent address is forgotten", "mac_ageing", (network, value) => network.MacAgeing = value);
        Number("--max-macs", "Addresses learned on the network at the most", "max_macs", (network, value) => network.MaxMacs = value);
        Number("--max-macs-per-port", "Addresses learned on a port at the most", "max_macs_per_port", (network, value) => network.MaxMacsPerPort = value);
        var isolate = new Option<bool?>("--isolate-ports") { Description = "Guests reach the host and the gateway, but not each other: true or false" };
        Add(isolate, "isolate_ports", (parsed, network) => network.IsolatePorts = parsed.GetValue(isolate)!.Value);
        foreach ((Option option, _, _) in _settings)
            command.Add(option);
    }

    /// <summary>Sets what was given.</summary>
    /// <returns>Its field paths.</returns>
    public List<string> Apply(ParseResult parsed, Network network)
    {
        var paths = new List<string>();
        foreach ((Option option, string path, Action<ParseResult, Network> apply) in _settings)
        {
            if (parsed.GetResult(option) is null or { Implicit: true })
                continue;
            apply(parsed, network);
            paths.Add(path);
        }
        // A network with DHCP settings is one that DHCP serves, unless it was said otherwise.
        if (network.Dhcpv4 is not null && network.Name.Length == 0 && !paths.Contains("dhcpv4.enabled"))
            network.Dhcpv4.Enabled = true;
        return paths;
    }

    private static Dhcpv4Settings Dhcp(Network network) => network.Dhcpv4 ??= new Dhcpv4Settings();

    private void Text(string name, string description, string path, Action<Network, string> set)
    {
        var option = new Option<string>(name) { Description = description };
        Add(option, path, (parsed, network) => set(network, parsed.GetRequiredValue(option)));
    }

    private void Many(string name, string description, string path, Action<Network, string[]> set)
    {
        var option = new Option<string[]>(name) { Description = description };
        Add(option, path, (parsed, network) => set(network, parsed.GetRequiredValue(option)));
    }

    private void Number(string name, string description, string path, Action<Network, uint> set)
    {
        var option = new Option<uint>(name) { Description = description };
        Add(option, path, (parsed, network) => set(network, parsed.GetRequiredValue(option)));
    }

    private void Seconds(string name, string description, string path, Action<Network, Duration> set)
    {
        var option = new Option<uint>(name) { Description = description };
        Add(option, path, (parsed, network) => set(network, Duration.FromTimeSpan(TimeSpan.FromSeconds(parsed.GetRequiredValue(option)))));
    }

    private void Add(Option option, string path, Action<ParseResult, Network> apply) => _settings.Add((option, path, apply));
}
