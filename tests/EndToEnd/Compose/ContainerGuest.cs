using System.Text.Json;
using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests.Compose;

/// <summary>A container without a network of the engine's, plugged into vmnet8 by its name, with the host's command line.</summary>
internal sealed class ContainerGuest(DockerEngine engine, Instance instance, string name)
{
    private static readonly TimeSpan Soon = TimeSpan.FromSeconds(30);
    private string? _runDirectory;

    /// <summary>With vmnet8's gateway as its resolver, as docs/containers.md has it.</summary>
    public async Task StartAsync() =>
        (await engine.DockerAsync("run", "--detach", "--network", "none", "--dns", "192.168.108.2", "--name", name, "--entrypoint", "sleep", "vnetmesh-agent:local", "3600")).EnsureSuccess();

    /// <returns>Its address, without a prefix length.</returns>
    public async Task<string> AddAsync()
    {
        (await VnetAsync("guest", "add", name, "--network", "vmnet8", "--container", name)).EnsureSuccess();
        using JsonDocument guest = await ShowAsync();
        Assert.Equal(name, guest.RootElement.GetProperty("container").GetString());
        Assert.Equal("READY", guest.RootElement.GetProperty("state").GetString()!.Split('_')[^1]);
        return guest.RootElement.GetProperty("ipv4Addresses")[0].GetString()!.Split('/')[0];
    }

    public async Task<bool> FetchesAsync(string host = Instance.WanAddress) =>
        (await engine.DockerAsync("exec", name, "curl", "-sS", "--max-time", "2", $"http://{host}/")).EnsureSuccess().Output.StartsWith("hello", StringComparison.Ordinal);

    /// <summary>Its namespace is another one then: the guest says so, holds nothing of the old one, and is plugged in again with the address it had.</summary>
    public async Task IsCleanedUpAfterARestartAsync()
    {
        string before = await AddressAsync();
        int client = await ClientAsync();
        (await engine.DockerAsync("restart", "--time", "0", name)).EnsureSuccess();
        await IsLetGoAsync(client);
        // The same command again: the guest that is there makes room. A second time it is there already.
        Assert.Equal(before, await AddAsync());
        Assert.True(await FetchesAsync());
        Assert.Equal(6, (await VnetAsync("guest", "add", name, "--network", "vmnet8", "--container", name)).ExitCode);
    }

    public async Task IsCleanedUpAfterItsRemovalAsync()
    {
        int client = await ClientAsync();
        (await engine.DockerAsync("rm", "--force", name)).EnsureSuccess();
        await IsLetGoAsync(client);
        (await VnetAsync("guest", "rm", name)).EnsureSuccess();
        Assert.DoesNotContain(name, (await VnetAsync("port", "ls")).EnsureSuccess().Output, StringComparison.Ordinal);
        Assert.DoesNotContain(name, (await VnetAsync("host", "changes")).EnsureSuccess().Output, StringComparison.Ordinal);
        CommandResult again = await VnetAsync("guest", "add", name, "--network", "vmnet8", "--container", name);
        Assert.Equal(5, again.ExitCode);
        Assert.Contains($"there is no container '{name}'", again.Error, StringComparison.Ordinal);
    }

    /// <summary>The host's command line, with the services' run directory on the host.</summary>
    public async Task<CommandResult> VnetAsync(params string[] arguments)
    {
        _runDirectory ??= (await engine.DockerAsync("volume", "inspect", "--format", "{{.Mountpoint}}", DockerEngine.Project + "_run")).EnsureSuccess().Output.Trim();
        return await Command.RunAsync(Soon, ["nsenter", "--net=" + instance.Host.Path, Instance.CommandLine, .. arguments],
            new Dictionary<string, string> { ["VNETMESH_RUN_DIR"] = _runDirectory, ["VNETMESH_STATE_DIR"] = instance.StateDirectory, ["DOCKER_HOST"] = engine.Address });
    }

    private async Task IsLetGoAsync(int client)
    {
        await Wait.UntilAsync(Soon, $"the guest {name} says that its container is gone", async () =>
        {
            using JsonDocument guest = await ShowAsync();
            return guest.RootElement.GetProperty("state").GetString()!.EndsWith("DEGRADED", StringComparison.Ordinal)
                && guest.RootElement.GetProperty("conditions")[0].GetString()!.Contains($"the container {name} was stopped or restarted", StringComparison.Ordinal);
        });
        Assert.False(Directory.Exists($"/proc/{client}"), "its DHCP client still runs");
        CommandResult ports = (await VnetAsync("port", "ls")).EnsureSuccess();
        Assert.DoesNotContain(ports.Output.Split('\n'), line => line.Contains(name, StringComparison.Ordinal) && line.Contains(" up ", StringComparison.Ordinal));
    }

    private async Task<string> AddressAsync()
    {
        using JsonDocument guest = await ShowAsync();
        return guest.RootElement.GetProperty("ipv4Addresses")[0].GetString()!.Split('/')[0];
    }

    private async Task<int> ClientAsync()
    {
        using JsonDocument guest = await ShowAsync();
        return guest.RootElement.GetProperty("dhcpClientPid").GetInt32();
    }

    private async Task<JsonDocument> ShowAsync() => JsonDocument.Parse((await VnetAsync("guest", "show", name, "--json")).EnsureSuccess().Output);
}
