namespace VNetMesh.Declarations;

/// <summary>What a field's value must be.</summary>
internal enum FieldType
{
    Text,
    Texts,
    Number,
    Truth,
    Time,
}

/// <param name="Words">Where not empty, the value is one of these.</param>
internal sealed record FieldRule(FieldType Type, params string[] Words);

/// <summary>Which keys the file may hold. Names are those of the proto files; docs/vnetmesh.yaml.md lists them.</summary>
internal static class Schema
{
    public const string Networks = "networks";
    public const string Guests = "guests";
    public const string Reservations = "reservations";
    public const string Forwards = "forwards";
    public const string Dhcp = "dhcpv4";

    private static readonly FieldRule Text = new(FieldType.Text), Texts = new(FieldType.Texts), Number = new(FieldType.Number), Truth = new(FieldType.Truth), Time = new(FieldType.Time);

    public static readonly Dictionary<string, FieldRule> Network = new(StringComparer.Ordinal)
    {
        ["kind"] = new(FieldType.Text, "bridged", "host-only", "nat", "isolated"),
        ["ipv4_subnet"] = Text,
        ["ipv4_subnet_auto"] = Truth,
        ["ipv4_host_address"] = Text,
        ["ipv4_gateway"] = Text,
        ["egress"] = new(FieldType.Text, "none", "snat", "routed"),
        ["ipv6_prefix"] = Text,
        ["uplink"] = Text,
        ["uplink_driver"] = new(FieldType.Text, "tc", "pcap"),
        ["mtu"] = Number,
        ["mac_ageing"] = Time,
        ["max_macs"] = Number,
        ["max_macs_per_port"] = Number,
        ["isolate_ports"] = Truth,
    };

    public static readonly Dictionary<string, FieldRule> DhcpFields = new(StringComparer.Ordinal)
    {
        ["enabled"] = Truth,
        ["range_start"] = Text,
        ["range_end"] = Text,
        ["server_address"] = Text,
        ["default_lease"] = Time,
        ["max_lease"] = Time,
        ["domain"] = Text,
        ["dns_servers"] = Texts,
        ["routers"] = Texts,
    };

    public static readonly Dictionary<string, FieldRule> Reservation = new(StringComparer.Ordinal)
    {
        ["mac"] = Text,
        ["client_id"] = Text,
        ["ipv4_address"] = Text,
        ["hostname"] = Text,
    };

    public static readonly Dictionary<string, FieldRule> Forward = new(StringComparer.Ordinal)
    {
        ["protocol"] = new(FieldType.Text, "tcp", "udp"),
        ["listen"] = Text,
        ["guest"] = Text,
    };

    public static readonly Dictionary<string, FieldRule> Guest = new(StringComparer.Ordinal)
    {
        ["network"] = Text,
        ["mac"] = Text,
        ["netns"] = Text,
        ["interface"] = Text,
        ["no_dhcp"] = Truth,
    };
}
