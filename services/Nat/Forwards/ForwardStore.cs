using System.Text.Json;
using System.Text.Json.Serialization;
using VNetMesh.Nat.Flows;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Forwards;

/// <summary>
/// The rules on disk: one small JSON file, replaced as a whole (written beside, synced, renamed), so that it is always one
/// state or the next, whenever the process dies.
/// </summary>
public sealed class ForwardStore(string path)
{
    private const int MaxFileLength = 16 * 1024 * 1024;

    /// <exception cref="IOException">The file cannot be read, or is not what this class writes.</exception>
    public List<ForwardRule> Load()
    {
        if (!File.Exists(path))
            return [];
        if (new FileInfo(path).Length > MaxFileLength)
            throw new IOException($"{path} is larger than {MaxFileLength} octets");
        try
        {
            ForwardEntry[] entries = JsonSerializer.Deserialize(File.ReadAllBytes(path), ForwardFormat.Default.ForwardEntryArray) ?? [];
            return [.. entries.Select(entry => new ForwardRule(entry.Network, entry.Id, entry.Protocol, Ipv4Address.Parse(entry.ListenAddress), entry.ListenPort, Ipv4Address.Parse(entry.GuestAddress), entry.GuestPort))];
        }
        catch (Exception exception) when (exception is JsonException or FormatException)
        {
            throw new IOException($"{path} is damaged: {exception.Message}", exception);
        }
    }

    /// <summary>When it returns, the rules are on disk.</summary>
    /// <exception cref="IOException">They could not be written; the former ones are still there.</exception>
    public void Save(IEnumerable<ForwardRule> rules)
    {
        ForwardEntry[] entries = [.. rules.Select(rule => new ForwardEntry(rule.Network, rule.Id, rule.Protocol, rule.ListenAddress.ToString(), rule.ListenPort, rule.GuestAddress.ToString(), rule.GuestPort))];
        string staging = path + ".new";
        using (var file = new FileStream(staging, FileMode.Create, FileAccess.Write, FileShare.None))
        {
            JsonSerializer.Serialize(file, entries, ForwardFormat.Default.ForwardEntryArray);
            file.Flush(flushToDisk: true);
        }
        File.Move(staging, path, overwrite: true);
    }

    /// <summary>Moves the file out of the way, for a person to look at.</summary>
    /// <returns>Where it is now.</returns>
    public string SetAside()
    {
        string aside = path + ".damaged";
        File.Move(path, aside, overwrite: true);
        return aside;
    }
}

/// <summary>A rule as the file has it.</summary>
internal sealed record ForwardEntry(string Network, string Id, FlowProtocol Protocol, string ListenAddress, int ListenPort, string GuestAddress, int GuestPort);

internal sealed class ProtocolNames() : JsonStringEnumConverter<FlowProtocol>(JsonNamingPolicy.SnakeCaseLower);

[JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, Converters = [typeof(ProtocolNames)])]
[JsonSerializable(typeof(ForwardEntry[]))]
internal sealed partial class ForwardFormat : JsonSerializerContext;
