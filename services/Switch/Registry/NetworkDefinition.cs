using VNetMesh.Packets;

namespace VNetMesh.Switch.Registry;

/// <summary>What a network is for. The numbers are those of the stored form.</summary>
public enum NetworkKind
{
    Unspecified = 0,
    Bridged = 1,
    HostOnly = 2,
    Nat = 3,
    Isolated = 4,
}

/// <summary>What leads out of a host-only network by way of the host. The numbers are those of the stored form.</summary>
public enum NetworkEgress
{
    Unspecified = 0,
    None = 1,
    Snat = 2,
    Routed = 3,
}

/// <summary>How a bridged network is joined to its NIC. The numbers are those of the stored form.</summary>
public enum UplinkDriver
{
    Unspecified = 0,
    Tc = 1,
    Pcap = 2,
}

/// <summary>A network as it is: complete, and accepted by <see cref="NetworkPlanner"/>.</summary>
public sealed record NetworkDefinition
{
    public required string Id { get; init; }

    public required NetworkKind Kind { get; init; }

    /// <summary>Absent on bridged networks, and on isolated ones that have no addresses of ours.</summary>
    public Ipv4Subnet? Subnet { get; init; }

    /// <summary>The subnet was chosen by us, and may be replaced.</summary>
    public bool SubnetAuto { get; init; }

    public Ipv4Address? HostAddress { get; init; }

    /// <summary>NAT networks only.</summary>
    public Ipv4Address? Gateway { get; init; }

    /// <summary>None but on host-only networks.</summary>
    public NetworkEgress Egress { get; init; } = NetworkEgress.None;

    /// <summary>A /64; absent where the network has no IPv6 of ours.</summary>
    public Ipv6Prefix? Ipv6Prefix { get; init; }

    /// <summary>The NIC, or <see cref="NetworkPlanner.AutoUplink"/>; empty where there is none, and on networks that are not bridged.</summary>
    public string Uplink { get; init; } = "";

    /// <summary>Unspecified on networks that are not bridged.</summary>
    public UplinkDriver UplinkDriver { get; init; }

    /// <summary>576 to 65535.</summary>
    public required int Mtu { get; init; }

    public required DhcpDefinition Dhcp { get; init; }

    public required TimeSpan MacAgeing { get; init; }

    public required int MaxMacs { get; init; }

    public required int MaxMacsPerPort { get; init; }

    public bool IsolatePorts { get; init; }

    public ulong Revision { get; init; }

    public DateTimeOffset CreateTime { get; init; }

    /// <summary>What stands in its way, in plain words. Not stored.</summary>
    public IReadOnlyList<string> Conditions { get; init; } = [];

    /// <summary>"networks/vmnet8"</summary>
    public string Name => Prefix + Id;

    public const string Prefix = "networks/";
}

/// <summary>What dhcp serves on a network. Addresses are absent where the network has no subnet.</summary>
public sealed record DhcpDefinition
{
    public bool Enabled { get; init; }

    public Ipv4Address? RangeStart { get; init; }

    public Ipv4Address? RangeEnd { get; init; }

    public Ipv4Address? ServerAddress { get; init; }

    public required TimeSpan DefaultLease { get; init; }

    public required TimeSpan MaxLease { get; init; }

    public string Domain { get; init; } = "";

    public IReadOnlyList<Ipv4Address> DnsServers { get; init; } = [];

    public IReadOnlyList<Ipv4Address> Routers { get; init; } = [];
}

/// <summary>A network as someone wants it: texts not yet understood, and null or empty for what is to be filled in.</summary>
public sealed record NetworkDraft
{
    public string Id { get; init; } = "";

    public NetworkKind Kind { get; init; }

    public string? Subnet { get; init; }

    public bool SubnetAuto { get; init; }

    public string? HostAddress { get; init; }

    public string? Gateway { get; init; }

    public NetworkEgress Egress { get; init; }

    /// <summary>A prefix, or <see cref="NetworkPlanner.AutoPrefix"/>.</summary>
    public string? Ipv6Prefix { get; init; }

    public string? Uplink { get; init; }

    public UplinkDriver UplinkDriver { get; init; }

    /// <summary>0: filled in.</summary>
    public long Mtu { get; init; }

    public DhcpDraft Dhcp { get; init; } = new();

    public TimeSpan? MacAgeing { get; init; }

    /// <summary>0: filled in.</summary>
    public long MaxMacs { get; init; }

    /// <summary>0: filled in.</summary>
    public long MaxMacsPerPort { get; init; }

    public bool IsolatePorts { get; init; }

    /// <summary>The draft of a network as it is, to be changed in places.</summary>
    public static NetworkDraft From(NetworkDefinition network) => new()
    {
        Id = network.Id,
        Kind = network.Kind,
        Subnet = network.Subnet?.ToString(),
        SubnetAuto = network.SubnetAuto,
        HostAddress = network.HostAddress?.ToString(),
        Gateway = network.Gateway?.ToString(),
        Egress = network.Egress,
        Ipv6Prefix = network.Ipv6Prefix?.ToString(),
        Uplink = network.Uplink,
        UplinkDriver = network.UplinkDriver,
        Mtu = network.Mtu,
        Dhcp = DhcpDraft.From(network.Dhcp),
        MacAgeing = network.MacAgeing,
        MaxMacs = network.MaxMacs,
        MaxMacsPerPort = network.MaxMacsPerPort,
        IsolatePorts = network.IsolatePorts,
    };
}

public sealed record DhcpDraft
{
    /// <summary>Null: on for host-only and NAT networks.</summary>
    public bool? Enabled { get; init; }

    public string? RangeStart { get; init; }

    public string? RangeEnd { get; init; }

    public string? ServerAddress { get; init; }

    public TimeSpan? DefaultLease { get; init; }

    public TimeSpan? MaxLease { get; init; }

    public string? Domain { get; init; }

    public IReadOnlyList<string>? DnsServers { get; init; }

    public IReadOnlyList<string>? Routers { get; init; }

    internal static DhcpDraft From(DhcpDefinition dhcp) => new()
    {
        Enabled = dhcp.Enabled,
        RangeStart = dhcp.RangeStart?.ToString(),
        RangeEnd = dhcp.RangeEnd?.ToString(),
        ServerAddress = dhcp.ServerAddress?.ToString(),
        DefaultLease = dhcp.DefaultLease,
        MaxLease = dhcp.MaxLease,
        Domain = dhcp.Domain,
        DnsServers = [.. dhcp.DnsServers.Select(address => address.ToString())],
        Routers = [.. dhcp.Routers.Select(address => address.ToString())],
    };
}
