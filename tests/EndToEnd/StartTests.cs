using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>
/// Started by <c>ip netns exec</c>, which gives the services a mount namespace of their own; the other tests start them by
/// <c>nsenter --net</c>, where sysfs shows another namespace's devices.
/// </summary>
public sealed class IpNetnsExecTests : OwnInstanceTest
{
    protected override InstanceOptions Options => new() { Up = false, ByNsenter = false };

    [Fact]
    public async Task Guests_are_there_for_everybody_and_down_leaves_nothing()
    {
        string before = await Instance.DescribeHostAsync();
        CommandResult down = await Instance.VnetAsync("network", "ls");
        Assert.Equal(4, down.ExitCode);
        Assert.Contains("vnet up", down.Error, StringComparison.Ordinal);
        (await Instance.VnetAsync("up")).EnsureSuccess();
        TestGuest guest = await Instance.AddGuestAsync("web1", "vmnet8");
        // Seen from outside, where a user's next shell is.
        Assert.Contains(guest.Name, NetworkNamespace.List());
        Assert.StartsWith("192.168.108.", (await guest.AddressAsync()).ToString(), StringComparison.Ordinal);
        Assert.True(await guest.FetchesAsync("3"));
        (await guest.RunAsync("curl", "-sSf", "--max-time", "3", "http://web.wan.test/")).EnsureSuccess();
        (await Instance.VnetAsync("down")).EnsureSuccess();
        Assert.Equal(before, await Instance.DescribeHostAsync());
        Assert.DoesNotContain(guest.Name, NetworkNamespace.List());
    }
}

/// <summary>What a newcomer does first.</summary>
public sealed class DemoTests : OwnInstanceTest
{
    private static readonly string[] Names = ["web1", "web2", "lab1"];

    protected override InstanceOptions Options => new() { Up = false, WithWan = false };

    [Fact]
    public async Task The_demo_shows_guests_at_work_and_is_taken_back_by_down()
    {
        if (NetworkNamespace.List().Intersect(Names).Any())
            Assert.Skip("namespaces called web1, web2 or lab1 exist already: a demo runs on this machine");
        string before = await Instance.DescribeHostAsync();
        string[] namespaces = NetworkNamespace.List();
        try
        {
            CommandResult demo = (await Instance.VnetAsync(TimeSpan.FromSeconds(90), "demo")).EnsureSuccess();
            foreach (string shown in (string[])["web1", "web2", "lab1", "192.168.108.", "192.168.101.", "vmnet8", "192.0.2."])
                Assert.Contains(shown, demo.Output, StringComparison.Ordinal);
            Log(demo.ToString());
            Assert.Equal(Names.Order(), NetworkNamespace.List().Intersect(Names).Order());
        }
        finally
        {
            await Instance.VnetAsync("down");
            Assert.Equal(before, await Instance.DescribeHostAsync());
            Assert.DoesNotContain(NetworkNamespace.List().Except(namespaces), name => Names.Contains(name) || name.Contains("wan", StringComparison.Ordinal));
        }
    }
}
