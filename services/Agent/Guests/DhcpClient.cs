using System.Diagnostics;
using VNetMesh.Agent.HostChanges;
using VNetMesh.Agent.Namespaces;
using VNetMesh.Agent.Observability;
using VNetMesh.Hosting;

namespace VNetMesh.Agent.Guests;

/// <summary>
/// Keeps one udhcpc running in a guest: starts it, finds it again after the agent's restart, starts it anew when it died,
/// stops it. What a lease sets in the guest is set by udhcpc.script.
/// </summary>
public sealed class DhcpClient(ChangeJournal journal, RuntimePaths paths, AgentMetrics metrics, TimeProvider time)
{
    private const string NetnsFiles = "/etc/netns";
    private readonly Dictionary<string, (long Id, ProcessChange Process)> _running = new(StringComparer.Ordinal);
    private readonly Dictionary<string, (long NotBefore, Backoff Backoff)> _pauses = new(StringComparer.Ordinal);

    private string Directory => Path.Combine(paths.RunDirectory, "agent");

    /// <summary>The program and its first arguments; null where the host has none.</summary>
    public static string[]? FindProgram()
    {
        string[] directories = [.. (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':', StringSplitOptions.RemoveEmptyEntries), "/usr/sbin", "/sbin", "/usr/bin", "/bin"];
        string? Find(string name) => directories.Select(directory => Path.Combine(directory, name)).FirstOrDefault(File.Exists);
        if (Find("udhcpc") is { } own)
            return [own];
        return Find("busybox") is { } busybox && HasApplet(busybox) ? [busybox, "udhcpc"] : null;
    }

    /// <summary>Sees to it that the guest's client runs.</summary>
    /// <returns>Its process id.</returns>
    /// <exception cref="IOException">It does not, and why.</exception>
    public int Ensure(GuestSpec guest, NetworkNamespace space)
    {
        if (_running.TryGetValue(guest.Name, out (long Id, ProcessChange Process) known) || TryAdopt(guest, space, out known))
        {
            if (known.Process.IsRunning)
                return known.Process.Pid;
            Stop(guest);
        }
        (long notBefore, Backoff backoff) = _pauses.TryGetValue(guest.Name, out (long NotBefore, Backoff Backoff) pause) ? pause : (0, new Backoff());
        if (time.GetTimestamp() < notBefore)
            throw new IOException("its DHCP client ended; it is started again in a moment");
        _pauses[guest.Name] = (time.GetTimestamp() + (long)(backoff.Next().TotalSeconds * time.TimestampFrequency), backoff);
        ProcessChange process = Start(guest, space);
        return process.Pid;
    }

    /// <summary>The client has got an address: it is well.</summary>
    public void Succeeded(GuestSpec guest) => _pauses.Remove(guest.Name);

    /// <summary>Whether everything of the lease of this address is set: the script writes its file last.</summary>
    public bool HasSet(GuestSpec guest, string address)
    {
        try
        {
            return File.ReadAllText(LeaseFile(guest)).TrimEnd().EndsWith(' ' + address, StringComparison.Ordinal);
        }
        catch (IOException)
        {
            return false;
        }
    }

    public void Stop(GuestSpec guest)
    {
        _running.Remove(guest.Name);
        foreach ((long id, _) in journal.Of<ProcessChange>(guest.Name).ToList())
            journal.Undo(id);
    }

    /// <summary>Stops it and takes away what it left.</summary>
    public void Remove(GuestSpec guest)
    {
        Stop(guest);
        _pauses.Remove(guest.Name);
        File.Delete(PidFile(guest));
        File.Delete(LeaseFile(guest));
        foreach ((long id, _) in journal.Of<FileChange>(guest.Name).ToList())
            journal.Undo(id);
    }

    private ProcessChange Start(GuestSpec guest, NetworkNamespace space)
    {
        string[] program = FindProgram() ?? throw new IOException(MissingProgram);
        using Activity? activity = AgentTelemetry.Source.StartActivity("agent.dhcp_client.start");
        System.IO.Directory.CreateDirectory(Directory, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        // One DISCOVER a second until there is a lease; the device is connected before, so the first mostly suffices.
        string[] commandLine = [.. program, "-f", "-i", guest.Interface, "-s", ScriptPath(), "-p", PidFile(guest), "-t", "3", "-T", "1", "-A", "1", "-R",
            "-x", "hostname:" + guest.Id, "-O", "mtu", "-O", "staticroutes", "-O", "routes"];
        var environment = new Dictionary<string, string> { ["VNETMESH_LEASE_FILE"] = LeaseFile(guest), ["VNETMESH_RESOLV_CONF"] = ResolvConf(guest) };
        ProcessChange process = journal.Perform(new ProcessChange(guest.Name, space.Path, space.Identity, PidFile(guest), commandLine, environment));
        _running[guest.Name] = (journal.Of<ProcessChange>(guest.Name).Last().Id, process);
        metrics.ClientStarted();
        return process;
    }

    /// <summary>What to say where there is no udhcpc.</summary>
    public const string MissingProgram = "there is no udhcpc on this host: install the package 'udhcpc' or 'busybox' (Debian: apt-get install udhcpc), or add the guest without DHCP";

    private bool TryAdopt(GuestSpec guest, NetworkNamespace space, out (long Id, ProcessChange Process) adopted)
    {
        adopted = default;
        foreach ((long id, ProcessChange process) in journal.Of<ProcessChange>(guest.Name).ToList())
        {
            if (process.IsRunning && process.NetnsIdentity == space.Identity && adopted.Id == 0)
                adopted = _running[guest.Name] = (id, process);
            else
                journal.Undo(id);
        }
        return adopted.Id != 0;
    }

    /// <summary>/etc/netns/NAME/resolv.conf, which `ip netns exec` puts over /etc/resolv.conf; only for namespaces that we made.</summary>
    private string ResolvConf(GuestSpec guest)
    {
        if (!guest.MakesNetns || NamespaceReference.NameOf(guest.Netns) is not { } name)
            return "";
        string path = $"{NetnsFiles}/{name}/resolv.conf";
        // Of all guests, so of none.
        if (!System.IO.Directory.Exists(NetnsFiles))
            journal.Perform(new DirectoryChange("agent", NetnsFiles));
        if (!journal.Of<FileChange>(guest.Name).Any(file => file.Change.Path == path))
            journal.Perform(FileChange.Plan(guest.Name, path));
        return path;
    }

    private static string ScriptPath()
    {
        string path = Path.Combine(AppContext.BaseDirectory, "udhcpc.script");
        const UnixFileMode Execute = UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute;
        UnixFileMode mode = File.GetUnixFileMode(path);
        if ((mode & Execute) == 0)
            File.SetUnixFileMode(path, mode | Execute);
        return path;
    }

    private string PidFile(GuestSpec guest) => Path.Combine(Directory, guest.Id + ".udhcpc.pid");

    private string LeaseFile(GuestSpec guest) => Path.Combine(Directory, guest.Id + ".lease");

    private static bool HasApplet(string busybox)
    {
        try
        {
            return Command.Run(busybox, "--list").Split('\n').Contains("udhcpc", StringComparer.Ordinal);
        }
        catch (CommandException)
        {
            return false;
        }
    }
}
