using System.Diagnostics;
using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>4. kill -9 of each service and of all at once, under traffic; and a host that is left as it was.</summary>
public sealed class ResilienceTests : OwnInstanceTest
{
    /// <summary>Within this time after a service's return new connections work again.</summary>
    private static readonly TimeSpan Recovery = TimeSpan.FromSeconds(2);

    /// <summary>The host is described before anything is started on it.</summary>
    protected override InstanceOptions Options => new() { Up = false };

    [Fact]
    public async Task Killed_services_come_back_and_down_leaves_the_host_as_it_was()
    {
        string before = await Instance.DescribeHostAsync();
        (await Instance.VnetAsync("up")).EnsureSuccess();
        await using TestGuest web1 = await Instance.AddGuestAsync("web1", "vmnet8");
        await using TestGuest web2 = await Instance.AddGuestAsync("web2", "vmnet8");
        await using TestGuest lab1 = await Instance.AddGuestAsync("lab1", "vmnet1");
        TestGuest[] guests = [web1, web2, lab1];
        string untouched = await DescribeAsync(guests);

        // Traffic all the while: a download that never ends, started again when it breaks, and pings between guests.
        await using BackgroundCommand download = web1.Namespace.Start("sh", "-c", $"while :; do curl -s -o /dev/null --limit-rate 5M --max-time 30 http://{Instance.WanAddress}/bytes/1000000000; sleep 0.1; done");
        await using BackgroundCommand ping = web2.Namespace.Start("ping", "-i", "0.05", "-q", (await web1.AddressAsync()).ToString());

        foreach (string[] killed in (string[][])[["switch"], ["dhcp"], ["nat"], ["agent"], ["switch", "dhcp", "nat", "agent"]])
        {
            var watch = Stopwatch.StartNew();
            await Instance.KillAsync(killed);
            TimeSpan back = watch.Elapsed;
            TimeSpan recovered = await Wait.UntilAsync(Recovery, $"after kill -9 of {string.Join(", ", killed)}: web1 fetches, web1 and web2 and lab1 and the host reach each other",
                async () => (await Task.WhenAll(web1.FetchesAsync("0.5"), web2.FetchesAsync("0.5"), PingsAsync(web1, (await web2.AddressAsync()).ToString()), PingsAsync(lab1, "192.168.101.1"))).All(works => works));
            Log($"kill -9 {string.Join(' ', killed)}: back and healthy after {back.TotalSeconds:0.00} s, guests work {recovered.TotalSeconds:0.00} s later");
            Assert.Equal(untouched, await DescribeAsync(guests));
            (await web1.RunAsync("dig", "@192.168.108.2", "+short", "+tries=2", "+time=1", "web.wan.test")).EnsureSuccess();
        }

        // What still works after all that: a new guest gets an address.
        await using TestGuest late = await Instance.AddGuestAsync("late", "vmnet8");
        Assert.True(await late.FetchesAsync("3"));

        await download.DisposeAsync();
        await ping.DisposeAsync();
        (await Instance.VnetAsync("down")).EnsureSuccess();
        Assert.Equal(before, await Instance.DescribeHostAsync());
    }

    [Fact]
    public async Task Down_cleans_up_also_when_the_agent_cannot_be_asked()
    {
        string before = await Instance.DescribeHostAsync();
        (await Instance.VnetAsync("up")).EnsureSuccess();
        await Instance.AddGuestAsync("web1", "vmnet8");
        // Everything dies at once, the supervisor first: nobody is left to be asked.
        using System.Text.Json.JsonDocument file = System.Text.Json.JsonDocument.Parse(await File.ReadAllTextAsync(Path.Combine(Instance.RunDirectory, "supervisor.json"), Cancellation));
        Dictionary<string, int> services = Instance.ProcessIds();
        Assert.True(NetworkNamespace.Kill(file.RootElement.GetProperty("pid").GetInt32(), 9));
        foreach (int process in services.Values)
            NetworkNamespace.Kill(process, 9);
        await Wait.UntilAsync(TimeSpan.FromSeconds(3), "all are dead", () => services.Values.All(process => !IsAlive(process)));

        (await Instance.VnetAsync("down")).EnsureSuccess();
        Assert.Equal(before, await Instance.DescribeHostAsync());
    }

    [Fact]
    public async Task Up_after_a_crash_adopts_what_is_wanted()
    {
        (await Instance.VnetAsync("up")).EnsureSuccess();
        await using TestGuest web1 = await Instance.AddGuestAsync("web1", "vmnet8");
        string untouched = await DescribeAsync([web1]);
        using System.Text.Json.JsonDocument file = System.Text.Json.JsonDocument.Parse(await File.ReadAllTextAsync(Path.Combine(Instance.RunDirectory, "supervisor.json"), Cancellation));
        Dictionary<string, int> services = Instance.ProcessIds();
        Assert.True(NetworkNamespace.Kill(file.RootElement.GetProperty("pid").GetInt32(), 9));
        foreach (int process in services.Values)
            NetworkNamespace.Kill(process, 9);

        (await Instance.VnetAsync("up")).EnsureSuccess();
        await Wait.UntilAsync(TimeSpan.FromSeconds(4), "the guest works again", () => web1.FetchesAsync());
        Assert.Equal(untouched, await DescribeAsync([web1]));
    }

    private static bool IsAlive(int process)
    {
        try
        {
            // A zombie has ended; its parent only has not asked yet.
            return !File.ReadAllText($"/proc/{process}/stat").Split(") ")[1].StartsWith('Z');
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    private static async Task<bool> PingsAsync(TestGuest guest, string address) => (await guest.RunAsync("ping", "-c", "1", "-W", "0.4", address)).ExitCode == 0;

    /// <summary>What must stay the same in guests whatever dies: the device itself, its addresses, its routes.</summary>
    private static async Task<string> DescribeAsync(TestGuest[] guests)
    {
        var lines = new List<string>();
        foreach (TestGuest guest in guests)
        {
            lines.Add($"{guest.Name}: ifindex {await guest.Namespace.InterfaceIndexAsync("eth0")}, mac {(await guest.RunAsync("cat", "/sys/class/net/eth0/address")).Output.Trim()}, address {await guest.AddressAsync()}");
            lines.Add((await guest.RunAsync("ip", "route")).Output);
        }
        return string.Join('\n', lines);
    }
}
