using System.Text.Json;
using System.Text.Json.Serialization;
using VNetMesh.Agent.HostChanges;

namespace VNetMesh.Agent.Guests;

/// <summary>The guests that are wanted, on disk.</summary>
public sealed class GuestStore(AgentDatabase database)
{
    public List<GuestSpec> List() =>
        database.Query("SELECT spec FROM guests ORDER BY id", row => JsonSerializer.Deserialize(row.GetString(0), GuestFormat.Default.GuestSpec) ?? throw new InvalidDataException("an empty guest is stored"));

    public void Save(GuestSpec guest) =>
        database.Execute("INSERT INTO guests (id, spec) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET spec = excluded.spec", guest.Id, JsonSerializer.Serialize(guest, GuestFormat.Default.GuestSpec));

    public void Delete(string id) => database.Execute("DELETE FROM guests WHERE id = $1", id);

    /// <summary>Stores a fact and tells what was stored before; null where nothing was.</summary>
    public string? SwapFact(string name, string value)
    {
        string? before = database.Query("SELECT value FROM facts WHERE name = $1", row => row.GetString(0), name).FirstOrDefault();
        database.Execute("INSERT INTO facts (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value", name, value);
        return before;
    }

    public void Clear() => database.Execute("DELETE FROM guests");
}

[JsonSourceGenerationOptions(IgnoreReadOnlyProperties = true)]
[JsonSerializable(typeof(GuestSpec))]
internal sealed partial class GuestFormat : JsonSerializerContext;
