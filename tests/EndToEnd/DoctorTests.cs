using System.Text.Json;
using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>`vnet doctor`: what is broken on purpose is what it names.</summary>
public sealed class DoctorTests(SharedInstance shared) : SharedInstanceTest(shared)
{
    private TestGuest _guest = null!;

    public override async ValueTask InitializeAsync()
    {
        await base.InitializeAsync();
        _guest = await Instance.AddGuestAsync("doc", "vmnet8");
    }

    public override async ValueTask DisposeAsync()
    {
        if (_guest is not null)
            await _guest.DisposeAsync();
        await base.DisposeAsync();
        GC.SuppressFinalize(this);
    }

    [Fact]
    public async Task A_guest_that_is_well_is_well_to_the_far_end()
    {
        CommandResult result = (await ExamineAsync("--to", $"{Instance.WanAddress}:80")).EnsureSuccess();
        using JsonDocument findings = JsonDocument.Parse(result.Output);
        Assert.Equal(["services", "networks", "devices", "dhcp", "nat", "namespace", "port", "lease", "gateway", "dns", "dial", "host"],
            findings.RootElement.EnumerateArray().Select(finding => finding.GetProperty("check").GetString()));
        Assert.All(findings.RootElement.EnumerateArray(), finding => Assert.Equal("ok", finding.GetProperty("state").GetString()));
        CommandResult text = (await Instance.VnetAsync("doctor", _guest.Name)).EnsureSuccess();
        Assert.Contains("ok    gateway    192.168.108.2 answers", text.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_is_broken_in_the_guest_is_named()
    {
        await _guest.RunAsync("ip", "link", "set", "eth0", "down");
        await FailsAsync("namespace", "eth0 is down", "ip link set eth0 up");
        await _guest.RunAsync("ip", "link", "set", "eth0", "up");
        // Going down took the route away.
        await FailsAsync("gateway", "no default route", "ip route replace default via 192.168.108.2");
        await _guest.RunAsync("ip", "route", "replace", "default", "via", "192.168.108.2");
        (await ExamineAsync()).EnsureSuccess();
        string address = (await _guest.AddressAsync()).ToString();
        await _guest.RunAsync("ip", "addr", "flush", "dev", "eth0");
        await FailsAsync("lease", "it has no address; dhcp's last word to its request was ack", "vnet trace");
        await _guest.RunAsync("ip", "addr", "add", address + "/24", "dev", "eth0");
        await _guest.RunAsync("ip", "route", "replace", "default", "via", "192.168.108.2");
        (await ExamineAsync()).EnsureSuccess();
    }

    [Fact]
    public async Task A_server_that_cannot_be_reached_is_told_from_a_network_that_does_not_work()
    {
        await FailsAsync("dial", "refuses the connection", "the way is open", "--to", $"{Instance.WanAddress}:81");
        await FailsAsync("dial", "nor from the host", "it is not VNetMesh", "--to", $"{Instance.UnreachableAddress}:80");
        Assert.Equal(5, (await Instance.VnetAsync("doctor", "nobody")).ExitCode);
        Assert.Equal(2, (await Instance.VnetAsync("doctor", "--to", "192.0.2.1:80")).ExitCode);
        Assert.Equal(2, (await Instance.VnetAsync("doctor", _guest.Name, "--to", "somewhere")).ExitCode);
    }

    private Task<CommandResult> ExamineAsync(params string[] more) => Instance.VnetAsync(["doctor", _guest.Name, "--json", .. more]);

    /// <summary>One check fails, with these words; those after it are not made.</summary>
    private async Task FailsAsync(string check, string text, string advice, params string[] more)
    {
        CommandResult result = await ExamineAsync(more);
        Assert.True(result.ExitCode == 1, result.ToString());
        using JsonDocument findings = JsonDocument.Parse(result.Output);
        JsonElement failed = findings.RootElement.EnumerateArray().Single(finding => finding.GetProperty("state").GetString() == "fail");
        Assert.Equal(check, failed.GetProperty("check").GetString());
        Assert.Contains(text, failed.GetProperty("text").GetString(), StringComparison.Ordinal);
        Assert.Contains(advice, failed.GetProperty("advice").GetString(), StringComparison.Ordinal);
        Assert.All(findings.RootElement.EnumerateArray().SkipWhile(finding => finding.GetProperty("state").GetString() != "fail").Skip(1),
            finding => Assert.Equal("unchecked", finding.GetProperty("state").GetString()));
    }
}
