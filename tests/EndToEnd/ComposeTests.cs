using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using VNetMesh.EndToEnd.Tests.Compose;
using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>compose.yaml on a real engine, from the build of the images to nothing left.</summary>
public sealed class ComposeTests : OwnInstanceTest
{
    private static readonly TimeSpan Soon = TimeSpan.FromSeconds(30);
    private readonly Stopwatch _watch = Stopwatch.StartNew();

    /// <summary>The instance gives the host, the wan and its servers; the services are the containers'.</summary>
    protected override InstanceOptions Options => new() { Up = false };

    [Fact]
    public async Task Compose_brings_up_the_system_and_takes_it_down_again()
    {
        Assert.SkipWhen(NetworkNamespace.List().Any(name => name is "web1" or "web2" or "lab1"), "namespaces called web1, web2 or lab1 exist already: a demo runs on this machine");
        Require.Programs("dockerd", "docker", "docker-compose", "debootstrap");
        await BaseImages.EnsureDebianAsync();
        Told("Debian made");
        string resolvConf = $"/etc/netns/{Instance.Host.Name}/resolv.conf";
        var settings = new Dictionary<string, string>(OtlpReceiver.Environment) { ["VNETMESH_HOST_RESOLV_CONF"] = resolvConf, ["VNETMESH_CONFIG_DIR"] = Instance.ScratchDirectory };
        using var receiver = new OtlpReceiver(Instance.Host);
        await using DockerEngine engine = await DockerEngine.StartAsync(Instance.ScratchDirectory + "/docker", Instance.Host, settings);
        Told("engine started");
        await BaseImages.ImportAsync(engine, Instance.ScratchDirectory);
        Told("base images imported");
        string before = await Instance.DescribeHostAsync();
        string[] namespaces = NetworkNamespace.List();
        try
        {
            (await engine.ComposeAsync(TimeSpan.FromMinutes(8), "build")).EnsureSuccess();
            Told("images built");
            await StartsInAnyOrderAsync(engine);
            await RightsAreDroppedAsync(engine);
            Log((await engine.DockerAsync("images")).Output);
            await GuestsWorkAsync(engine);
            await MetricsAreOnLoopbackAsync();
            await TracesComeOfAllAsync(receiver);
            await DemoWorksAsync(engine);
            await StopsWithGraceAsync(engine);
        }
        catch
        {
            Log((await engine.ComposeAsync(Soon, "logs", "--no-color", "--tail", "40")).Output);
            throw;
        }
        finally
        {
            (await engine.ComposeAsync(TimeSpan.FromMinutes(2), "down", "--volumes")).EnsureSuccess();
            Told("down");
        }
        (await Instance.Host.RunAsync("sh", "-c", $"ip addr add {Instance.HostWanAddress}/24 dev wan0 && ip route add default via {Instance.WanAddress}")).EnsureSuccess();
        Assert.Equal(before, await Instance.DescribeHostAsync());
        Assert.DoesNotContain(NetworkNamespace.List().Except(namespaces), name => name is "web1" or "web2" or "lab1" || name.Contains("demo", StringComparison.Ordinal));
        Assert.Equal("", (await engine.DockerAsync("volume", "ls", "--quiet")).EnsureSuccess().Output);
        Assert.Equal("", (await engine.DockerAsync("ps", "--all", "--quiet")).EnsureSuccess().Output);
        Assert.Equal("", (await engine.DockerAsync("network", "ls", "--quiet", "--filter", "type=custom")).EnsureSuccess().Output);
        Assert.DoesNotContain(File.ReadLines("/proc/mounts"), line => line.Contains(engine.DataRoot + "/volumes", StringComparison.Ordinal));
    }

    private void Told(string done) => Log(string.Create(CultureInfo.InvariantCulture, $"{_watch.Elapsed.TotalSeconds,6:0.0} s  {done}"));

    private async Task StartsInAnyOrderAsync(DockerEngine engine)
    {
        // Those that need the switch first, as a start of the machine may have it.
        (await engine.ComposeAsync(TimeSpan.FromMinutes(1), "up", "-d", "agent", "nat")).EnsureSuccess();
        await Wait.UntilAsync(Soon, "agent and nat run without the switch", async () =>
            await engine.ProcessIdAsync(await engine.ContainerOfAsync("agent")) != 0 && await engine.ProcessIdAsync(await engine.ContainerOfAsync("nat")) != 0);
        (await engine.ComposeAsync(TimeSpan.FromMinutes(1), "up", "-d")).EnsureSuccess();
        await Wait.UntilAsync(Soon, "all services are healthy", async () => (await engine.VnetAsync("status")).ExitCode == 0);
        Assert.Contains("run by docker compose", (await engine.VnetAsync("status")).Output, StringComparison.Ordinal);
        // The engine's own health check, run by hand: its first turn comes after 30 s.
        foreach (string service in Instance.Services)
            (await engine.DockerAsync("exec", await engine.ContainerOfAsync(service), "/app/vnetmesh-" + service, "health")).EnsureSuccess();
        Told("up and healthy");
    }

    /// <summary>What the kernel says of the processes, not what the file promises.</summary>
    private static async Task RightsAreDroppedAsync(DockerEngine engine)
    {
        foreach (string service in Instance.Services)
        {
            int process = await engine.ProcessIdAsync(await engine.ContainerOfAsync(service));
            Dictionary<string, string> status = File.ReadLines($"/proc/{process}/status").Select(line => line.Split(':', 2)).ToDictionary(pair => pair[0], pair => pair[1].Trim());
            Assert.Equal("1", status["NoNewPrivs"]);
            Assert.Equal("2", status["Seccomp"]);
            Assert.Contains(" / ", File.ReadLines($"/proc/{process}/mountinfo").Single(line => line.Split(' ')[4] == "/" && line.Split(' ')[5].StartsWith("ro", StringComparison.Ordinal)), StringComparison.Ordinal);
            if (service == "agent")
                continue;
            Assert.StartsWith("63108\t63108", status["Uid"], StringComparison.Ordinal);
            Assert.Equal(0UL, ulong.Parse(status["CapBnd"], NumberStyles.HexNumber, CultureInfo.InvariantCulture));
            string[] devices = [.. File.ReadLines($"/proc/{process}/net/dev").Skip(2).Select(line => line.Split(':')[0].Trim())];
            if (service != "nat")
                Assert.Equal(["lo"], devices);
        }
    }

    /// <summary>A namespace by the command line in the agent's container, and a container without a network by that of the host.</summary>
    private async Task GuestsWorkAsync(DockerEngine engine)
    {
        string guest = Instance.Prefix + "-g";
        var box = new ContainerGuest(engine, Instance, guest + "-box");
        (await engine.VnetAsync("guest", "add", guest, "--network", "vmnet8")).EnsureSuccess();
        await box.StartAsync();
        await box.AddAsync();
        await BothFetchAsync(box, guest);
        // By name: the container's and the namespace's resolv.conf lead to nat's DNS proxy, and that to the host's resolver.
        Assert.True(await box.FetchesAsync("web.wan.test"));
        Assert.StartsWith("hello", (await new NetworkNamespace(guest).RunAsync("curl", "-sS", "--max-time", "5", "http://web.wan.test/")).EnsureSuccess().Output, StringComparison.Ordinal);
        Told("a namespace and a container fetch");
        foreach (string service in Instance.Services)
            await ComesBackAsync(engine, service, box, guest);
        await CommandLineOfTheHostAsync(box);
        await box.IsCleanedUpAfterARestartAsync();
        Told("container restarted and plugged in again");
        await box.IsCleanedUpAfterItsRemovalAsync();
        Told("container removed");
    }

    private static async Task BothFetchAsync(ContainerGuest box, string guest) =>
        await Wait.UntilAsync(Soon, "a namespace and a container fetch through NAT", async () =>
            (await new NetworkNamespace(guest).RunAsync("curl", "-sS", "--max-time", "2", $"http://{Instance.WanAddress}/")).EnsureSuccess().Output.StartsWith("hello", StringComparison.Ordinal)
            && await box.FetchesAsync());

    /// <summary>By the kernel, as a crash: `docker kill` would count as a wish that it be stopped.</summary>
    private async Task ComesBackAsync(DockerEngine engine, string service, ContainerGuest box, string guest)
    {
        string container = await engine.ContainerOfAsync(service);
        int before = await engine.ProcessIdAsync(container);
        Assert.True(NetworkNamespace.Kill(before, 9), $"{service} was not running");
        TimeSpan back = await Wait.UntilAsync(Soon, $"{service} is back", async () =>
            await engine.ProcessIdAsync(container) is var now && now != 0 && now != before && (await engine.VnetAsync("status")).ExitCode == 0);
        await BothFetchAsync(box, guest);
        Told(string.Create(CultureInfo.InvariantCulture, $"{service} killed, back after {back.TotalSeconds:0.0} s"));
    }

    /// <summary>The same run directory, seen from outside: it shows, and neither starts nor stops what it does not run.</summary>
    private static async Task CommandLineOfTheHostAsync(ContainerGuest box)
    {
        Assert.Contains("not by vnet up", (await box.VnetAsync("status")).EnsureSuccess().Output, StringComparison.Ordinal);
        (await box.VnetAsync("up")).EnsureSuccess();
        CommandResult down = await box.VnetAsync("down");
        Assert.Equal(7, down.ExitCode);
        Assert.Contains("docker compose down", down.Error, StringComparison.Ordinal);
    }

    /// <summary>What docs/compose.md begins with. It is not cleaned up here: that, too, is left to the end of the containers.</summary>
    private async Task DemoWorksAsync(DockerEngine engine)
    {
        // The demo's outside world has the addresses of the tests' own.
        (await Instance.Host.RunAsync("ip", "addr", "del", Instance.HostWanAddress + "/24", "dev", "wan0")).EnsureSuccess();
        CommandResult demo = (await engine.VnetAsync("demo")).EnsureSuccess();
        Assert.DoesNotContain("✘", demo.Output, StringComparison.Ordinal);
        Assert.Contains("web1 fetches from it through NAT", demo.Output, StringComparison.Ordinal);
        Assert.Contains("vdemo", await Instance.DescribeHostAsync(), StringComparison.Ordinal);
        Told("demo shown");
    }

    /// <summary>Where prometheus.yml looks for them.</summary>
    private async Task MetricsAreOnLoopbackAsync()
    {
        foreach (string service in Instance.Services)
            Assert.Contains($"vnetmesh_{service}_", (await Instance.Host.RunAsync("curl", "-sSf", "--max-time", "5", "http://127.0.0.1:9470/metrics/" + service)).EnsureSuccess().Output, StringComparison.Ordinal);
    }

    /// <summary>Also of switch and dhcp, which have no network to export by; and a flow is one trace across processes.</summary>
    private async Task TracesComeOfAllAsync(OtlpReceiver receiver)
    {
        await Wait.UntilAsync(Soon, "spans of all services, and a flow of nat's that began at the switch", () =>
        {
            IReadOnlyList<ReceivedSpan> spans = receiver.Spans;
            return Instance.Services.All(service => spans.Any(span => span.Service == "vnetmesh-" + service))
                && spans.Any(flow => flow.Name == "nat.flow" && spans.Any(first => first.Name == "switch.first_frame" && first.TraceId == flow.TraceId && first.SpanId == flow.ParentId));
        });
        Told("traces have come");
    }

    /// <summary>Each ends by itself when asked, within its time and its memory.</summary>
    private async Task StopsWithGraceAsync(DockerEngine engine)
    {
        Log((await engine.DockerAsync("stats", "--no-stream")).Output);
        (await engine.ComposeAsync(TimeSpan.FromMinutes(2), "stop")).EnsureSuccess();
        foreach (string service in Instance.Services)
        {
            string says = (await engine.DockerAsync("inspect", "--format", "{{json .}}", await engine.ContainerOfAsync(service))).EnsureSuccess().Output;
            using JsonDocument document = JsonDocument.Parse(says);
            JsonElement state = document.RootElement.GetProperty("State"), host = document.RootElement.GetProperty("HostConfig");
            Assert.True(state.GetProperty("ExitCode").GetInt32() == 0, $"{service} ended with {state}");
            Assert.False(state.GetProperty("OOMKilled").GetBoolean());
            Assert.True(host.GetProperty("Memory").GetInt64() > 0, $"{service} has no limit of memory");
            Assert.Equal("unless-stopped", host.GetProperty("RestartPolicy").GetProperty("Name").GetString());
        }
        Told("stopped");
    }
}
