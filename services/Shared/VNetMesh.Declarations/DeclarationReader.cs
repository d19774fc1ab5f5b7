using System.Globalization;
using YamlDotNet.Core;
using YamlDotNet.RepresentationModel;

namespace VNetMesh.Declarations;

/// <summary>
/// Reads vnetmesh.yaml for all who use it: the switch at its start, and `vnet apply`. A key that is not known is an error, so
/// that a misspelt one is not lost silently.
/// </summary>
public static class DeclarationReader
{
    /// <summary>Octets.</summary>
    public const long MaxFileSize = 1024 * 1024;

    /// <exception cref="DeclarationException">With the line, where there is one.</exception>
    public static DeclarationFile Parse(string yaml)
    {
        RefuseTabs(yaml);
        var stream = new YamlStream();
        try
        {
            stream.Load(new StringReader(yaml));
        }
        catch (YamlException exception)
        {
            throw new DeclarationException($"line {exception.End.Line}: {exception.InnerException?.Message ?? exception.Message}");
        }
        var networks = new List<NetworkDeclaration>();
        var guests = new List<DeclaredItem>();
        if (stream.Documents.Count == 0)
            return new DeclarationFile(networks, guests);
        foreach ((string key, YamlNode name, YamlNode value) in Entries(stream.Documents[0].RootNode))
        {
            if (key == Schema.Networks)
                networks.AddRange(Entries(value).Select(entry => ReadNetwork(entry.Key, entry.Name, entry.Value)));
            else if (key == Schema.Guests)
                guests.AddRange(ReadItems(value, Schema.Guest));
            else
                throw Unknown(name, key, [Schema.Networks, Schema.Guests]);
        }
        return new DeclarationFile(networks, guests);
    }

    /// <summary>The commonest mistake of all, of which a parser of YAML says little that helps (YAML 1.2, 6.1).</summary>
    private static void RefuseTabs(string yaml)
    {
        int number = 0;
        foreach (ReadOnlySpan<char> line in yaml.AsSpan().EnumerateLines())
        {
            number++;
            ReadOnlySpan<char> indentation = line[..^line.TrimStart().Length];
            if (indentation.Contains('\t') && !line.TrimStart().IsEmpty && !line.TrimStart().StartsWith('#'))
                throw new DeclarationException($"line {number}: a tab indents this line: write spaces");
        }
    }

    private static NetworkDeclaration ReadNetwork(string id, YamlNode name, YamlNode node)
    {
        var fields = new List<DeclaredField>();
        List<DeclaredItem> reservations = [], forwards = [];
        foreach ((string key, YamlNode keyNode, YamlNode value) in Entries(node))
        {
            switch (key)
            {
                case Schema.Dhcp:
                    fields.AddRange(Entries(value).Select(entry => ReadField(Schema.DhcpFields, entry, Schema.Dhcp + ".")));
                    break;
                case Schema.Reservations:
                    reservations = ReadItems(value, Schema.Reservation);
                    break;
                case Schema.Forwards:
                    forwards = ReadItems(value, Schema.Forward);
                    break;
                default:
                    if (!Schema.Network.ContainsKey(key))
                        throw Unknown(keyNode, key, [.. Schema.Network.Keys, Schema.Dhcp, Schema.Reservations, Schema.Forwards]);
                    fields.Add(ReadField(Schema.Network, (key, keyNode, value), ""));
                    break;
            }
        }
        return new NetworkDeclaration(new DeclaredItem(id, name.Start.Line, fields), reservations, forwards);
    }

    private static List<DeclaredItem> ReadItems(YamlNode node, Dictionary<string, FieldRule> rules) =>
        [.. Entries(node).Select(entry => new DeclaredItem(entry.Key, entry.Name.Start.Line, [.. Entries(entry.Value).Select(field => ReadField(rules, field, ""))]))];

    private static DeclaredField ReadField(Dictionary<string, FieldRule> rules, (string Key, YamlNode Name, YamlNode Value) entry, string prefix)
    {
        if (!rules.TryGetValue(entry.Key, out FieldRule? rule))
            throw Unknown(entry.Name, entry.Key, rules.Keys);
        object value = rule.Type switch
        {
            FieldType.Texts => Texts(entry.Value),
            FieldType.Number => Number(entry.Value),
            FieldType.Truth => Truth(entry.Value),
            FieldType.Time => Time(entry.Value),
            _ => Text(entry.Value),
        };
        if (rule.Words.Length > 0 && !rule.Words.Contains((string)value))
            throw Bad(entry.Value, $"'{value}' is not a value of {entry.Key}: write {string.Join(", ", rule.Words[..^1])} or {rule.Words[^1]}");
        return new DeclaredField(prefix + entry.Key, value, entry.Name.Start.Line);
    }

    private static IEnumerable<(string Key, YamlNode Name, YamlNode Value)> Entries(YamlNode node)
    {
        // "networks:" with nothing under it is an empty mapping.
        if (node is YamlScalarNode { Value: "" or null or "~" or "null" })
            yield break;
        if (node is not YamlMappingNode mapping)
            throw Bad(node, "a mapping is expected here: write lines of 'key: value', indented by two spaces");
        foreach ((YamlNode key, YamlNode value) in mapping)
            yield return (Text(key), key, value);
    }

    private static string Text(YamlNode node) => node is YamlScalarNode { Value: { } text } ? text : throw Bad(node, "a single value is expected here");

    private static string[] Texts(YamlNode node) => node is YamlSequenceNode list ? [.. list.Select(Text)] : throw Bad(node, "a list is expected here: write [one, another]");

    private static long Number(YamlNode node) =>
        long.TryParse(Text(node), NumberStyles.None, CultureInfo.InvariantCulture, out long number) ? number : throw Bad(node, $"'{Text(node)}' is not a number: write digits alone");

    private static bool Truth(YamlNode node) => Text(node) switch
    {
        "true" => true,
        "false" => false,
        string other => throw Bad(node, $"'{other}' is neither true nor false: write one of these"),
    };

    /// <summary>A number of seconds, or a number with s, m, h or d.</summary>
    private static TimeSpan Time(YamlNode node)
    {
        string text = Text(node);
        int unit = text.Length == 0 ? 0 : text[^1] switch { 's' => 1, 'm' => 60, 'h' => 3600, 'd' => 86400, >= '0' and <= '9' => -1, _ => 0 };
        if (unit != 0 && int.TryParse(unit < 0 ? text : text[..^1], NumberStyles.None, CultureInfo.InvariantCulture, out int count))
            return TimeSpan.FromSeconds((long)count * Math.Abs(unit));
        throw Bad(node, $"'{text}' is not a time: write one such as 90, 90s, 30m, 2h or 1d");
    }

    private static DeclarationException Unknown(YamlNode node, string key, IEnumerable<string> known)
    {
        string[] all = [.. known];
        string nearest = all.MinBy(word => Distance(key, word))!;
        string hint = Distance(key, nearest) <= 2 ? $"did you mean '{nearest}'?" : $"known are {string.Join(", ", all)}";
        return Bad(node, $"'{key}' is not known here; {hint}");
    }

    /// <summary>Levenshtein's.</summary>
    private static int Distance(string one, string other)
    {
        int[] row = [.. Enumerable.Range(0, other.Length + 1)];
        for (int i = 1; i <= one.Length; i++)
        {
            int diagonal = row[0];
            row[0] = i;
            for (int j = 1; j <= other.Length; j++)
            {
                int changed = diagonal + (one[i - 1] == other[j - 1] ? 0 : 1);
                diagonal = row[j];
                row[j] = Math.Min(changed, Math.Min(row[j], row[j - 1]) + 1);
            }
        }
        return row[^1];
    }

    private static DeclarationException Bad(YamlNode node, string message) => new($"line {node.Start.Line}: {message}");
}
