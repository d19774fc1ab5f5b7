using System.Text.Json;

namespace VNetMesh.EndToEnd.Tests.Harness;

/// <summary>Reads {run}/supervisor.json.</summary>
internal static class SupervisorFile
{
    /// <summary>Process ids by service; zero for one that is not running.</summary>
    public static Dictionary<string, int> ProcessIds(JsonElement root)
    {
        JsonElement services = root.GetProperty("services");
        return services.EnumerateArray().ToDictionary(
            service => service.GetProperty("name").GetString()!,
            service => service.TryGetProperty("pid", out JsonElement pid) && pid.ValueKind == JsonValueKind.Number ? pid.GetInt32() : 0);
    }
}
