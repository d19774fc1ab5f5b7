using System.Globalization;
using System.Runtime.InteropServices;

namespace VNetMesh.Benchmarks.Running;

/// <summary>A named network namespace, as <c>ip netns</c> makes them.</summary>
public sealed partial class NetworkNamespace(string name)
{
    private const int SIGKILL = 9;

    public string Name { get; } = name;
    public string Path => "/run/netns/" + Name;

    public static async Task<NetworkNamespace> CreateAsync(string name, CancellationToken cancellation)
    {
        await Shell.RunAsync(cancellation, "ip", "netns", "add", name);
        var created = new NetworkNamespace(name);
        await created.RunAsync(cancellation, "ip", "link", "set", "lo", "up");
        return created;
    }

    /// <summary>
    /// The command that runs another inside, in a session of its own: the kernel shares the CPU among sessions first (sched_autogroup), so that a
    /// load generator in the session of the one system and not of the other would be given another share of it. File systems stay those of the caller.
    /// </summary>
    public string[] Enter(params IReadOnlyList<string> command) => ["setsid", "nsenter", "--net=" + Path, .. command];

    public Task<string> RunAsync(CancellationToken cancellation, params string[] command) => Shell.RunAsync(cancellation, Enter(command));

    public BackgroundProgram Start(string called, params IReadOnlyList<string> command) => BackgroundProgram.Start(called, Enter(command));

    /// <summary>Sets what is the same for all systems: congestion control, and ports enough for many short connections.</summary>
    /// <returns>The congestion control in force.</returns>
    public async Task<string> TuneAsync(CancellationToken cancellation)
    {
        await RunAsync(cancellation, "sysctl", "-qw", "net.ipv4.ip_local_port_range=1024 65535");
        // Debian's default is cubic; a namespace may only choose among those that the machine allows. A paced one (bbr) measures its own clock.
        string script = "sysctl -qw net.ipv4.tcp_congestion_control=cubic 2>/dev/null || sysctl -qw net.ipv4.tcp_congestion_control=reno; sysctl -n net.ipv4.tcp_congestion_control";
        return (await RunAsync(cancellation, "sh", "-c", script)).Trim();
    }

    /// <summary>Ends what runs inside, and removes it. Nothing happens when there is none of this name.</summary>
    public static async Task DestroyAsync(string name)
    {
        if (!File.Exists("/run/netns/" + name))
            return;
        // Whoever is inside got there by the name, which only this program gives out.
        string inside = await Shell.RunAsync(CancellationToken.None, "ip", "netns", "pids", name);
        foreach (string line in inside.Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            if (int.TryParse(line, CultureInfo.InvariantCulture, out int process) && process != Environment.ProcessId)
                _ = kill(process, SIGKILL);
        }
        await Shell.RunAsync(CancellationToken.None, "ip", "netns", "del", name);
    }

    public static string[] List() => Directory.Exists("/run/netns") ? [.. Directory.GetFiles("/run/netns").Select(path => System.IO.Path.GetFileName(path)!).Order()] : [];

    [LibraryImport("libc", SetLastError = true)]
    private static partial int kill(int process, int signal);
}
