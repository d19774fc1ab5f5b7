using System.Diagnostics;
using System.Globalization;
using VNetMesh.Cli.Connections;
using VNetMesh.Hosting;

namespace VNetMesh.Cli.Supervision;

/// <summary>Where the services' programs are, and with which rights each is started.</summary>
internal static class ServiceCommands
{
    /// <summary>No account of the machine has it: below systemd's dynamic users, above what adduser gives out.</summary>
    public const int DefaultUserId = 63108;

    // What the agent needs, and why: NET_ADMIN (devices, addresses, sysctls), SYS_ADMIN and SYS_CHROOT (entering network and
    // mount namespaces), SYS_PTRACE (namespaces of other users' processes), DAC_OVERRIDE (sockets of the services' user, /run/netns,
    // /etc/netns), KILL (a guest's DHCP client), NET_RAW and NET_BIND_SERVICE (that client's own sockets).
    private const string AgentRights = "-all,+net_admin,+sys_admin,+sys_chroot,+sys_ptrace,+dac_override,+kill,+net_raw,+net_bind_service";

    public static int UserId => int.TryParse(Environment.GetEnvironmentVariable("VNETMESH_UID"), NumberStyles.None, CultureInfo.InvariantCulture, out int id) ? id : DefaultUserId;

    public static List<ServiceCommand> All(RuntimePaths paths) => [.. Services.Names.Select(name => For(name, paths))];

    public static ServiceCommand For(string name, RuntimePaths paths)
    {
        string id = UserId.ToString(CultureInfo.InvariantCulture);
        string program = Program(name, paths);
        var environment = new Dictionary<string, string>
        {
            [RuntimePaths.RunDirectoryVariable] = paths.RunDirectory,
            [RuntimePaths.StateDirectoryVariable] = paths.StateDirectory,
            ["VNETMESH_SERVICE_GID"] = id,
            // Services of other users offer no debugging sockets in /tmp.
            ["DOTNET_EnableDiagnostics"] = Environment.GetEnvironmentVariable("DOTNET_EnableDiagnostics") ?? "0",
            ["DOTNET_gcServer"] = "0",
        };
        // A session of its own for each, as service managers give: the kernel shares the CPU among sessions first (sched_autogroup), so that in one
        // session switch and nat had one share between them, and a busy machine kept frames waiting for tens of milliseconds.
        List<string> command = name == "agent"
            ? ["setsid", "setpriv", "--pdeathsig", "KILL", "--no-new-privs", "--inh-caps=-all", "--bounding-set=" + AgentRights, program]
            : ["setsid", "setpriv", "--pdeathsig", "KILL", "--reuid", id, "--regid", id, "--clear-groups", "--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", program];
        return new ServiceCommand(name, command, environment);
    }

    /// <summary>The program of a service: beside this one in the build's output, where VNETMESH_SERVICES_DIR says, or staged.</summary>
    public static string Program(string name, RuntimePaths paths)
    {
        string staged = Path.Combine(Staging(paths), name, "vnetmesh-" + name);
        return File.Exists(staged) ? staged : Built(name);
    }

    /// <summary>
    /// Makes the programs reachable for the services' user: where the build lies below a directory that is closed
    /// to it (a clone in somebody's home), copies them into the state directory.
    /// </summary>
    /// <exception cref="CliException">A program is missing, or cannot be made reachable.</exception>
    public static void EnsureReachable(RuntimePaths paths)
    {
        if (Directory.Exists(Staging(paths)))
            Directory.Delete(Staging(paths), recursive: true);
        foreach (string name in Services.Names)
        {
            string built = Built(name);
            if (!File.Exists(built))
                throw new CliException(ExitCode.Failed, $"{built} is missing; build it with: dotnet build -c Release");
            if (name == "agent" || MayExecute(built))
                continue;
            string target = Path.Combine(Staging(paths), name);
            CopyDirectory(Path.GetDirectoryName(built)!, target);
            if (!MayExecute(Path.Combine(target, Path.GetFileName(built))))
                throw new CliException(ExitCode.Failed, $"user id {UserId.ToString(CultureInfo.InvariantCulture)}, under which services run, cannot reach {target}; set {RuntimePaths.StateDirectoryVariable} to a directory that it can enter");
        }
    }

    private static string Staging(RuntimePaths paths) => Path.Combine(paths.StateDirectory, "bin");

    private static string Built(string name)
    {
        string project = char.ToUpperInvariant(name[0]) + name[1..];
        string own = AppContext.BaseDirectory.TrimEnd('/');
        string root = Environment.GetEnvironmentVariable("VNETMESH_SERVICES_DIR") is { Length: > 0 } directory ? directory : Path.GetDirectoryName(Path.GetDirectoryName(own))!;
        string inLayout = Path.Combine(root, project, Path.GetFileName(own), "vnetmesh-" + name);
        return File.Exists(inLayout) ? inLayout : Path.Combine(root, project, "vnetmesh-" + name);
    }

    private static bool MayExecute(string program)
    {
        string id = UserId.ToString(CultureInfo.InvariantCulture);
        using Process process = Process.Start(new ProcessStartInfo("setpriv", ["--reuid", id, "--regid", id, "--clear-groups", "test", "-x", program]))
            ?? throw new CliException(ExitCode.Failed, "setpriv cannot be run; install util-linux");
        process.WaitForExit();
        return process.ExitCode == 0;
    }

    private static void CopyDirectory(string source, string target)
    {
        Directory.CreateDirectory(target);
        foreach (string file in Directory.EnumerateFiles(source))
            File.Copy(file, Path.Combine(target, Path.GetFileName(file)), overwrite: true);
        foreach (string directory in Directory.EnumerateDirectories(source))
            CopyDirectory(directory, Path.Combine(target, Path.GetFileName(directory)));
    }
}
