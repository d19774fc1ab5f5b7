using System.Globalization;
using YamlDotNet.Core;
using YamlDotNet.RepresentationModel;

namespace VNetMesh.Switch.Registry;

/// <summary>The file cannot be understood; nothing of it is used.</summary>
public sealed class DeclarationException(string message) : Exception(message);

/// <summary>A network that vnetmesh.yaml declares: which fields it sets, and how.</summary>
/// <param name="Line">Where it begins in the file.</param>
/// <param name="Fields">Paths of the fields, named as in switch.proto.</param>
public sealed record DeclaredNetwork(string Id, long Line, IReadOnlySet<string> Fields, Func<NetworkDraft, NetworkDraft> Apply);

/// <summary>
/// Reads vnetmesh.yaml. docs/vnetmesh.yaml.md describes it: a mapping "networks" of ids to the fields of Network in
/// switch.proto, under the same names. A key that is not known is an error, so that a misspelt one is not lost silently.
/// </summary>
public static class Declarations
{
    public const long MaxFileSize = 1024 * 1024;

    private delegate NetworkDraft Setter(NetworkDraft draft, YamlNode value);

    private static readonly Dictionary<string, Setter> NetworkFields = new(StringComparer.Ordinal)
    {
        ["kind"] = (draft, value) => draft with { Kind = Kind(value) },
        ["ipv4_subnet"] = (draft, value) => draft with { Subnet = Text(value) },
        ["ipv4_host_address"] = (draft, value) => draft with { HostAddress = Text(value) },
        ["ipv4_gateway"] = (draft, value) => draft with { Gateway = Text(value) },
        ["egress"] = (draft, value) => draft with { Egress = Egress(value) },
        ["ipv6_prefix"] = (draft, value) => Text(value) == NetworkPlanner.AutoPrefix && !string.IsNullOrEmpty(draft.Ipv6Prefix) ? draft : draft with { Ipv6Prefix = Text(value) },
        ["mtu"] = (draft, value) => draft with { Mtu = Number(value) },
        ["mac_ageing"] = (draft, value) => draft with { MacAgeing = Time(value) },
        ["max_macs"] = (draft, value) => draft with { MaxMacs = Number(value) },
        ["max_macs_per_port"] = (draft, value) => draft with { MaxMacsPerPort = Number(value) },
        ["isolate_ports"] = (draft, value) => draft with { IsolatePorts = Truth(value) },
    };

    private static readonly Dictionary<string, Setter> DhcpFields = new(StringComparer.Ordinal)
    {
        ["enabled"] = (draft, value) => draft with { Dhcp = draft.Dhcp with { Enabled = Truth(value) } },
        ["range_start"] = (draft, value) => draft with { Dhcp = draft.Dhcp with { RangeStart = Text(value) } },
        ["range_end"] = (draft, value) => draft with { Dhcp = draft.Dhcp with { RangeEnd = Text(value) } },
        ["server_address"] = (draft, value) => draft with { Dhcp = draft.Dhcp with { ServerAddress = Text(value) } },
        ["default_lease"] = (draft, value) => draft with { Dhcp = draft.Dhcp with { DefaultLease = Time(value) } },
        ["max_lease"] = (draft, value) => draft with { Dhcp = draft.Dhcp with { MaxLease = Time(value) } },
        ["domain"] = (draft, value) => draft with { Dhcp = draft.Dhcp with { Domain = Text(value) } },
        ["dns_servers"] = (draft, value) => draft with { Dhcp = draft.Dhcp with { DnsServers = Texts(value) } },
        ["routers"] = (draft, value) => draft with { Dhcp = draft.Dhcp with { Routers = Texts(value) } },
    };

    /// <exception cref="DeclarationException">With the line, where there is one.</exception>
    public static IReadOnlyList<DeclaredNetwork> Parse(string yaml)
    {
        var stream = new YamlStream();
        try
        {
            stream.Load(new StringReader(yaml));
        }
        catch (YamlException exception)
        {
            throw new DeclarationException($"line {exception.Start.Line}: {exception.InnerException?.Message ?? exception.Message}");
        }
        if (stream.Documents.Count == 0)
            return [];
        var networks = new List<DeclaredNetwork>();
        foreach ((string key, YamlNode value) in Entries(stream.Documents[0].RootNode))
        {
            if (key != "networks")
                throw Bad(value, $"'{key}' is not known here; the file has one key, 'networks'");
            foreach ((string id, YamlNode fields) in Entries(value))
                networks.Add(ReadNetwork(id, fields));
        }
        return networks;
    }

    private static DeclaredNetwork ReadNetwork(string id, YamlNode node)
    {
        var fields = new HashSet<string>(StringComparer.Ordinal);
        var setters = new List<Func<NetworkDraft, NetworkDraft>>();
        void Add(string path, Setter setter, YamlNode value)
        {
            // Understood now, so that a mistake is found before anything is changed.
            setter(new NetworkDraft(), value);
            fields.Add(path);
            setters.Add(draft => setter(draft, value));
        }
        foreach ((string key, YamlNode value) in Entries(node))
        {
            if (key != "dhcpv4")
                Add(key, Known(NetworkFields, key, value), value);
            else
            {
                foreach ((string dhcpKey, YamlNode dhcpValue) in Entries(value))
                    Add("dhcpv4." + dhcpKey, Known(DhcpFields, dhcpKey, dhcpValue), dhcpValue);
            }
        }
        return new DeclaredNetwork(id, node.Start.Line, fields, draft => setters.Aggregate(draft, (result, set) => set(result)));
    }

    private static Setter Known(Dictionary<string, Setter> known, string key, YamlNode value) =>
        known.TryGetValue(key, out Setter? setter) ? setter : throw Bad(value, $"'{key}' is not known here; known are {string.Join(", ", known.Keys)}");

    private static IEnumerable<(string Key, YamlNode Value)> Entries(YamlNode node)
    {
        // "networks:" with nothing under it is an empty mapping.
        if (node is YamlScalarNode { Value: "" or null or "~" or "null" })
            yield break;
        if (node is not YamlMappingNode mapping)
            throw Bad(node, "a mapping (key: value) is expected here");
        foreach ((YamlNode key, YamlNode value) in mapping)
            yield return (Text(key), value);
    }

    private static string Text(YamlNode node) => node is YamlScalarNode { Value: { } text } ? text : throw Bad(node, "a single value is expected here");

    private static List<string> Texts(YamlNode node) => node is YamlSequenceNode list ? [.. list.Select(Text)] : throw Bad(node, "a list is expected here");

    private static long Number(YamlNode node) =>
        long.TryParse(Text(node), NumberStyles.None, CultureInfo.InvariantCulture, out long number) ? number : throw Bad(node, $"'{Text(node)}' is not a number");

    private static bool Truth(YamlNode node) => Text(node) switch
    {
        "true" => true,
        "false" => false,
        string other => throw Bad(node, $"'{other}' is neither true nor false"),
    };

    private static NetworkKind Kind(YamlNode node) => Text(node) switch
    {
        "bridged" => NetworkKind.Bridged,
        "host-only" => NetworkKind.HostOnly,
        "nat" => NetworkKind.Nat,
        "isolated" => NetworkKind.Isolated,
        string other => throw Bad(node, $"'{other}' is not a kind: bridged, host-only, nat or isolated"),
    };

    private static NetworkEgress Egress(YamlNode node) => Text(node) switch
    {
        "none" => NetworkEgress.None,
        "snat" => NetworkEgress.Snat,
        "routed" => NetworkEgress.Routed,
        string other => throw Bad(node, $"'{other}' is not an egress: none, snat or routed"),
    };

    /// <summary>A number of seconds, or a number with s, m, h or d.</summary>
    private static TimeSpan Time(YamlNode node)
    {
        string text = Text(node);
        int unit = text.Length == 0 ? 0 : text[^1] switch { 's' => 1, 'm' => 60, 'h' => 3600, 'd' => 86400, >= '0' and <= '9' => -1, _ => 0 };
        if (unit != 0 && int.TryParse(unit < 0 ? text : text[..^1], NumberStyles.None, CultureInfo.InvariantCulture, out int count))
            return TimeSpan.FromSeconds((long)count * Math.Abs(unit));
        throw Bad(node, $"'{text}' is not a time such as 90, 90s, 30m, 2h or 1d");
    }

    private static DeclarationException Bad(YamlNode node, string message) => new($"line {node.Start.Line}: {message}");
}
