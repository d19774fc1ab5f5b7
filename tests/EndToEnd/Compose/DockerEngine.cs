using System.Globalization;
using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests.Compose;

/// <summary>
/// A Docker engine of the test's own: its data, its sockets and its network namespace (an instance's host) are apart from
/// those of any other engine. It has no bridge and sets no rule.
/// </summary>
internal sealed class DockerEngine : IAsyncDisposable
{
    public const string Project = "vnetmesh";

    // Ends the engine, and so its containers, also when the test is killed: in a session of its own, so that what ends the test does not end this first.
    private const string Guard = """
        test=$1; shift
        "$@" & engine=$!
        trap 'kill $engine' TERM
        while kill -0 "$test" 2>/dev/null && kill -0 $engine 2>/dev/null; do sleep 1; done
        kill $engine 2>/dev/null
        wait $engine
        """;

    private readonly string _directory;
    private readonly BackgroundCommand _guard;
    private readonly Dictionary<string, string> _environment;

    private DockerEngine(string directory, BackgroundCommand guard, IReadOnlyDictionary<string, string> settings)
    {
        (_directory, _guard) = (directory, guard);
        _environment = new(settings) { ["DOCKER_HOST"] = Address, ["COMPOSE_PROJECT_NAME"] = Project };
    }

    /// <summary>Short: the names of the run volume's sockets must stay below 108 octets.</summary>
    public string DataRoot => _directory + "/data";

    /// <summary>For DOCKER_HOST.</summary>
    public string Address => "unix://" + Socket;

    private string Socket => _directory + "/docker.sock";

    /// <summary>Skips the test where no engine can be started.</summary>
    public static async Task<DockerEngine> StartAsync(string directory, NetworkNamespace host, IReadOnlyDictionary<string, string> settings)
    {
        Directory.CreateDirectory(directory);
        // By nsenter: `ip netns exec` would hide the mounted cgroups behind a new /sys.
        BackgroundCommand guard = BackgroundCommand.Start("setsid", "sh", "-c", Guard, "guard", Environment.ProcessId.ToString(CultureInfo.InvariantCulture),
            "nsenter", "--net=" + host.Path, "dockerd", "--data-root", directory + "/data", "--exec-root", directory + "/exec",
            "--pidfile", PidFile(directory), "--host", $"unix://{directory}/docker.sock", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--bridge=none");
        var engine = new DockerEngine(directory, guard, settings);
        for (int i = 0; i < 100; i++)
        {
            if (File.Exists(engine.Socket) && (await engine.DockerAsync("version")).ExitCode == 0)
                return engine;
            if (guard.HasExited)
                break;
            await Task.Delay(200);
        }
        string said = guard.Output.TrimEnd().Split('\n')[^1];
        await engine.DisposeAsync();
        Assert.Skip("dockerd does not start here: " + said);
        return engine;
    }

    public Task<CommandResult> DockerAsync(params string[] arguments) => Command.RunAsync(TimeSpan.FromMinutes(2), ["docker", .. arguments], _environment);

    public Task<CommandResult> ComposeAsync(TimeSpan limit, params string[] arguments) =>
        Command.RunAsync(limit, ["docker-compose", "--project-directory", Repository.Root, "--file", System.IO.Path.Combine(Repository.Root, "compose.yaml"), "--ansi", "never", .. arguments], _environment);

    /// <summary>The command line in the agent's container.</summary>
    public async Task<CommandResult> VnetAsync(params string[] arguments) => await DockerAsync(["exec", await ContainerOfAsync("agent"), "vnet", .. arguments]);

    /// <summary>The process id, on the host, of a container's first process; 0: it does not run.</summary>
    public async Task<int> ProcessIdAsync(string container) =>
        int.Parse((await DockerAsync("inspect", "--format", "{{.State.Pid}}", container)).EnsureSuccess().Output, CultureInfo.InvariantCulture);

    /// <summary>By its label: how Compose builds the name depends on its version.</summary>
    public async Task<string> ContainerOfAsync(string service) =>
        (await DockerAsync("ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project=" + Project, "--filter", "label=com.docker.compose.service=" + service)).EnsureSuccess().Output.Trim();

    public async ValueTask DisposeAsync()
    {
        await EndAsync(_directory);
        await _guard.DisposeAsync();
        await Command.RunAsync(TimeSpan.FromMinutes(1), ["rm", "-rf", "--one-file-system", _directory]);
    }

    /// <summary>Ends the engine that has its data in the directory, if there is one, with all that it runs and mounts. Of a test that was killed, too.</summary>
    public static async Task EndAsync(string directory)
    {
        if (int.TryParse(await ReadAsync(PidFile(directory)), CultureInfo.InvariantCulture, out int process) && IsEngine(process))
        {
            // It ends its containers and containerd, and unmounts what it mounted.
            NetworkNamespace.Kill(process, 15);
            for (int i = 0; i < 600 && IsEngine(process); i++)
                await Task.Delay(100);
            if (IsEngine(process))
                NetworkNamespace.Kill(process, 9);
        }
        foreach (int left in Containers(directory))
            NetworkNamespace.Kill(left, 9);
        foreach (string mount in File.ReadLines("/proc/mounts").Select(line => line.Split(' ')[1]).Where(path => path.StartsWith(directory + "/", StringComparison.Ordinal)).Reverse().ToList())
            await Command.RunAsync("umount", "--lazy", mount);

        bool IsEngine(int id) => Read($"/proc/{id.ToString(CultureInfo.InvariantCulture)}/cmdline").Contains("\0" + PidFile(directory) + "\0", StringComparison.Ordinal);
    }

    /// <summary>Processes of containers that outlived their engine, by their control groups, and the shims above them.</summary>
    private static List<int> Containers(string directory)
    {
        string containers = directory + "/data/containers";
        string[] ids = Directory.Exists(containers) ? [.. Directory.GetDirectories(containers).Select(path => System.IO.Path.GetFileName(path))] : [];
        if (ids.Length == 0)
            return [];
        return [.. Directory.GetDirectories("/proc").Where(folder => int.TryParse(System.IO.Path.GetFileName(folder), out _))
            .Where(folder => (Read(folder + "/cgroup") + Read(folder + "/cmdline")) is var says && ids.Any(id => says.Contains(id, StringComparison.Ordinal)))
            .Select(folder => int.Parse(System.IO.Path.GetFileName(folder), CultureInfo.InvariantCulture))];
    }

    private static string PidFile(string directory) => directory + "/docker.pid";

    private static string Read(string file)
    {
        try
        {
            return File.ReadAllText(file);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            // The process has ended meanwhile.
            return "";
        }
    }

    private static async Task<string> ReadAsync(string file) => File.Exists(file) ? (await File.ReadAllTextAsync(file)).Trim() : "";
}
