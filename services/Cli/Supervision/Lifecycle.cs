using System.Diagnostics;
using System.Globalization;
using System.Text;
using Grpc.Core;
using Grpc.Health.V1;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Demo;
using VNetMesh.Hosting;
using VNetMesh.Native;
using VNetMesh.V1;

namespace VNetMesh.Cli.Supervision;

/// <summary>Brings an instance up and takes it down, from whatever state it is in.</summary>
internal sealed class Lifecycle(Services services)
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    /// <summary>Who runs the services where no `vnet up` did, as VNETMESH_SUPERVISOR says (images set it); null: nothing was said.</summary>
    private static readonly string? Named = Environment.GetEnvironmentVariable("VNETMESH_SUPERVISOR") is { Length: > 0 } name ? name : null;

    private readonly RuntimePaths _paths = services.Paths;

    /// <summary>In plain words, for a message.</summary>
    public static string Others => Named ?? "somebody else (docker compose, systemd)";

    /// <returns>False: all were up and healthy already.</returns>
    /// <exception cref="CliException">A service did not become healthy.</exception>
    public async Task<bool> UpAsync(CancellationToken cancellation)
    {
        RequireRoot();
        Directory.CreateDirectory(_paths.RunDirectory);
        using FileStream gate = await LockAsync(cancellation);
        SupervisorState? state = SupervisorState.Read(_paths.RunDirectory);
        if (await IsRunByOthersAsync(state, cancellation))
        {
            await WaitUntilHealthyAsync(cancellation);
            return false;
        }
        bool running = state is { Identity.IsAlive: true };
        if (running && await AllHealthyAsync(cancellation))
            return false;
        if (!running)
        {
            EndLeftovers(state);
            PrepareDirectories();
            ServiceCommands.EnsureReachable(_paths);
            StartSupervisor();
        }
        await WaitUntilHealthyAsync(cancellation);
        return true;
    }

    /// <returns>False: nothing ran, and nothing was left.</returns>
    /// <exception cref="CliException">Something could not be undone.</exception>
    public async Task<bool> DownAsync(CancellationToken cancellation)
    {
        RequireRoot();
        if (!Directory.Exists(_paths.RunDirectory))
            return false;
        using FileStream gate = await LockAsync(cancellation);
        SupervisorState? state = SupervisorState.Read(_paths.RunDirectory);
        if (await IsRunByOthersAsync(state, cancellation))
            throw new CliException(ExitCode.Refused, $"the services are run by {Others}, not by vnet up; stop them there, e.g. with: docker compose down");
        bool any = state is not null || Services.Names.Any(name => File.Exists(_paths.Socket(name)));
        DemoWan.RemoveRecorded(_paths);
        string? failure = any || Directory.Exists(_paths.State("agent")) ? await ReleaseAsync(cancellation) : null;
        if (state is { Identity.IsAlive: true })
        {
            state.Identity.Signal(SysSignal.SIGTERM);
            if (!state.Identity.WaitForEnd(Patience))
                state.Identity.Signal(SysSignal.SIGKILL);
        }
        EndLeftovers(state);
        RemoveRunFiles();
        return failure is null ? any : throw new CliException(ExitCode.Failed, failure);
    }

    private static void RequireRoot()
    {
        if (Unistd.geteuid() != 0)
            throw new CliException(ExitCode.Permission, "this makes network devices and must be run as root; try: sudo vnet …");
    }

    private async Task<FileStream> LockAsync(CancellationToken cancellation)
    {
        var clock = Stopwatch.StartNew();
        while (true)
        {
            try
            {
                return new FileStream(Path.Combine(_paths.RunDirectory, "vnet.lock"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException) when (clock.Elapsed < Patience * 2)
            {
                await Task.Delay(100, cancellation);
            }
        }
    }

    /// <summary>No supervisor of ours has been here, and yet services answer; or we were told so.</summary>
    private async Task<bool> IsRunByOthersAsync(SupervisorState? state, CancellationToken cancellation)
    {
        if (Named is not null || state is not null)
            return Named is not null;
        return (await Task.WhenAll(Services.Names.Select(name => services.HealthAsync(name, cancellation)))).Any(status => status is not null);
    }

    private async Task<bool> AllHealthyAsync(CancellationToken cancellation)
    {
        HealthCheckResponse.Types.ServingStatus?[] health = await Task.WhenAll(Services.Names.Select(name => services.HealthAsync(name, cancellation)));
        return health.All(status => status == HealthCheckResponse.Types.ServingStatus.Serving);
    }

    // After kill -9 of a supervisor its children are dead by their death signal; this is for those that were just being made.
    private static void EndLeftovers(SupervisorState? state)
    {
        foreach (ServiceState service in state?.Services ?? [])
        {
            service.Identity.Signal(SysSignal.SIGKILL);
            service.Identity.WaitForEnd(TimeSpan.FromSeconds(5));
        }
    }

    private void PrepareDirectories()
    {
        const UnixFileMode open = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute | UnixFileMode.GroupRead | UnixFileMode.GroupExecute | UnixFileMode.OtherRead | UnixFileMode.OtherExecute;
        const UnixFileMode own = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
        Directory.CreateDirectory(_paths.StateDirectory, open);
        Own(_paths.RunDirectory, open, ServiceCommands.UserId);
        Directory.CreateDirectory(Path.Combine(_paths.RunDirectory, "log"));
        foreach (string name in Services.Names)
        {
            Directory.CreateDirectory(_paths.State(name));
            Own(_paths.State(name), own, name == "agent" ? 0 : ServiceCommands.UserId);
        }
    }

    private static void Own(string directory, UnixFileMode mode, int owner)
    {
        File.SetUnixFileMode(directory, mode);
        Syscall.Check(Unistd.chown(directory, owner, owner), $"chown({directory})");
        // What an earlier run under another VNETMESH_UID left must be usable as well.
        foreach (string file in Directory.EnumerateFiles(directory).Where(file => !file.EndsWith(".lock", StringComparison.Ordinal)))
            Syscall.Check(Unistd.chown(file, owner, owner), $"chown({file})");
    }

    private void StartSupervisor()
    {
        string self = Path.Combine(AppContext.BaseDirectory, "vnet");
        string log = Path.Combine(_paths.RunDirectory, "log", "supervisor.log");
        // A session of its own, so that closing the terminal does not end it; the shell closes what this process has open.
        var start = new ProcessStartInfo("setsid", ["--fork", "sh", "-c", "exec \"$0\" supervise </dev/null >>\"$1\" 2>&1", self, log]) { WorkingDirectory = "/" };
        start.Environment[RuntimePaths.RunDirectoryVariable] = _paths.RunDirectory;
        start.Environment[RuntimePaths.StateDirectoryVariable] = _paths.StateDirectory;
        using Process process = Process.Start(start) ?? throw new CliException(ExitCode.Failed, "setsid cannot be run; install util-linux");
        process.WaitForExit();
        if (process.ExitCode != 0)
            throw new CliException(ExitCode.Failed, "the supervisor could not be started");
    }

    private async Task WaitUntilHealthyAsync(CancellationToken cancellation)
    {
        var clock = Stopwatch.StartNew();
        foreach (string name in Services.Names)
        {
            while (await services.HealthAsync(name, cancellation) != HealthCheckResponse.Types.ServingStatus.Serving)
            {
                if (clock.Elapsed > Patience)
                    throw new CliException(ExitCode.Failed, WhyNotHealthy(name));
                await Task.Delay(30, cancellation);
            }
        }
    }

    private string WhyNotHealthy(string name)
    {
        string file = Supervisor.LogFile(_paths.RunDirectory, name);
        if (!File.Exists(file))
            return $"{name} is not healthy after {Patience.Seconds.ToString(CultureInfo.InvariantCulture)} s; it is run by {Others}: its log is there";
        string[] last = RotatingLog.Tail(file, 15);
        var message = new StringBuilder($"{name} is not healthy after {Patience.Seconds.ToString(CultureInfo.InvariantCulture)} s; its log is {file}");
        foreach (string line in last)
            message.Append("\n  ").Append(line);
        return message.ToString();
    }

    /// <returns>What could not be undone, as a line for the user; null when all is.</returns>
    private async Task<string?> ReleaseAsync(CancellationToken cancellation)
    {
        try
        {
            await services.Agent.ReleaseAllAsync(new ReleaseAllRequest(), deadline: DateTime.UtcNow + Patience, cancellationToken: cancellation);
            return null;
        }
        catch (RpcException exception) when (exception.StatusCode is StatusCode.Unavailable or StatusCode.DeadlineExceeded)
        {
            return await ReleaseWithoutAgentAsync(cancellation);
        }
        catch (RpcException exception)
        {
            return ErrorMap.MessageOf(exception);
        }
    }

    private async Task<string?> ReleaseWithoutAgentAsync(CancellationToken cancellation)
    {
        var start = new ProcessStartInfo(ServiceCommands.Program("agent", _paths), ["release"]) { RedirectStandardError = true, RedirectStandardOutput = true };
        start.Environment[RuntimePaths.RunDirectoryVariable] = _paths.RunDirectory;
        start.Environment[RuntimePaths.StateDirectoryVariable] = _paths.StateDirectory;
        using Process? process = Process.Start(start);
        if (process is null)
            return "the agent's program cannot be run";
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(Patience * 2);
        try
        {
            Task<string> output = process.StandardOutput.ReadToEndAsync(limit.Token);
            string error = await process.StandardError.ReadToEndAsync(limit.Token);
            await process.WaitForExitAsync(limit.Token);
            return process.ExitCode == 0 ? null : "not everything could be undone: " + (error.Length > 0 ? error : await output).Trim().ReplaceLineEndings(" ");
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            process.Kill();
            return $"the host could not be put back within {(Patience * 2).TotalSeconds.ToString(CultureInfo.InvariantCulture)} s; what is left is recorded, and undone by the next vnet down";
        }
    }

    private void RemoveRunFiles()
    {
        foreach (string file in Directory.EnumerateFiles(_paths.RunDirectory))
        {
            if (file.EndsWith(".sock", StringComparison.Ordinal) || file.EndsWith(".new", StringComparison.Ordinal) || Path.GetFileName(file) == "supervisor.json")
                File.Delete(file);
        }
    }
}
