using System.Diagnostics;
using System.Globalization;
using Grpc.Core;
using Grpc.Net.Client;
using VNetMesh.Agent.Namespaces;
using VNetMesh.Agent.Netlink;
using VNetMesh.Hosting;
using VNetMesh.Native;
using VNetMesh.V1;

namespace VNetMesh.Agent.Tests.Support;

/// <summary>A network namespace that plays the host, and what is started in it. Needs root; skips the test without it.</summary>
internal sealed class HostLab : IDisposable
{
    private static int s_number;
    private readonly List<Process> _started = [];
    private readonly List<string> _namespaces = [];
    private readonly Dictionary<string, GrpcChannel> _channels = [];
    private readonly Dictionary<string, Process> _services = [];

    public HostLab()
    {
        if (Unistd.geteuid() != 0)
            Assert.Skip("network namespaces need root");
        if (!File.Exists("/dev/net/tun"))
            Assert.Skip("/dev/net/tun is missing");
        Prefix = string.Create(CultureInfo.InvariantCulture, $"agent-{System.Environment.ProcessId % 100000}-{Interlocked.Increment(ref s_number)}");
        Scratch = Directory.CreateTempSubdirectory("agt").FullName;
        Host = AddNamespace("host");
    }

    /// <summary>What every name begins with that a test makes.</summary>
    public string Prefix { get; }

    public string Scratch { get; }

    /// <summary>The name of the host's namespace.</summary>
    public string Host { get; }

    public AgentService.AgentServiceClient Agent => new(Channel("agent"));

    public NetworkService.NetworkServiceClient Networks => new(Channel("switch"));

    public PortService.PortServiceClient Ports => new(Channel("switch"));

    public string AddNamespace(string name)
    {
        string full = $"{Prefix}-{name}";
        _namespaces.Add(full);
        Command.Run("ip", "netns", "add", full);
        Ip(full, "link", "set", "lo", "up");
        return full;
    }

    public static string Ip(string netns, params ReadOnlySpan<string> arguments) => Command.Run("ip", ["-n", netns, .. arguments]);

    /// <summary>Runs netlink calls inside a namespace.</summary>
    public static T WithNetlink<T>(string netns, Func<RtNetlink, T> function)
    {
        using HostNamespaces namespaces = HostNamespaces.Find();
        using NetworkNamespace space = namespaces.Open($"{NamespaceReference.Directory}/{netns}");
        return space.Run(() =>
        {
            using RtNetlink netlink = RtNetlink.Open();
            return function(netlink);
        });
    }

    public static int IndexOf(string netns, string link) => WithNetlink(netns, netlink => netlink.FindLink(link)?.Index ?? 0);

    public static bool Pings(string netns, string address)
    {
        try
        {
            Command.Run("ip", "netns", "exec", netns, "ping", "-c", "1", "-W", "2", address);
            return true;
        }
        catch (CommandException)
        {
            return false;
        }
    }

    /// <summary>Starts a service of the build in the host's namespace.</summary>
    /// <param name="service">Switch, Dhcp or Agent.</param>
    public Process Start(string service, params ReadOnlySpan<string> arguments)
    {
        string name = "vnetmesh-" + service.ToLowerInvariant();
        var here = new DirectoryInfo(AppContext.BaseDirectory);
        string program = Path.Combine(here.Parent!.Parent!.FullName, service, here.Name, name);
        if (!File.Exists(program))
            Assert.Skip($"{program} is not built");
        string log = Path.Combine(Scratch, name + ".log");
        var start = new ProcessStartInfo("/bin/sh");
        // exec all the way: the process that is started is the service.
        foreach (string argument in (string[])["-c", $"exec nsenter --net=/run/netns/{Host} -- \"$0\" \"$@\" >>'{log}' 2>&1 </dev/null", program, .. arguments])
            start.ArgumentList.Add(argument);
        foreach ((string variable, string value) in Environment())
            start.Environment[variable] = value;
        Process process = Process.Start(start)!;
        _started.Add(process);
        return _services[service] = process;
    }

    /// <summary>kill -9, and waits until it is gone.</summary>
    public void Kill(string service)
    {
        _services[service].Kill();
        _services[service].WaitForExit();
    }

    /// <summary>SIGTERM.</summary>
    /// <returns>Whether it ended in time.</returns>
    public bool Stop(string service, TimeSpan limit)
    {
        Assert.Equal(0, SysSignal.kill(_services[service].Id, SysSignal.SIGTERM));
        return _services[service].WaitForExit(limit);
    }

    public int ReleaseByHand()
    {
        Process process = Start("Agent", "release");
        process.WaitForExit();
        return process.ExitCode;
    }

    public string Log(string service) => File.ReadAllText(Path.Combine(Scratch, "vnetmesh-" + service.ToLowerInvariant() + ".log"));

    public static async Task UntilAsync(string what, Func<Task<bool>> isSo, double seconds = 15)
    {
        for (var waited = Stopwatch.StartNew(); waited.Elapsed < TimeSpan.FromSeconds(seconds); await Task.Delay(50, TestContext.Current.CancellationToken))
        {
            try
            {
                if (await isSo())
                    return;
            }
            catch (RpcException exception) when (exception.StatusCode == StatusCode.Unavailable)
            {
                // It is not there yet.
            }
        }
        Assert.Fail($"within {seconds} s it did not become so: {what}");
    }

    /// <summary>Until the agent has handed over the adapters of vmnet1 and vmnet8.</summary>
    public Task UntilAdaptersAsync() => UntilAsync("vmnet1 and vmnet8 are connected", async () =>
        (await Agent.ListDevicesAsync(new ListDevicesRequest())).Devices.Count(device => device is { Kind: DeviceKind.HostAdapter, Connected: true, Condition: "" }) == 2);

    /// <summary>Makes a guest called after the lab.</summary>
    public async Task<Guest> AddGuestAsync(string id, Action<Guest>? change = null, uint waitMs = 0)
    {
        var guest = new Guest { Network = "networks/vmnet8", NoDhcp = true };
        change?.Invoke(guest);
        return (await Agent.CreateGuestAsync(new CreateGuestRequest { GuestId = $"{Prefix}-{id}", Guest = guest, WaitMs = waitMs })).Guest;
    }

    public void Dispose()
    {
        foreach (GrpcChannel channel in _channels.Values)
            channel.Dispose();
        foreach (Process process in _started)
        {
            if (!process.HasExited)
                process.Kill();
            process.WaitForExit();
            process.Dispose();
        }
        // What a failed test left.
        if (Directory.Exists(Path.Combine(Scratch, "state", "agent")))
        {
            using Process release = Start("Agent", "release");
            release.WaitForExit();
        }
        foreach (string name in _namespaces.Where(name => File.Exists($"/run/netns/{name}")))
            Command.Run("ip", "netns", "delete", name);
        Directory.Delete(Scratch, recursive: true);
    }

    private GrpcChannel Channel(string service)
    {
        if (!_channels.TryGetValue(service, out GrpcChannel? channel))
            _channels[service] = channel = UnixChannel.Create(Path.Combine(Scratch, "run", service + ".sock"));
        return channel;
    }

    private Dictionary<string, string> Environment() => new()
    {
        ["VNETMESH_RUN_DIR"] = Path.Combine(Scratch, "run"),
        ["VNETMESH_STATE_DIR"] = Path.Combine(Scratch, "state"),
        ["VNETMESH_CONFIG"] = Path.Combine(Scratch, "none"),
        ["VNETMESH_SERVICE_GID"] = "63108",
    };
}
