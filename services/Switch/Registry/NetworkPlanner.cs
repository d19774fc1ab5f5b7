using System.Text.RegularExpressions;
using VNetMesh.Packets;

namespace VNetMesh.Switch.Registry;

/// <summary>
/// Turns what is wanted into what is: fills in what was left empty (switch.proto says with what), checks everything, and
/// refuses with a reason. It changes nothing itself.
/// </summary>
public static partial class NetworkPlanner
{
    public const int MaxNetworks = 256;
    public const int DefaultMtu = 1500;
    public const int DefaultMaxMacs = 8192;
    public const int DefaultMaxMacsPerPort = 256;

    /// <summary>Stands for a prefix to be made up.</summary>
    public const string AutoPrefix = "auto";

    /// <summary>Stands for the NIC of the default route.</summary>
    public const string AutoUplink = "auto";

    /// <summary>IEEE 802.1Q-2022, table 8-6.</summary>
    public static readonly TimeSpan DefaultAgeing = TimeSpan.FromSeconds(300);
    public static readonly TimeSpan DefaultLease = TimeSpan.FromMinutes(30);
    public static readonly TimeSpan DefaultMaxLease = TimeSpan.FromHours(2);

    private const int FirstFreeOctet = 101;
    private const int LastFreeOctet = 254;
    private const int MaxListedAddresses = 8;

    /// <param name="draft">What is wanted.</param>
    /// <param name="others">The networks beside it.</param>
    /// <param name="subnetAfter">Where a subnet is to be chosen: the first free one after this.</param>
    /// <exception cref="RegistryException">It cannot be had.</exception>
    public static NetworkDefinition Complete(NetworkDraft draft, IReadOnlyCollection<NetworkDefinition> others, Ipv4Subnet? subnetAfter = null)
    {
        if (!IdPattern().IsMatch(draft.Id))
            throw Refuse.Invalid("NETWORK_ID_INVALID", $"the network id '{draft.Id}' must be 1 to 15 of a-z, 0-9 and '-', begin with a letter and not end in '-'");
        if (draft.Kind is < NetworkKind.Bridged or > NetworkKind.Isolated)
            throw Refuse.Invalid("KIND_REQUIRED", "the kind must be bridged, host-only, nat or isolated");
        bool chosen = string.IsNullOrEmpty(draft.Subnet) && HasSubnetOfOurs(draft.Kind);
        Ipv4Subnet? subnet = chosen ? ChooseSubnet(others, subnetAfter) : ReadSubnet(draft);
        CheckOverlap(draft.Id, subnet, others);
        int mtu = InRange(draft.Mtu == 0 ? DefaultMtu : draft.Mtu, 576, 65535, "MTU_OUT_OF_RANGE", "the MTU");
        Ipv6Prefix? prefix = Ipv6PrefixPlanner.Complete(draft, others);
        TimeSpan ageing = draft.MacAgeing ?? DefaultAgeing;
        if (ageing < TimeSpan.FromSeconds(10) || ageing > TimeSpan.FromSeconds(1_000_000))
            throw Refuse.Invalid("AGEING_OUT_OF_RANGE", "mac_ageing must be 10 s to 1,000,000 s", ("field", "mac_ageing"));
        return Addresses(draft, subnet) with
        {
            Ipv6Prefix = prefix,
            Uplink = UplinkPlanner.ReadName(draft),
            UplinkDriver = UplinkPlanner.ReadDriver(draft),
            SubnetAuto = chosen || (draft.SubnetAuto && subnet is not null),
            Mtu = mtu,
            MacAgeing = ageing,
            MaxMacs = InRange(draft.MaxMacs == 0 ? DefaultMaxMacs : draft.MaxMacs, 1, 65536, "LIMIT_OUT_OF_RANGE", "max_macs"),
            MaxMacsPerPort = InRange(draft.MaxMacsPerPort == 0 ? DefaultMaxMacsPerPort : draft.MaxMacsPerPort, 1, 65536, "LIMIT_OUT_OF_RANGE", "max_macs_per_port"),
        };
    }

    /// <summary>
    /// Prepares the draft of a changed network: addresses that followed from what it was and do not fit what it is to be are
    /// forgotten, so that they are filled in anew.
    /// </summary>
    /// <param name="kept">Fields that the user has set now, which must be taken or refused as they are.</param>
    public static NetworkDraft Rebase(NetworkDraft draft, NetworkDefinition current, IReadOnlySet<string> kept)
    {
        Ipv4Subnet? subnet = Ipv4Subnet.TryParse(draft.Subnet, out Ipv4Subnet parsed) ? parsed : null;
        string? Keep(string path, string? text) =>
            kept.Contains(path) || (subnet is { } inside && Ipv4Address.TryParse(text, out Ipv4Address address) && inside.ContainsHost(address)) ? text : null;
        // The router stands in these lists as the default; what a user put there may lie anywhere.
        string? router = RouterOf(current.Gateway, current.Egress, current.HostAddress)?.ToString();
        IReadOnlyList<string>? KeepAll(string path, IReadOnlyList<string>? texts) =>
            !kept.Contains(path) && texts is [var only] && only == router ? null : texts;
        DhcpDraft dhcp = draft.Dhcp;
        string? start = Keep("dhcpv4.range_start", dhcp.RangeStart), end = Keep("dhcpv4.range_end", dhcp.RangeEnd);
        bool rangeFits = (start is null) == (end is null);
        return draft with
        {
            HostAddress = Keep("ipv4_host_address", draft.HostAddress),
            Gateway = Keep("ipv4_gateway", draft.Gateway),
            Dhcp = dhcp with
            {
                RangeStart = rangeFits || kept.Contains("dhcpv4.range_start") ? start : null,
                RangeEnd = rangeFits || kept.Contains("dhcpv4.range_end") ? end : null,
                ServerAddress = Keep("dhcpv4.server_address", dhcp.ServerAddress),
                DnsServers = KeepAll("dhcpv4.dns_servers", dhcp.DnsServers),
                Routers = KeepAll("dhcpv4.routers", dhcp.Routers),
            },
        };
    }

    /// <summary>Who leads guests out: nat, or a host that forwards; null where nobody does.</summary>
    private static Ipv4Address? RouterOf(Ipv4Address? gateway, NetworkEgress egress, Ipv4Address? host) =>
        gateway ?? (egress is NetworkEgress.Snat or NetworkEgress.Routed ? host : null);

    private static NetworkEgress ReadEgress(NetworkDraft draft)
    {
        if (draft.Egress is < NetworkEgress.Unspecified or > NetworkEgress.Routed)
            throw Refuse.Invalid("EGRESS_INVALID", "the egress must be none, snat or routed", ("field", "egress"));
        if (draft.Egress is NetworkEgress.Snat or NetworkEgress.Routed && draft.Kind != NetworkKind.HostOnly)
            throw Refuse.Invalid("EGRESS_INVALID", "only a host-only network has an egress to set: a nat network leads out by its gateway, a bridged one by the LAN, an isolated one not at all", ("field", "egress"));
        return draft.Egress == NetworkEgress.Unspecified ? NetworkEgress.None : draft.Egress;
    }

    private static bool HasSubnetOfOurs(NetworkKind kind) => kind is NetworkKind.HostOnly or NetworkKind.Nat;

    private static Ipv4Subnet? ReadSubnet(NetworkDraft draft)
    {
        if (string.IsNullOrEmpty(draft.Subnet))
            return null;
        if (draft.Kind == NetworkKind.Bridged)
            throw Refuse.Invalid("SUBNET_INVALID", "a bridged network has the LAN's addresses: its subnet must be empty", ("field", "ipv4_subnet"));
        if (!Ipv4Subnet.TryParse(draft.Subnet, out Ipv4Subnet subnet))
            throw Refuse.Invalid("SUBNET_INVALID", $"'{draft.Subnet}' is not a subnet such as 192.168.108.0/24 (host bits zero)", ("field", "ipv4_subnet"));
        if (subnet.PrefixLength > 29)
            throw Refuse.Invalid("SUBNET_TOO_SMALL", $"{subnet} is too small: the prefix length must be 8 to 29", ("field", "ipv4_subnet"));
        if (subnet.PrefixLength < 8 || IsUnusable(subnet.Network) || IsUnusable(subnet.Broadcast))
            throw Refuse.Invalid("SUBNET_INVALID", $"{subnet} cannot be used: the prefix length must be 8 to 29, and 0/8, 127/8, 169.254/16, 224/4 and 240/4 are set aside", ("field", "ipv4_subnet"));
        return subnet;
    }

    private static bool IsUnusable(Ipv4Address address) => address.IsReserved || address.IsLoopback || address.IsMulticast || address.IsLinkLocal;

    private static Ipv4Subnet ChooseSubnet(IReadOnlyCollection<NetworkDefinition> others, Ipv4Subnet? after)
    {
        const int Count = LastFreeOctet - FirstFreeOctet + 1;
        int start = 0;
        if (after is { } current && current.Network.Value >> 16 == 0xC0A8)
            start = Math.Clamp((int)((current.Network.Value >> 8) & 0xFF) - FirstFreeOctet + 1, 0, Count);
        for (int i = 0; i < Count; i++)
        {
            var candidate = new Ipv4Subnet(new Ipv4Address(0xC0A8_0000u | (uint)((FirstFreeOctet + ((start + i) % Count)) << 8)), 24);
            if (candidate != after && !others.Any(other => other.Subnet is { } taken && taken.Overlaps(candidate)))
                return candidate;
        }
        throw Refuse.NoFreeSubnet();
    }

    private static void CheckOverlap(string id, Ipv4Subnet? subnet, IReadOnlyCollection<NetworkDefinition> others)
    {
        foreach (NetworkDefinition other in others)
        {
            if (subnet is { } wanted && other.Id != id && other.Subnet is { } taken && taken.Overlaps(wanted))
                throw Refuse.SubnetOverlaps(wanted.ToString(), other.Name, taken.ToString());
        }
    }

    private static NetworkDefinition Addresses(NetworkDraft draft, Ipv4Subnet? subnet)
    {
        if (!string.IsNullOrEmpty(draft.Gateway) && draft.Kind != NetworkKind.Nat)
            throw Refuse.Invalid("ADDRESS_CONFLICT", "only a nat network has a gateway: ipv4_gateway must be empty", ("field", "ipv4_gateway"));
        Ipv4Address? Default(bool wanted, Func<Ipv4Subnet, Ipv4Address> address) => wanted && subnet is { } known ? address(known) : null;
        Ipv4Address? host = ReadHost("ipv4_host_address", draft.HostAddress, subnet) ?? Default(HasSubnetOfOurs(draft.Kind), known => known.Network.Add(1));
        Ipv4Address? gateway = ReadHost("ipv4_gateway", draft.Gateway, subnet) ?? Default(draft.Kind == NetworkKind.Nat, known => known.Network.Add(2));
        NetworkEgress egress = ReadEgress(draft);
        DhcpDefinition dhcp = Dhcp(draft, subnet, gateway, RouterOf(gateway, egress, host));
        CheckDistinct(("ipv4_host_address", host), ("ipv4_gateway", gateway), ("dhcpv4.server_address", dhcp.Enabled ? dhcp.ServerAddress : null));
        CheckRange(dhcp, subnet, ("ipv4_host_address", host), ("ipv4_gateway", gateway), ("dhcpv4.server_address", dhcp.ServerAddress));
        return new NetworkDefinition
        {
            Id = draft.Id,
            Kind = draft.Kind,
            Subnet = subnet,
            HostAddress = host,
            Gateway = gateway,
            Egress = egress,
            Dhcp = dhcp,
            IsolatePorts = draft.IsolatePorts,
            Mtu = DefaultMtu,
            MacAgeing = DefaultAgeing,
            MaxMacs = DefaultMaxMacs,
            MaxMacsPerPort = DefaultMaxMacsPerPort,
        };
    }

    private static DhcpDefinition Dhcp(NetworkDraft draft, Ipv4Subnet? subnet, Ipv4Address? gateway, Ipv4Address? leadsOut)
    {
        DhcpDraft dhcp = draft.Dhcp;
        bool enabled = dhcp.Enabled ?? HasSubnetOfOurs(draft.Kind);
        if (enabled && subnet is null)
            throw Refuse.Invalid("DHCP_RANGE_INVALID", "dhcp needs a subnet of the network's own: give one, or leave dhcp off", ("field", "dhcpv4.enabled"));
        TimeSpan lease = dhcp.DefaultLease ?? Min(DefaultLease, dhcp.MaxLease ?? DefaultLease);
        TimeSpan maximum = dhcp.MaxLease ?? Max(DefaultMaxLease, lease);
        if (!IsLease(lease) || !IsLease(maximum) || lease > maximum)
            throw Refuse.Invalid("DHCP_LEASE_INVALID", "leases must be 60 s to 365 days, the default no longer than the maximum", ("field", "dhcpv4.default_lease"));
        (Ipv4Address? start, Ipv4Address? end) = subnet is { } known ? DefaultRange(known) : default;
        if (dhcp.Domain is { Length: > 0 } domain && !DomainPattern().IsMatch(domain))
            throw Refuse.Invalid("DHCP_DOMAIN_INVALID", $"'{domain}' is not a domain name (RFC 1035, 2.3.1)", ("field", "dhcpv4.domain"));
        return new DhcpDefinition
        {
            Enabled = enabled,
            RangeStart = ReadHost("dhcpv4.range_start", dhcp.RangeStart, subnet) ?? start,
            RangeEnd = ReadHost("dhcpv4.range_end", dhcp.RangeEnd, subnet) ?? end,
            ServerAddress = ReadHost("dhcpv4.server_address", dhcp.ServerAddress, subnet) ?? subnet?.Broadcast.Add(-1),
            DefaultLease = lease,
            MaxLease = maximum,
            Domain = dhcp.Domain ?? "",
            DnsServers = ReadList("dhcpv4.dns_servers", dhcp.DnsServers) ?? (gateway is { } dns ? [dns] : []),
            Routers = ReadList("dhcpv4.routers", dhcp.Routers) ?? (leadsOut is { } router ? [router] : []),
        };
    }

    /// <summary>.128 to .253 of a /24; else the upper half without its last two addresses, at least one address.</summary>
    private static (Ipv4Address? Start, Ipv4Address? End) DefaultRange(Ipv4Subnet subnet) =>
        (subnet.Network.Add((int)(subnet.Size / 2)), subnet.Broadcast.Add(-2));

    private static void CheckRange(DhcpDefinition dhcp, Ipv4Subnet? subnet, params ReadOnlySpan<(string Field, Ipv4Address? Address)> set)
    {
        if (subnet is null || dhcp.RangeStart is not { } start || dhcp.RangeEnd is not { } end)
            return;
        if (start > end)
            throw Refuse.Invalid("DHCP_RANGE_INVALID", $"the range {start} to {end} runs backwards", ("field", "dhcpv4.range_start"));
        foreach ((string field, Ipv4Address? address) in set)
        {
            if (dhcp.Enabled && address is { } taken && taken >= start && taken <= end)
                throw Refuse.Invalid("DHCP_RANGE_INVALID", $"{field} {taken} lies in the range {start} to {end}, from which it would be given to a guest", ("field", field));
        }
    }

    private static void CheckDistinct(params ReadOnlySpan<(string Field, Ipv4Address? Address)> set)
    {
        for (int i = 0; i < set.Length; i++)
        {
            for (int j = i + 1; j < set.Length; j++)
            {
                if (set[i].Address is { } address && address == set[j].Address)
                    throw Refuse.Invalid("ADDRESS_CONFLICT", $"{set[i].Field} and {set[j].Field} are both {address}; they must differ", ("field", set[j].Field));
            }
        }
    }

    private static Ipv4Address? ReadHost(string field, string? text, Ipv4Subnet? subnet)
    {
        if (string.IsNullOrEmpty(text))
            return null;
        if (!Ipv4Address.TryParse(text, out Ipv4Address address))
            throw Refuse.Invalid("ADDRESS_INVALID", $"{field}: '{text}' is not an IPv4 address", ("field", field));
        if (subnet is not { } inside || !inside.Contains(address))
            throw Refuse.Invalid("ADDRESS_OUTSIDE_SUBNET", subnet is null ? $"{field}: the network has no subnet" : $"{field}: {address} is not in {subnet}", ("field", field));
        if (!inside.ContainsHost(address))
            throw Refuse.Invalid("ADDRESS_RESERVED", $"{field}: {address} is the network's or the broadcast address of {inside}", ("field", field));
        return address;
    }

    private static List<Ipv4Address>? ReadList(string field, IReadOnlyList<string>? texts)
    {
        if (texts is null || texts.Count == 0)
            return null;
        if (texts.Count > MaxListedAddresses)
            throw Refuse.Invalid("ADDRESS_INVALID", $"{field}: at most {MaxListedAddresses} addresses", ("field", field));
        var addresses = new List<Ipv4Address>(texts.Count);
        foreach (string text in texts)
        {
            if (!Ipv4Address.TryParse(text, out Ipv4Address address) || address.IsReserved || address.IsMulticast)
                throw Refuse.Invalid("ADDRESS_INVALID", $"{field}: '{text}' is not the IPv4 address of a host", ("field", field));
            addresses.Add(address);
        }
        return addresses;
    }

    private static int InRange(long value, int minimum, int maximum, string reason, string what) =>
        value >= minimum && value <= maximum ? (int)value : throw Refuse.Invalid(reason, $"{what} must be {minimum} to {maximum}, not {value}");

    private static bool IsLease(TimeSpan time) => time >= TimeSpan.FromSeconds(60) && time <= TimeSpan.FromDays(365);

    private static TimeSpan Min(TimeSpan one, TimeSpan other) => one < other ? one : other;

    private static TimeSpan Max(TimeSpan one, TimeSpan other) => one > other ? one : other;

    [GeneratedRegex(@"\A[a-z]([a-z0-9-]{0,13}[a-z0-9])?\z")]
    private static partial Regex IdPattern();

    [GeneratedRegex(@"\A(?=.{1,253}\z)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\z")]
    private static partial Regex DomainPattern();
}
