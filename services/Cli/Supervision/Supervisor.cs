using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using VNetMesh.Native;

namespace VNetMesh.Cli.Supervision;

/// <summary>How a service is started.</summary>
/// <param name="Name">switch, dhcp, nat or agent.</param>
/// <param name="Command">Program and arguments, rights dropped by setpriv in front.</param>
/// <param name="Environment">Variables beside the inherited ones.</param>
internal sealed record ServiceCommand(string Name, IReadOnlyList<string> Command, IReadOnlyDictionary<string, string> Environment);

/// <summary>
/// Starts the services, starts again what ends, and says in a file how they are. A first restart is at once; a
/// service that keeps ending is started after 50 ms, doubling to 2 s, until it has lived for 10 s.
///
/// All children are started by the one thread that runs <see cref="Run"/>: the kernel ties the death signal of
/// a child (PR_SET_PDEATHSIG) to the thread that made it, and that thread must live as long as the supervisor.
/// </summary>
internal sealed class Supervisor(string runDirectory, IReadOnlyList<ServiceCommand> commands, TimeProvider time) : IDisposable
{
    private static readonly TimeSpan FirstDelay = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan LongestDelay = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan LongEnough = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);

    private readonly BlockingCollection<Action> _events = [];
    private readonly List<Child> _children = [];
    private readonly DateTime _started = time.GetUtcNow().UtcDateTime;
    private bool _stopping;

    /// <summary>Runs until <see cref="Stop"/>; then ends the children and returns.</summary>
    public void Run()
    {
        Directory.CreateDirectory(Path.Combine(runDirectory, "log"));
        foreach (ServiceCommand command in commands)
            _children.Add(new Child(command, new RotatingLog(LogFile(runDirectory, command.Name))));
        foreach (Child child in _children)
            Start(child);
        WriteState();
        while (!_stopping)
        {
            DateTimeOffset now = time.GetUtcNow();
            TimeSpan wait = _children.Where(child => child.StartAt is not null).Select(child => child.StartAt!.Value - now).DefaultIfEmpty(Timeout.InfiniteTimeSpan).Min();
            if (wait != Timeout.InfiniteTimeSpan && wait < TimeSpan.Zero)
                wait = TimeSpan.Zero;
            if (_events.TryTake(out Action? action, wait))
                action();
            foreach (Child child in _children.Where(child => !_stopping && child.StartAt <= time.GetUtcNow()))
                Start(child);
            WriteState();
        }
        EndChildren();
    }

    /// <summary>From any thread.</summary>
    public void Stop() => _events.Add(() => _stopping = true);

    public static string LogFile(string runDirectory, string service) => Path.Combine(runDirectory, "log", service + ".log");

    public void Dispose()
    {
        foreach (Child child in _children)
            child.Log.Dispose();
        _events.Dispose();
    }

    private void Start(Child child)
    {
        child.StartAt = null;
        var start = new ProcessStartInfo(child.Command.Command[0], child.Command.Command.Skip(1))
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = "/",
        };
        foreach ((string name, string value) in child.Command.Environment)
            start.Environment[name] = value;
        var process = new Process { StartInfo = start, EnableRaisingEvents = true };
        process.OutputDataReceived += (_, line) => child.Write(line.Data);
        process.ErrorDataReceived += (_, line) => child.Write(line.Data);
        process.Exited += (_, _) => Post(() => OnExited(child, process));
        try
        {
            process.Start();
        }
        catch (Exception exception) when (exception is InvalidOperationException or System.ComponentModel.Win32Exception)
        {
            process.Dispose();
            child.LastExit = exception.Message;
            ScheduleStart(child);
            return;
        }
        process.StandardInput.Close();
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        child.Process = process;
        child.Identity = ProcessIdentity.Of(process.Id) ?? new ProcessIdentity(process.Id, 0);
        child.Started = time.GetUtcNow();
        Note(child, $"started {child.Command.Name}, pid {process.Id.ToString(CultureInfo.InvariantCulture)}");
    }

    private void OnExited(Child child, Process process)
    {
        if (child.Process != process)
            return;
        int code = process.ExitCode;
        child.LastExit = code > 128 ? $"signal {(code - 128).ToString(CultureInfo.InvariantCulture)}" : $"exit code {code.ToString(CultureInfo.InvariantCulture)}";
        Note(child, $"{child.Command.Name} ended, {child.LastExit}");
        child.Process = null;
        child.Identity = default;
        process.Dispose();
        if (_stopping)
            return;
        child.Restarts++;
        ScheduleStart(child);
    }

    // In the style of the service's own lines, among which it stands.
    private void Note(Child child, string message) =>
        child.Write($"{time.GetUtcNow().UtcDateTime.ToString("yyyy-MM-ddTHH:mm:ss.fffZ", CultureInfo.InvariantCulture)} info: supervisor {message}");

    private void ScheduleStart(Child child)
    {
        DateTimeOffset now = time.GetUtcNow();
        if (now - child.Started >= LongEnough)
            child.Delay = TimeSpan.Zero;
        child.StartAt = now + child.Delay;
        child.Delay = child.Delay == TimeSpan.Zero ? FirstDelay : TimeSpan.FromTicks(Math.Min(child.Delay.Ticks * 2, LongestDelay.Ticks));
    }

    private void EndChildren()
    {
        // The agent and the services that lean on the switch first, the switch last.
        foreach (Child child in Enumerable.Reverse(_children))
            child.Identity.Signal(SysSignal.SIGTERM);
        foreach (Child child in _children)
        {
            if (child.Process is null || child.Process.WaitForExit(Patience))
                continue;
            Note(child, $"{child.Command.Name} did not end in {Patience.TotalSeconds.ToString(CultureInfo.InvariantCulture)} s and is killed");
            child.Identity.Signal(SysSignal.SIGKILL);
            child.Process.WaitForExit(Patience);
        }
        File.Delete(SupervisorState.FileIn(runDirectory));
    }

    private void Post(Action action)
    {
        try
        {
            _events.Add(action);
        }
        catch (ObjectDisposedException)
        {
            // The supervisor has ended.
        }
    }

    private void WriteState()
    {
        ProcessIdentity self = ProcessIdentity.Of(Environment.ProcessId) ?? default;
        new SupervisorState(self.Pid, self.StartTicks, _started,
            [.. _children.Select(child => new ServiceState(child.Command.Name, child.Identity.Pid, child.Identity.StartTicks, child.Started.UtcDateTime, child.Restarts, child.LastExit))])
            .Write(runDirectory);
    }

    private sealed class Child(ServiceCommand command, RotatingLog log)
    {
        public ServiceCommand Command { get; } = command;
        public RotatingLog Log { get; } = log;
        public Process? Process { get; set; }
        public ProcessIdentity Identity { get; set; }
        public DateTimeOffset Started { get; set; }
        public DateTimeOffset? StartAt { get; set; }
        public TimeSpan Delay { get; set; }
        public int Restarts { get; set; }
        public string? LastExit { get; set; }

        public void Write(string? line)
        {
            if (line is not null)
                Log.WriteLine(line);
        }
    }
}
