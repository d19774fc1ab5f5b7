using System.Globalization;
using VNetMesh.EndToEnd.Tests.Compose;
using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>compose.yaml on a real engine, from the build of the images to nothing left.</summary>
public sealed class ComposeTests : OwnInstanceTest
{
    private static readonly TimeSpan Soon = TimeSpan.FromSeconds(30);

    /// <summary>The instance gives the host, the wan and its servers; the services are the containers'.</summary>
    protected override InstanceOptions Options => new() { Up = false };

    [Fact]
    public async Task Compose_brings_up_the_system_and_takes_it_down_again()
    {
        Require.Programs("dockerd", "docker", "docker-compose", "debootstrap");
        string resolvConf = $"/etc/netns/{Instance.Host.Name}/resolv.conf";
        var settings = new Dictionary<string, string> { ["VNETMESH_HOST_RESOLV_CONF"] = resolvConf, ["VNETMESH_CONFIG_DIR"] = Instance.ScratchDirectory };
        await using DockerEngine engine = await DockerEngine.StartAsync(Instance.ScratchDirectory + "/docker", Instance.Host, settings);
        await BaseImages.ImportAsync(engine, Instance.ScratchDirectory);
        string before = await Instance.DescribeHostAsync();
        try
        {
            Log("build: " + Seconds((await engine.ComposeAsync(TimeSpan.FromMinutes(8), "build")).EnsureSuccess()));
            Log("up: " + Seconds((await engine.ComposeAsync(TimeSpan.FromMinutes(2), "up", "-d")).EnsureSuccess()));
            await AllAreHealthyAsync(engine);
            await RightsAreDroppedAsync(engine);
            Log((await engine.DockerAsync("images")).Output);
            string guest = await GuestsReachTheWanAsync(engine);
            foreach (string service in Instance.Services)
                await ComesBackAsync(engine, service, guest);
            await CommandLineOfTheHostWorksAsync(engine);
            Log((await engine.DockerAsync("stats", "--no-stream")).Output);
            (await engine.DockerAsync("rm", "--force", guest + "-box")).EnsureSuccess();
        }
        catch
        {
            Log((await engine.ComposeAsync(Soon, "logs", "--no-color", "--tail", "40")).Output);
            throw;
        }
        finally
        {
            CommandResult down = await engine.ComposeAsync(TimeSpan.FromMinutes(2), "down", "--volumes");
            Log("down: " + Seconds(down));
        }
        Assert.Equal(before, await Instance.DescribeHostAsync());
        Assert.Equal("", (await engine.DockerAsync("volume", "ls", "--quiet")).EnsureSuccess().Output);
        Assert.Equal("", (await engine.DockerAsync("ps", "--all", "--quiet")).EnsureSuccess().Output);
        Assert.DoesNotContain(File.ReadLines("/proc/mounts"), line => line.Contains(engine.DataRoot + "/volumes", StringComparison.Ordinal));
    }

    private static string Seconds(CommandResult result) => string.Create(CultureInfo.InvariantCulture, $"{result.Elapsed.TotalSeconds:0.0} s");

    private static async Task AllAreHealthyAsync(DockerEngine engine)
    {
        await Wait.UntilAsync(Soon, "all services are healthy", async () => (await engine.VnetAsync("status")).ExitCode == 0);
        Assert.Contains("run by docker compose", (await engine.VnetAsync("status")).Output, StringComparison.Ordinal);
        // The engine's own health check, run by hand: its first turn comes after 30 s.
        foreach (string service in Instance.Services)
            (await engine.DockerAsync("exec", DockerEngine.ContainerOf(service), "/app/vnetmesh-" + service, "health")).EnsureSuccess();
    }

    /// <summary>What the kernel says of the processes, not what the file promises.</summary>
    private static async Task RightsAreDroppedAsync(DockerEngine engine)
    {
        foreach (string service in Instance.Services)
        {
            int process = await engine.ProcessIdAsync(DockerEngine.ContainerOf(service));
            Dictionary<string, string> status = File.ReadLines($"/proc/{process}/status").Select(line => line.Split(':', 2)).ToDictionary(pair => pair[0], pair => pair[1].Trim());
            Assert.Equal("1", status["NoNewPrivs"]);
            Assert.Equal("2", status["Seccomp"]);
            if (service == "agent")
                continue;
            Assert.StartsWith("63108\t63108", status["Uid"], StringComparison.Ordinal);
            Assert.Equal(0UL, ulong.Parse(status["CapBnd"], NumberStyles.HexNumber, CultureInfo.InvariantCulture));
            Assert.Contains(" / ", File.ReadLines($"/proc/{process}/mountinfo").Single(line => line.Split(' ')[4] == "/" && line.Split(' ')[5].StartsWith("ro", StringComparison.Ordinal)), StringComparison.Ordinal);
            string[] devices = [.. File.ReadLines($"/proc/{process}/net/dev").Skip(2).Select(line => line.Split(':')[0].Trim())];
            if (service != "nat")
                Assert.Equal(["lo"], devices);
        }
    }

    /// <summary>A namespace, and a container without a network.</summary>
    /// <returns>The namespace's name; the container is called NAME-box.</returns>
    private async Task<string> GuestsReachTheWanAsync(DockerEngine engine)
    {
        string guest = Instance.Prefix + "-g";
        (await engine.VnetAsync("guest", "add", guest, "--network", "vmnet8")).EnsureSuccess();
        (await engine.DockerAsync("run", "--detach", "--network", "none", "--name", guest + "-box", "--entrypoint", "sleep", "vnetmesh-agent:local", "3600")).EnsureSuccess();
        int process = await engine.ProcessIdAsync(guest + "-box");
        (await engine.VnetAsync("guest", "add", "box", "--network", "vmnet8", "--netns", process.ToString(CultureInfo.InvariantCulture))).EnsureSuccess();
        await BothFetchAsync(engine, guest);
        // By name: the namespace's resolv.conf leads to nat's DNS proxy, and that to the host's resolver.
        Assert.StartsWith("hello", (await new NetworkNamespace(guest).RunAsync("curl", "-sS", "--max-time", "5", "http://web.wan.test/")).EnsureSuccess().Output, StringComparison.Ordinal);
        return guest;
    }

    private static async Task BothFetchAsync(DockerEngine engine, string guest)
    {
        string url = $"http://{Instance.WanAddress}/";
        await Wait.UntilAsync(Soon, "a namespace and a container fetch through NAT", async () =>
            (await new NetworkNamespace(guest).RunAsync("curl", "-sS", "--max-time", "2", url)).EnsureSuccess().Output.StartsWith("hello", StringComparison.Ordinal)
            && (await engine.DockerAsync("exec", guest + "-box", "curl", "-sS", "--max-time", "2", url)).EnsureSuccess().Output.StartsWith("hello", StringComparison.Ordinal));
    }

    /// <summary>By the kernel, as a crash: `docker kill` would count as a wish that it be stopped.</summary>
    private static async Task ComesBackAsync(DockerEngine engine, string service, string guest)
    {
        string container = DockerEngine.ContainerOf(service);
        int before = await engine.ProcessIdAsync(container);
        Assert.True(NetworkNamespace.Kill(before, 9), $"{service} was not running");
        TimeSpan back = await Wait.UntilAsync(Soon, $"{service} is back", async () =>
            await engine.ProcessIdAsync(container) is var now && now != 0 && now != before && (await engine.VnetAsync("status")).ExitCode == 0);
        await BothFetchAsync(engine, guest);
        Log(string.Create(CultureInfo.InvariantCulture, $"{service} killed, back after {back.TotalSeconds:0.0} s"));
    }

    /// <summary>The same run directory, seen from outside: it shows, and neither starts nor stops what it does not run.</summary>
    private async Task CommandLineOfTheHostWorksAsync(DockerEngine engine)
    {
        string directory = (await engine.DockerAsync("volume", "inspect", "--format", "{{.Mountpoint}}", DockerEngine.Project + "_run")).EnsureSuccess().Output.Trim();
        async Task<CommandResult> HostVnetAsync(string command) => await Command.RunAsync(Soon,
            ["nsenter", "--net=" + Instance.Host.Path, Instance.CommandLine, command], new Dictionary<string, string> { ["VNETMESH_RUN_DIR"] = directory, ["VNETMESH_STATE_DIR"] = Instance.StateDirectory });
        Assert.Contains("not by vnet up", (await HostVnetAsync("status")).EnsureSuccess().Output, StringComparison.Ordinal);
        (await HostVnetAsync("up")).EnsureSuccess();
        CommandResult down = await HostVnetAsync("down");
        Assert.Equal(7, down.ExitCode);
        Assert.Contains("docker compose down", down.Error, StringComparison.Ordinal);
    }
}
