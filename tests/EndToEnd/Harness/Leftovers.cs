using System.Globalization;
using System.Text.Json;
using VNetMesh.EndToEnd.Tests.Compose;

namespace VNetMesh.EndToEnd.Tests.Harness;

/// <summary>Removes what a run made: its own at the end, that of dead runs at the start.</summary>
internal static class Leftovers
{
    private static readonly string[] Folders = ["/run", "/var/tmp"];
    private static int _done;

    /// <summary>Removes what earlier runs left, once per process.</summary>
    public static async Task RemoveAsync()
    {
        if (Interlocked.Exchange(ref _done, 1) == 1)
            return;
        IEnumerable<string> names = NetworkNamespace.List().Concat(Folders.SelectMany(folder => Directory.GetDirectories(folder, Instance.NamePrefix + "*")).Select(path => Path.GetFileName(path)));
        foreach (string prefix in names.Where(IsOfDeadRun).Select(name => string.Join('-', name.Split('-').Take(3))).Distinct().ToList())
            await RemoveAsync(prefix);
    }

    /// <summary>Removes everything whose name begins with the prefix of one instance.</summary>
    public static async Task RemoveAsync(string prefix)
    {
        EndSupervisor("/run/" + prefix);
        // Before its namespace is taken away: it would leave containers and mounts behind.
        await DockerEngine.EndAsync($"/var/tmp/{prefix}-scratch/docker");
        foreach (string name in NetworkNamespace.List().Where(name => name.StartsWith(prefix + "-", StringComparison.Ordinal)))
            await NetworkNamespace.DestroyAsync(name);
        foreach (string path in Folders.SelectMany(folder => new[] { Path.Combine(folder, prefix), Path.Combine(folder, prefix + "-scratch") }).Where(Directory.Exists))
        {
            Directory.Delete(path, recursive: true);
        }
    }

    private static bool IsOfDeadRun(string name)
    {
        string[] parts = name.Split('-');
        return parts.Length >= 3 && parts[0] + "-" == Instance.NamePrefix
            && int.TryParse(parts[1], CultureInfo.InvariantCulture, out int process) && !Directory.Exists("/proc/" + parts[1]) && process > 1;
    }

    /// <summary>Ends the supervisor that the run directory names, and its services, provided they still are what the file says.</summary>
    private static void EndSupervisor(string runDirectory)
    {
        string file = Path.Combine(runDirectory, "supervisor.json");
        if (!File.Exists(file))
            return;
        try
        {
            using JsonDocument document = JsonDocument.Parse(File.ReadAllText(file));
            int[] processes = [document.RootElement.GetProperty("pid").GetInt32(), .. SupervisorFile.ProcessIds(document.RootElement).Values];
            foreach (int process in processes.Where(process => process > 1 && BelongsTo(process, runDirectory)))
                NetworkNamespace.Kill(process, 9);
        }
        catch (Exception exception) when (exception is JsonException or KeyNotFoundException or IOException or InvalidOperationException)
        {
            // Not a file that we understand; the namespaces' processes are ended by namespace.
        }
    }

    /// <summary>A process id may have been given out again: only one whose environment names the run directory is ours.</summary>
    private static bool BelongsTo(int process, string runDirectory)
    {
        try
        {
            return File.ReadAllText($"/proc/{process.ToString(CultureInfo.InvariantCulture)}/environ").Split('\0').Contains("VNETMESH_RUN_DIR=" + runDirectory);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }
}
