using System.Text.Json;
using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>The command line: what it does twice, says in JSON, refuses, and takes back.</summary>
public sealed class CliTests(SharedInstance shared) : SharedInstanceTest(shared)
{
    [Fact]
    public async Task Up_twice_changes_nothing()
    {
        Dictionary<string, int> processes = Instance.ProcessIds();
        string links = (await Instance.Host.RunAsync("ip", "-o", "addr")).Output;
        CommandResult again = (await Instance.VnetAsync("up")).EnsureSuccess();
        Assert.Equal(processes, Instance.ProcessIds());
        Assert.Equal(links, (await Instance.Host.RunAsync("ip", "-o", "addr")).Output);
        Assert.True(again.Elapsed < TimeSpan.FromSeconds(5), again.ToString());
    }

    [Fact]
    public async Task Status_tells_process_state_uptime_and_restarts()
    {
        using JsonDocument status = await Instance.JsonAsync("status");
        string text = status.RootElement.GetRawText();
        foreach ((string service, int process) in Instance.ProcessIds())
        {
            Assert.Contains($"\"{service}\"", text, StringComparison.Ordinal);
            Assert.Contains(process.ToString(System.Globalization.CultureInfo.InvariantCulture), text, StringComparison.Ordinal);
        }
        Assert.Contains("restarts", text, StringComparison.OrdinalIgnoreCase);
        Assert.Contains("uptime", text, StringComparison.OrdinalIgnoreCase);
        Assert.Contains("switch", (await Instance.VnetAsync("status")).EnsureSuccess().Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Every_listing_speaks_json_and_tables()
    {
        await using TestGuest guest = await Instance.AddGuestAsync("listed", "vmnet8");
        await guest.FetchesAsync("3");
        string[][] listings =
        [
            ["network", "ls"], ["network", "show", "vmnet8"], ["port", "ls"], ["port", "show", $"vmnet8/{guest.Name}"], ["mac", "ls", "vmnet8"],
            ["lease", "ls"], ["nat", "flows"], ["guest", "ls"], ["host", "changes"], ["status"],
        ];
        foreach (string[] listing in listings)
        {
            using JsonDocument document = await Instance.JsonAsync(listing);
            Assert.True(document.RootElement.ValueKind is JsonValueKind.Array or JsonValueKind.Object, string.Join(' ', listing));
            (await Instance.VnetAsync(listing)).EnsureSuccess();
        }
        string address = (await guest.AddressAsync()).ToString();
        Assert.Contains(address, (await Instance.VnetAsync("lease", "ls")).Output, StringComparison.Ordinal);
        Assert.Contains(guest.Name, (await Instance.VnetAsync("guest", "ls")).Output, StringComparison.Ordinal);
        Assert.Contains("vmnet8", (await Instance.VnetAsync("network", "ls")).Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_guests_last_doings_are_told_without_any_backend()
    {
        await using TestGuest guest = await Instance.AddGuestAsync("told", "vmnet8");
        Assert.True(await guest.FetchesAsync("3"));
        Assert.Equal(7, (await guest.RunAsync("curl", "-s", "--max-time", "3", $"http://{Instance.WanAddress}:1/")).ExitCode);
        using JsonDocument told = await Instance.JsonAsync("trace", guest.Name);
        Assert.Equal(["ack", "offer"], told.RootElement.GetProperty("exchanges").EnumerateArray().Select(entry => entry.GetProperty("decision").GetString()).Where(decision => decision is "offer" or "ack"));
        JsonElement[] flows = [.. told.RootElement.GetProperty("flows").EnumerateArray()];
        string?[] reasons = [.. flows.Select(flow => flow.GetProperty("flow").GetProperty("endReason").GetString())];
        JsonElement refused = flows[Array.IndexOf(reasons, "dial_refused")];
        // A guest that had this address before may have asked for the server's name; the story then begins with that answer.
        Assert.Equal(["first_frame", "dial", "dial_failed", "ended"], refused.GetProperty("events").EnumerateArray().Select(entry => entry.GetProperty("what").GetString()).Where(what => what != "dns_answer"));
        string name = refused.GetProperty("flow").GetProperty("name").GetString()!;
        Assert.Contains("dial_refused", (await Instance.VnetAsync("flow", "show", name)).EnsureSuccess().Output, StringComparison.Ordinal);
        Assert.Contains("request → ack", (await Instance.VnetAsync("trace", guest.Name)).EnsureSuccess().Output, StringComparison.Ordinal);
        Assert.Equal(5, (await Instance.VnetAsync("flow", "show", "vmnet8/999999")).ExitCode);
        Assert.Equal(5, (await Instance.VnetAsync("trace", "nobody")).ExitCode);
        Assert.Equal(2, (await Instance.VnetAsync("trace", guest.Name, "-n", "0")).ExitCode);
    }

    /// <summary>The exit codes are those of docs/cli.md.</summary>
    [Fact]
    public async Task Errors_are_one_line_and_have_their_exit_code()
    {
        await using TestGuest guest = await Instance.AddGuestAsync("twice", "vmnet8", "--no-dhcp");
        (string[] Arguments, int ExitCode)[] wrong =
        [
            (["network", "show", "none"], 5), (["port", "show", "vmnet8/none"], 5), (["mac", "ls", "none"], 5), (["guest", "rm", "none"], 5),
            (["guest", "add", $"{Instance.Prefix}-x", "--network", "none"], 5), (["guest", "add", "Not_A_Name", "--network", "vmnet8"], 2),
            (["guest", "add", guest.Name, "--network", "vmnet8"], 6), (["network", "create", "vmnet8", "--kind", "nat"], 6),
            (["network", "create", "over", "--kind", "nat", "--subnet", "192.168.108.0/25"], 7), (["network", "create", "tiny", "--kind", "nat", "--mtu", "100"], 2),
        ];
        foreach ((string[] arguments, int exitCode) in wrong)
        {
            CommandResult result = await Instance.VnetAsync(arguments);
            Assert.True(result.ExitCode == exitCode, $"exit code {exitCode} is right\n{result}");
            Assert.Single(result.Error.Trim().Split('\n'));
            Assert.Equal("", result.Output);
        }
        Assert.Equal(2, (await Instance.VnetAsync("no-such-command")).ExitCode);
        Assert.DoesNotContain(NetworkNamespace.List(), name => name == $"{Instance.Prefix}-x");
        Assert.Equal(0, (await Instance.VnetAsync("--help")).ExitCode);
    }

    [Fact]
    public async Task Host_changes_are_listed_and_a_guests_are_gone_with_it()
    {
        string before = (await Instance.VnetAsync("host", "changes", "--json")).EnsureSuccess().Output;
        Assert.Contains("vmnet1", before, StringComparison.Ordinal);
        Assert.Contains("vmnet8", before, StringComparison.Ordinal);
        TestGuest guest = await Instance.AddGuestAsync("changes", "vmnet8");
        Assert.Contains(guest.Name, (await Instance.VnetAsync("host", "changes", "--json")).Output, StringComparison.Ordinal);
        (await Instance.VnetAsync("guest", "rm", guest.Name)).EnsureSuccess();
        Assert.DoesNotContain(guest.Name, (await Instance.VnetAsync("host", "changes", "--json")).Output, StringComparison.Ordinal);
        Assert.DoesNotContain(guest.Name, NetworkNamespace.List());
        Assert.False(Directory.Exists("/etc/netns/" + guest.Name));
    }

    [Fact]
    public async Task An_existing_namespace_is_plugged_in_and_left_alone_afterwards()
    {
        NetworkNamespace container = await NetworkNamespace.CreateAsync(Instance.Prefix + "-box");
        string links = (await container.RunAsync("ip", "-o", "link")).Output;
        await using BackgroundCommand inside = container.Start("sleep", "60");
        await Wait.UntilAsync(TimeSpan.FromSeconds(2), "the process is inside", async () => (await Command.RunAsync("ip", "netns", "pids", container.Name)).Output.Length > 0);
        foreach (string netns in new[] { container.Path, inside.ProcessId.ToString(System.Globalization.CultureInfo.InvariantCulture) })
        {
            (await Instance.VnetAsync("guest", "add", $"{Instance.Prefix}-c", "--network", "vmnet8", "--netns", netns)).EnsureSuccess();
            Assert.StartsWith("192.168.108.", Assert.Single(await container.AddressesAsync("eth0")), StringComparison.Ordinal);
            (await container.RunAsync("curl", "-sSf", "--max-time", "3", $"http://{Instance.WanAddress}/")).EnsureSuccess();
            (await Instance.VnetAsync("guest", "rm", $"{Instance.Prefix}-c")).EnsureSuccess();
            Assert.Equal(links, (await container.RunAsync("ip", "-o", "link")).Output);
        }
        Assert.False(inside.HasExited);
    }

    [Fact]
    public async Task A_network_of_ones_own_is_made_changed_used_and_removed()
    {
        (await Instance.VnetAsync("network", "create", "own1", "--kind", "nat", "--subnet", "10.99.0.0/24")).EnsureSuccess();
        try
        {
            await using (TestGuest guest = await Instance.AddGuestAsync("own", "own1"))
            {
                Assert.StartsWith("10.99.0.", (await guest.AddressAsync()).ToString(), StringComparison.Ordinal);
                Assert.True(await guest.FetchesAsync("3"));
                CommandResult inUse = await Instance.VnetAsync("network", "rm", "own1");
                Assert.NotEqual(0, inUse.ExitCode);
            }
            CommandResult overlap = await Instance.VnetAsync("network", "create", "own2", "--kind", "nat", "--subnet", "10.99.0.128/25");
            Assert.NotEqual(0, overlap.ExitCode);
            Assert.Contains("own1", overlap.Error, StringComparison.Ordinal);
        }
        finally
        {
            (await Instance.VnetAsync("network", "rm", "own1")).EnsureSuccess();
        }
        await Wait.UntilAsync(TimeSpan.FromSeconds(3), "the host adapter is gone", async () => !(await Instance.Host.RunAsync("ip", "-o", "link")).Output.Contains("own1", StringComparison.Ordinal));
    }

    [Fact]
    public async Task The_same_guest_has_the_same_mac_and_another_can_be_given()
    {
        TestGuest guest = await Instance.AddGuestAsync("mac", "vmnet8");
        string first = (await guest.RunAsync("cat", "/sys/class/net/eth0/address")).Output.Trim();
        await guest.DisposeAsync();
        guest = await Instance.AddGuestAsync("mac", "vmnet8");
        Assert.Equal(first, (await guest.RunAsync("cat", "/sys/class/net/eth0/address")).Output.Trim());
        Assert.StartsWith("02:56:4e:", first, StringComparison.Ordinal);
        await guest.DisposeAsync();
        guest = await Instance.AddGuestAsync("mac", "vmnet8", "--mac", "02:00:5e:10:00:42");
        Assert.Equal("02:00:5e:10:00:42", (await guest.RunAsync("cat", "/sys/class/net/eth0/address")).Output.Trim());
        await guest.DisposeAsync();
    }
}
