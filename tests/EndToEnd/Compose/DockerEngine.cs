using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests.Compose;

/// <summary>
/// A Docker engine of the test's own: its data, its sockets and its network namespace (an instance's host) are apart from
/// those of any other engine. It has no bridge and sets no rule.
/// </summary>
internal sealed class DockerEngine : IAsyncDisposable
{
    private readonly string _directory;
    private readonly BackgroundCommand _daemon;
    private readonly Dictionary<string, string> _environment;

    private DockerEngine(string directory, BackgroundCommand daemon, IReadOnlyDictionary<string, string> settings)
    {
        (_directory, _daemon) = (directory, daemon);
        _environment = new(settings) { ["DOCKER_HOST"] = "unix://" + Socket, ["COMPOSE_PROJECT_NAME"] = Project };
    }

    public const string Project = "vnetmesh";

    /// <summary>Short: the names of the run volume's sockets must stay below 108 octets.</summary>
    public string DataRoot => _directory + "/data";

    private string Socket => _directory + "/docker.sock";

    /// <summary>Skips the test where no engine can be started.</summary>
    public static async Task<DockerEngine> StartAsync(string directory, NetworkNamespace host, IReadOnlyDictionary<string, string> settings)
    {
        Directory.CreateDirectory(directory);
        // By nsenter: `ip netns exec` would hide the mounted cgroups behind a new /sys.
        BackgroundCommand daemon = BackgroundCommand.Start("nsenter", "--net=" + host.Path, "dockerd", "--data-root", directory + "/data", "--exec-root", directory + "/exec",
            "--pidfile", directory + "/docker.pid", "--host", $"unix://{directory}/docker.sock", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--bridge=none");
        var engine = new DockerEngine(directory, daemon, settings);
        for (int i = 0; i < 100; i++)
        {
            if (File.Exists(engine.Socket) && (await engine.DockerAsync("version")).ExitCode == 0)
                return engine;
            if (daemon.HasExited)
                break;
            await Task.Delay(200);
        }
        string said = daemon.Output.TrimEnd().Split('\n')[^1];
        await engine.DisposeAsync();
        Assert.Skip("dockerd does not start here: " + said);
        return engine;
    }

    public Task<CommandResult> DockerAsync(params string[] arguments) => Command.RunAsync(TimeSpan.FromMinutes(2), ["docker", .. arguments], _environment);

    public Task<CommandResult> ComposeAsync(TimeSpan limit, params string[] arguments) =>
        Command.RunAsync(limit, ["docker-compose", "--project-directory", Repository.Root, "--file", System.IO.Path.Combine(Repository.Root, "compose.yaml"), "--ansi", "never", .. arguments], _environment);

    /// <summary>The command line in the agent's container.</summary>
    public Task<CommandResult> VnetAsync(params string[] arguments) => ComposeAsync(TimeSpan.FromMinutes(1), ["exec", "-T", "agent", "vnet", .. arguments]);

    /// <summary>The process id, on the host, of a container's first process; 0: it does not run.</summary>
    public async Task<int> ProcessIdAsync(string container) =>
        int.Parse((await DockerAsync("inspect", "--format", "{{.State.Pid}}", container)).EnsureSuccess().Output, System.Globalization.CultureInfo.InvariantCulture);

    public static string ContainerOf(string service) => $"{Project}_{service}_1";

    public async ValueTask DisposeAsync()
    {
        if (!_daemon.HasExited)
        {
            // It ends its containers and containerd, and unmounts what it mounted.
            NetworkNamespace.Kill(_daemon.ProcessId, 15);
            try
            {
                await _daemon.WaitAsync(TimeSpan.FromSeconds(40));
            }
            catch (Xunit.Sdk.XunitException)
            {
                // Ended the hard way below.
            }
        }
        await _daemon.DisposeAsync();
        await RemoveAsync(_directory);
    }

    /// <summary>Takes away the mounts and files of an engine that has ended.</summary>
    private static async Task RemoveAsync(string directory)
    {
        foreach (string mount in File.ReadLines("/proc/mounts").Select(line => line.Split(' ')[1]).Where(path => path.StartsWith(directory + "/", StringComparison.Ordinal)).Reverse().ToList())
            await Command.RunAsync("umount", "--lazy", mount);
        await Command.RunAsync(TimeSpan.FromMinutes(1), ["rm", "-rf", "--one-file-system", directory]);
    }
}
