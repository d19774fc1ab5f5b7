using System.Text.Json;
using System.Text.Json.Serialization;

namespace VNetMesh.Cli.Supervision;

/// <summary>What the supervisor tells of itself, in {run}/supervisor.json, replaced by rename at every change.</summary>
internal sealed record SupervisorState(int Pid, long StartTicks, DateTime Started, List<ServiceState> Services)
{
    [JsonIgnore]
    public ProcessIdentity Identity => new(Pid, StartTicks);

    public static string FileIn(string runDirectory) => Path.Combine(runDirectory, "supervisor.json");

    /// <summary>Null: there is none, or it cannot be read.</summary>
    public static SupervisorState? Read(string runDirectory)
    {
        try
        {
            return JsonSerializer.Deserialize(File.ReadAllText(FileIn(runDirectory)), SupervisorJson.Default.SupervisorState);
        }
        catch (Exception exception) when (exception is IOException or JsonException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    public void Write(string runDirectory)
    {
        string file = FileIn(runDirectory);
        File.WriteAllText(file + ".new", JsonSerializer.Serialize(this, SupervisorJson.Default.SupervisorState));
        File.Move(file + ".new", file, overwrite: true);
    }
}

/// <param name="Name">switch, dhcp, nat or agent.</param>
/// <param name="Pid">0: it does not run now.</param>
/// <param name="StartTicks">See <see cref="ProcessIdentity"/>.</param>
/// <param name="Started">When it was started last.</param>
/// <param name="Restarts">Times it was started again after it had ended by itself.</param>
/// <param name="LastExit">How it ended last; null: it has not yet.</param>
internal sealed record ServiceState(string Name, int Pid, long StartTicks, DateTime Started, int Restarts, string? LastExit)
{
    [JsonIgnore]
    public ProcessIdentity Identity => new(Pid, StartTicks);
}

[JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(SupervisorState))]
internal sealed partial class SupervisorJson : JsonSerializerContext;
