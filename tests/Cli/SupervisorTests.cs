using System.Diagnostics;
using VNetMesh.Cli.Supervision;
using VNetMesh.Native;

namespace VNetMesh.Cli.Tests;

/// <summary>The supervisor with real, small processes.</summary>
public sealed class SupervisorTests : IDisposable
{
    private static readonly Dictionary<string, string> NoVariables = [];

    private readonly string _run = Directory.CreateTempSubdirectory("vnet-sup-").FullName;

    public void Dispose() => Directory.Delete(_run, recursive: true);

    [Fact]
    public void StartsAllAndSaysSoInItsFile()
    {
        using var running = new Running(_run, Sleeper("one"), Sleeper("two"));
        SupervisorState state = running.WaitFor(state => state.Services.TrueForAll(service => service.Identity.IsAlive));
        Assert.Equal(["one", "two"], state.Services.Select(service => service.Name));
        Assert.Equal(Environment.ProcessId, state.Pid);
        Assert.True(state.Identity.IsAlive);
        Assert.All(state.Services, service => Assert.Equal(0, service.Restarts));
    }

    [Fact]
    public void WhatIsKilledIsStartedAgainAtOnce()
    {
        using var running = new Running(_run, Sleeper("one"));
        ServiceState before = running.WaitFor(state => state.Services[0].Identity.IsAlive).Services[0];
        var clock = Stopwatch.StartNew();
        before.Identity.Signal(SysSignal.SIGKILL);
        ServiceState after = running.WaitFor(state => state.Services[0].Pid != before.Pid && state.Services[0].Identity.IsAlive).Services[0];
        Assert.True(clock.Elapsed < TimeSpan.FromSeconds(2), $"took {clock.Elapsed}");
        Assert.Equal(1, after.Restarts);
        Assert.Equal("signal 9", after.LastExit);
    }

    [Fact]
    public void WhatKeepsEndingIsStartedEverMoreSlowly()
    {
        using var running = new Running(_run, new ServiceCommand("bad", ["sh", "-c", "exit 7"], NoVariables));
        Thread.Sleep(1500);
        ServiceState state = running.WaitFor(state => state.Services[0].LastExit is not null).Services[0];
        // At 0, 50, 100, 200, 400 and 800 ms after one another: 6 or 7 starts in 1.5 s, not hundreds.
        Assert.InRange(state.Restarts, 3, 8);
        Assert.Equal("exit code 7", state.LastExit);
    }

    [Fact]
    public void AProgramThatIsMissingIsReportedAndTriedAgain()
    {
        using var running = new Running(_run, new ServiceCommand("none", ["/nonexistent/program"], NoVariables), Sleeper("one"));
        SupervisorState state = running.WaitFor(state => state.Services[0].LastExit is not null && state.Services[1].Identity.IsAlive);
        Assert.Contains("/nonexistent/program", state.Services[0].LastExit, StringComparison.Ordinal);
    }

    [Fact]
    public void WhatItPrintsIsInItsLog()
    {
        using var running = new Running(_run, new ServiceCommand("talker", ["sh", "-c", "echo to stdout; echo to stderr >&2; echo $GREETING; sleep 60"], new Dictionary<string, string> { ["GREETING"] = "hello" }));
        running.WaitFor(state => state.Services[0].Identity.IsAlive);
        string[] log = [];
        for (int i = 0; i < 100 && log.Length < 4; i++, Thread.Sleep(20))
            log = RotatingLog.Tail(Supervisor.LogFile(_run, "talker"), 10);
        Assert.Contains("to stdout", log);
        Assert.Contains("to stderr", log);
        Assert.Contains("hello", log);
    }

    [Fact]
    public void StoppingEndsTheChildrenAndRemovesTheFile()
    {
        var running = new Running(_run, Sleeper("one"), new ServiceCommand("deaf", ["sh", "-c", "trap '' TERM; sleep 60"], NoVariables));
        SupervisorState state = running.WaitFor(state => state.Services.TrueForAll(service => service.Identity.IsAlive));
        running.Dispose();
        Assert.All(state.Services, service => Assert.False(service.Identity.IsAlive));
        Assert.Null(SupervisorState.Read(_run));
    }

    [Fact]
    public void AProcessIdAloneIsNotAnIdentity()
    {
        ProcessIdentity self = ProcessIdentity.Of(Environment.ProcessId)!.Value;
        Assert.True(self.IsAlive);
        Assert.False((self with { StartTicks = self.StartTicks + 1 }).IsAlive);
        Assert.Null(ProcessIdentity.Of(int.MaxValue));
    }

    [Fact]
    public void ALogIsBounded()
    {
        string file = Path.Combine(_run, "bounded.log");
        using (var log = new RotatingLog(file, limit: 1000))
        {
            for (int i = 0; i < 500; i++)
                log.WriteLine($"line {i}");
        }
        Assert.InRange(new FileInfo(file).Length, 1, 1100);
        Assert.InRange(new FileInfo(file + ".1").Length, 900, 1100);
        Assert.Equal(["line 499"], RotatingLog.Tail(file, 1));
    }

    private static ServiceCommand Sleeper(string name) => new(name, ["sleep", "60"], NoVariables);

    private sealed class Running : IDisposable
    {
        private readonly string _run;
        private readonly Supervisor _supervisor;
        private readonly Thread _thread;
        private bool _disposed;

        public Running(string run, params ServiceCommand[] commands)
        {
            _run = run;
            _supervisor = new Supervisor(run, commands, TimeProvider.System);
            _thread = new Thread(_supervisor.Run);
            _thread.Start();
        }

        public SupervisorState WaitFor(Func<SupervisorState, bool> condition)
        {
            for (int i = 0; i < 250; i++, Thread.Sleep(20))
            {
                if (SupervisorState.Read(_run) is { } state && condition(state))
                    return state;
            }
            throw new TimeoutException("the supervisor's file never showed what was waited for");
        }

        public void Dispose()
        {
            if (_disposed)
                return;
            _disposed = true;
            _supervisor.Stop();
            Assert.True(_thread.Join(TimeSpan.FromSeconds(20)));
            _supervisor.Dispose();
        }
    }
}
