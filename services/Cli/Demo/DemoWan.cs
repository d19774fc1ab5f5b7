using System.Diagnostics;
using System.Globalization;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Supervision;
using VNetMesh.Hosting;
using VNetMesh.Native;

namespace VNetMesh.Cli.Demo;

/// <summary>
/// The demo's outside world: a namespace with 192.0.2.0/24 (RFC 5737: for documentation, routed nowhere), joined to the host by veth,
/// and a small web server in it. What it makes is recorded first, so that `vnet down` removes it, also after a crash.
/// </summary>
internal sealed class DemoWan(RuntimePaths paths)
{
    public const string HostAddress = "192.0.2.1";
    public const string ServerAddress = "192.0.2.80";
    public const int Port = 8080;

    // Two instances on one machine keep apart: names carry a number made from the run directory.
    private readonly string _tag = (paths.RunDirectory.Aggregate(17u, (hash, c) => (hash * 31) + c) % 1000).ToString(CultureInfo.InvariantCulture);

    public string Namespace => "vnet-demo-wan" + _tag;

    private string HostLink => "vdemo" + _tag + "h";

    private string FarLink => "vdemo" + _tag + "w";

    private static string RecordFile(RuntimePaths paths) => Path.Combine(paths.StateDirectory, "demo");

    public string ServerLog => Path.Combine(paths.RunDirectory, "log", "demo-web.log");

    public void Create()
    {
        RemoveRecorded(paths);
        // Natively they are there; where the services run elsewhere (in containers) they need not be.
        Directory.CreateDirectory(paths.StateDirectory);
        Directory.CreateDirectory(Path.GetDirectoryName(ServerLog)!);
        File.WriteAllLines(RecordFile(paths), [Namespace, HostLink, "0", "0"]);
        if (Shell.TryNetns("add", Namespace) is { Code: not 0 } failure)
            throw new CliException(ExitCode.Failed, $"the namespace {Namespace} could not be made: {failure.Error.Trim()}");
        Shell.Run("ip", "link", "add", HostLink, "type", "veth", "peer", "name", FarLink, "netns", Namespace);
        Shell.Run("ip", "address", "add", HostAddress + "/24", "dev", HostLink);
        Shell.Run("ip", "link", "set", HostLink, "up");
        Shell.Run("ip", "-n", Namespace, "link", "set", "lo", "up");
        Shell.Run("ip", "-n", Namespace, "address", "add", ServerAddress + "/24", "dev", FarLink);
        Shell.Run("ip", "-n", Namespace, "link", "set", FarLink, "up");
        StartServer();
    }

    /// <summary>Takes away what an earlier demo of this instance made; nothing when there was none.</summary>
    public static void RemoveRecorded(RuntimePaths paths)
    {
        if (!File.Exists(RecordFile(paths)))
            return;
        string[] record = File.ReadAllLines(RecordFile(paths));
        if (record.Length >= 4 && int.TryParse(record[2], CultureInfo.InvariantCulture, out int pid) && long.TryParse(record[3], CultureInfo.InvariantCulture, out long ticks))
            new ProcessIdentity(pid, ticks).Signal(SysSignal.SIGKILL);
        if (record.Length >= 2)
        {
            Shell.Try("ip", "link", "delete", record[1]);
            Shell.TryNetns("delete", record[0]);
        }
        File.Delete(RecordFile(paths));
    }

    private void StartServer()
    {
        string self = Path.Combine(AppContext.BaseDirectory, "vnet");
        File.Delete(ServerLog);
        string id = Shell.Run("ip", "netns", "exec", Namespace, "setsid", "--fork", "sh", "-c", "\"$0\" serve \"$1\" </dev/null >\"$2\" 2>&1 & echo $!",
            self, ServerAddress + ":" + Port.ToString(CultureInfo.InvariantCulture), ServerLog).Trim();
        int pid = int.Parse(id, CultureInfo.InvariantCulture);
        if (ProcessIdentity.Of(pid) is ProcessIdentity identity)
            File.WriteAllLines(RecordFile(paths), [Namespace, HostLink, pid.ToString(CultureInfo.InvariantCulture), identity.StartTicks.ToString(CultureInfo.InvariantCulture)]);
        var clock = Stopwatch.StartNew();
        while (!File.Exists(ServerLog) || !File.ReadAllText(ServerLog).Contains("listening", StringComparison.Ordinal))
        {
            if (clock.Elapsed > TimeSpan.FromSeconds(10))
                throw new CliException(ExitCode.Failed, $"the demo's web server did not start; see {ServerLog}");
            Thread.Sleep(20);
        }
    }
}
