using Google.Protobuf;
using Google.Protobuf.Reflection;
using Google.Protobuf.WellKnownTypes;
using VNetMesh.Declarations;
using VNetMesh.V1;

namespace VNetMesh.Cli.Apply;

/// <summary>A declared network as the message that the switch takes; fields are found by the names that they have in switch.proto.</summary>
internal static class NetworkPlan
{
    /// <summary>What says nothing about the network itself.</summary>
    private static readonly HashSet<string> NotCompared = ["name", "revision", "create_time", "counters", "conditions"];

    private static readonly Dictionary<string, NetworkKind> Kinds = new() { ["bridged"] = NetworkKind.Bridged, ["host-only"] = NetworkKind.HostOnly, ["nat"] = NetworkKind.Nat, ["isolated"] = NetworkKind.Isolated };

    private static readonly Dictionary<string, NetworkEgress> Egresses = new() { ["none"] = NetworkEgress.None, ["snat"] = NetworkEgress.Snat, ["routed"] = NetworkEgress.Routed };

    private static readonly Dictionary<string, UplinkDriver> Drivers = new() { ["tc"] = UplinkDriver.Tc, ["pcap"] = UplinkDriver.Pcap };

    /// <returns>The message, and the mask of what the file sets.</returns>
    public static (Network Network, FieldMask Mask) ToMessage(DeclaredItem declared)
    {
        var network = new Network { Name = "networks/" + declared.Id };
        foreach (DeclaredField field in declared.Fields)
            Set(network, field.Path, field.Value);
        // As the command line does: who says how DHCP is to be wants DHCP.
        if (network.Dhcpv4 is not null && declared.Fields.All(field => field.Path != "dhcpv4.enabled"))
            network.Dhcpv4.Enabled = true;
        return (network, new FieldMask { Paths = { declared.Fields.Select(field => field.Path) } });
    }

    /// <summary>"mtu: 1500 → 9000" for each field that differs.</summary>
    public static List<string> Differences(Network before, Network after) => [.. Differences(before, after, "")];

    /// <summary>"mtu: 9000" for each field that is set.</summary>
    public static List<string> Fields(Network network) => [.. Differences(new Network { Dhcpv4 = new Dhcpv4Settings() }, network, "").Select(line => line.Replace("(none) → ", "", StringComparison.Ordinal))];

    private static IEnumerable<string> Differences(IMessage before, IMessage after, string prefix)
    {
        foreach (FieldDescriptor field in after.Descriptor.Fields.InFieldNumberOrder().Where(field => prefix.Length > 0 || !NotCompared.Contains(field.Name)))
        {
            object? one = field.Accessor.GetValue(before), other = field.Accessor.GetValue(after);
            if (other is Dhcpv4Settings settings)
            {
                foreach (string line in Differences((IMessage?)one ?? new Dhcpv4Settings(), settings, field.Name + "."))
                    yield return line;
            }
            else if (Show(one) is var was && Show(other) is var now && was != now)
            {
                yield return $"{prefix}{field.Name}: {(was.Length == 0 ? "(none)" : was)} → {(now.Length == 0 ? "(none)" : now)}";
            }
        }
    }

    private static string Show(object? value) => value switch
    {
        null or NetworkKind.Unspecified or NetworkEgress.Unspecified or UplinkDriver.Unspecified => "",
        UplinkDriver driver => Drivers.First(pair => pair.Value == driver).Key,
        NetworkKind kind => Kinds.First(pair => pair.Value == kind).Key,
        NetworkEgress egress => Egresses.First(pair => pair.Value == egress).Key,
        Duration time => Yaml.Time(time.ToTimeSpan()),
        System.Collections.IEnumerable list and not string => string.Join(", ", list.Cast<object>()),
        bool truth => truth ? "true" : "false",
        uint and 0u => "",
        _ => string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{value}"),
    };

    private static void Set(IMessage message, string path, object value)
    {
        int dot = path.IndexOf('.', StringComparison.Ordinal);
        FieldDescriptor field = message.Descriptor.FindFieldByName(dot < 0 ? path : path[..dot]) ?? throw new InvalidOperationException($"there is no field {path}");
        if (dot >= 0)
        {
            if (field.Accessor.GetValue(message) is not IMessage inner)
                field.Accessor.SetValue(message, inner = new Dhcpv4Settings());
            Set(inner, path[(dot + 1)..], value);
        }
        else if (field.IsRepeated)
        {
            foreach (string item in (IReadOnlyList<string>)value)
                ((System.Collections.IList)field.Accessor.GetValue(message)).Add(item);
        }
        else
        {
            field.Accessor.SetValue(message, (field.FieldType, field.Name, value) switch
            {
                (_, "kind", string word) => Kinds[word],
                (_, "egress", string word) => Egresses[word],
                (_, "uplink", "none") => "",
                (_, "uplink_driver", string word) => Drivers[word],
                (FieldType.UInt32, _, long number) => (uint)Math.Min(number, uint.MaxValue),
                (_, _, TimeSpan time) => Duration.FromTimeSpan(time),
                _ => value,
            });
        }
    }
}
