using System.Diagnostics;
using System.Globalization;
using VNetMesh.Agent.Namespaces;
using VNetMesh.Native;

namespace VNetMesh.Agent.HostChanges;

/// <summary>
/// A process that the agent left running in a namespace, known again by process id and start time. It is no child whose
/// output we read, and has a session of its own: it outlives the agent.
/// </summary>
/// <param name="Mark">A part of its command line that no other process has; by it a process is found that was started just before a crash.</param>
/// <param name="StartTime">Field 22 of /proc/PID/stat; 0 until it runs.</param>
public sealed record ProcessChange(string Owner, string Netns, string NetnsIdentity, string Mark, IReadOnlyList<string> CommandLine, IReadOnlyDictionary<string, string> Environment, int Pid = 0, ulong StartTime = 0) : HostChange(Owner)
{
    private static readonly TimeSpan Patience = TimeSpan.FromMilliseconds(500);

    public override ChangeKind Kind => ChangeKind.Process;

    public override string Target => Pid == 0 ? CommandLine[0] : string.Create(CultureInfo.InvariantCulture, $"{CommandLine[0]} ({Pid})");

    public override string Describe() => $"started {System.IO.Path.GetFileName(CommandLine[0])} in {Netns}";

    /// <exception cref="NamespaceNotFoundException">The namespace is gone.</exception>
    /// <exception cref="CommandException">It does not run.</exception>
    public override HostChange Do(HostAccess host)
    {
        using NetworkNamespace space = host.Namespaces.Open(Netns);
        if (space.Identity != NetnsIdentity)
            throw new NamespaceNotFoundException(Netns, "it is gone");
        // The shell lets go of the agent's descriptors 0 to 2, and becomes in turn setsid, nsenter and the program.
        var start = new ProcessStartInfo("/bin/sh");
        string[] arguments = ["-c", "exec setsid nsenter \"$0\" -- \"$@\" </dev/null >/dev/null 2>&1", string.Create(CultureInfo.InvariantCulture, $"--net=/proc/{System.Environment.ProcessId}/fd/{space.Descriptor.Number}"), .. CommandLine];
        foreach (string argument in arguments)
            start.ArgumentList.Add(argument);
        foreach ((string name, string value) in Environment)
            start.Environment[name] = value;
        using Process process = Process.Start(start) ?? throw new CommandException(CommandLine[0], "it could not be started");
        int pid = process.Id;
        ulong time = StartTimeOf(pid);
        // The descriptor must stay open until nsenter has used it: until the process is in the namespace.
        string own = HostNamespaces.OwnIdentity();
        for (var waited = Stopwatch.StartNew(); time != 0 && NamespaceOf(pid) == own && waited.Elapsed < TimeSpan.FromSeconds(2);)
            Thread.Sleep(1);
        return time != 0 && StartTimeOf(pid) == time ? this with { Pid = pid, StartTime = time } : throw new CommandException(CommandLine[0], "it ended at once");
    }

    public override void Undo(HostAccess host)
    {
        foreach ((int pid, ulong startTime) in Find())
            Stop(pid, startTime);
    }

    public override bool IsStillThere(HostAccess host) => IsRunning;

    /// <summary>Whether it runs (a zombie does not).</summary>
    public bool IsRunning => Pid != 0 && StartTimeOf(Pid) == StartTime;

    private List<(int Pid, ulong StartTime)> Find()
    {
        if (Pid != 0)
            return IsRunning ? [(Pid, StartTime)] : [];
        var found = new List<(int, ulong)>();
        foreach (string directory in Directory.EnumerateDirectories("/proc"))
        {
            if (int.TryParse(System.IO.Path.GetFileName(directory), NumberStyles.None, CultureInfo.InvariantCulture, out int pid) && CommandLineOf(pid).Contains(Mark, StringComparison.Ordinal))
                found.Add((pid, StartTimeOf(pid)));
        }
        return found;
    }

    private static void Stop(int pid, ulong startTime)
    {
        if (startTime == 0)
            return;
        _ = SysSignal.kill(pid, SysSignal.SIGTERM);
        for (var waited = Stopwatch.StartNew(); StartTimeOf(pid) == startTime && waited.Elapsed < Patience;)
            Thread.Sleep(2);
        if (StartTimeOf(pid) == startTime)
            _ = SysSignal.kill(pid, SysSignal.SIGKILL);
    }

    /// <summary>0 where no such process runs. The name, in parentheses, may hold anything: fields are counted from its end (proc(5)).</summary>
    internal static ulong StartTimeOf(int pid)
    {
        try
        {
            string stat = File.ReadAllText(string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/stat"));
            string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
            return fields[0] is "Z" or "X" ? 0 : ulong.Parse(fields[19], CultureInfo.InvariantCulture);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            return 0;
        }
    }

    private static string NamespaceOf(int pid)
    {
        try
        {
            return new FileInfo(string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/ns/net")).LinkTarget ?? "";
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }

    private static string CommandLineOf(int pid)
    {
        try
        {
            return File.ReadAllText(string.Create(CultureInfo.InvariantCulture, $"/proc/{pid}/cmdline")).Replace('\0', ' ');
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }
}
