using System.Globalization;
using System.Text;
using System.Text.Json;
using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>Networks of one's own: many at once, of each kind; and nothing is left of one that goes.</summary>
public sealed class ManyNetworksTests : OwnInstanceTest
{
    private const int Count = 31;
    private static readonly string[] Kinds = ["nat", "host-only", "isolated"];

    [Fact]
    public async Task Thirty_one_networks_work_beside_each_other_and_go_without_a_trace()
    {
        string before = await Instance.DescribeHostAsync();
        (await Instance.VnetAsync("network", "create", "lab0", "--kind", "nat", "--subnet", "10.44.0.0/24")).EnsureSuccess();
        var text = new StringBuilder("networks:\n");
        for (int i = 1; i < Count; i++)
        {
            text.AppendLine(CultureInfo.InvariantCulture, $"  lab{i}:\n    kind: {Kinds[i % 3]}\n    ipv4_subnet: 10.44.{i}.0/24\n    ipv6_prefix: fd00:44:0:{i}::/64\n    dhcpv4: {{enabled: true, default_lease: 10m}}");
            if (i % 3 == 1)
                text.AppendLine(CultureInfo.InvariantCulture, $"    egress: {(i % 2 == 0 ? "snat" : "routed")}");
        }
        string file = Path.Combine(Instance.ScratchDirectory, "many.yaml");
        await File.WriteAllTextAsync(file, text.ToString(), Cancellation);
        (await Instance.VnetAsync("apply", "-f", file)).EnsureSuccess();

        // Two guests on one network of each kind, and one on another: addresses of their own network, and each reaches what it may.
        await using TestGuest nat1 = await Instance.AddGuestAsync("n1", "lab3"), nat2 = await Instance.AddGuestAsync("n2", "lab3");
        await using TestGuest host1 = await Instance.AddGuestAsync("h1", "lab4"), host2 = await Instance.AddGuestAsync("h2", "lab4");
        await using TestGuest alone1 = await Instance.AddGuestAsync("a1", "lab5"), alone2 = await Instance.AddGuestAsync("a2", "lab5");
        await using TestGuest first = await Instance.AddGuestAsync("f1", "lab0");
        foreach ((TestGuest one, TestGuest other, string subnet) in new[] { (nat1, nat2, "10.44.3."), (host1, host2, "10.44.4."), (alone1, alone2, "10.44.5.") })
        {
            Assert.StartsWith(subnet, (await one.AddressAsync()).ToString(), StringComparison.Ordinal);
            Assert.True(await EgressTests.PingsAsync(one.Namespace, (await other.AddressAsync()).ToString()), $"two guests of {subnet}0");
        }
        Assert.True(await nat1.FetchesAsync("3"));
        Assert.True(await first.FetchesAsync("3"));
        Assert.True(await host1.FetchesAsync("3")); // lab4: snat
        Assert.False(await alone1.FetchesAsync());
        Assert.False(await EgressTests.PingsAsync(alone1.Namespace, "10.44.5.1"), "the host is on an isolated network");
        Assert.Equal("", (await Instance.Host.RunAsync("sh", "-c", "ip -o link show lab5 2>/dev/null || true")).Output);
        Assert.False(await EgressTests.PingsAsync(host1.Namespace, (await nat1.AddressAsync()).ToString()), "from one network into another");
        foreach ((TestGuest guest, string prefix) in new[] { (nat1, "fd00:44:0:3:"), (host1, "fd00:44:0:4:"), (alone1, "fd00:44:0:5:") })
        {
            await Wait.UntilAsync(TimeSpan.FromSeconds(10), $"{guest.Name} has made itself an address of {prefix}", async () =>
                (await guest.RunAsync("ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "global")).Output.Contains(prefix, StringComparison.Ordinal));
        }

        await RemovalTakesAllAsync(host1, host2);
        await File.WriteAllTextAsync(file, "networks: {vmnet0: {}, vmnet1: {}, vmnet8: {}}\n", Cancellation);
        (await Instance.VnetAsync("apply", "-f", file, "--prune")).EnsureSuccess();
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "the devices are gone", async () => !(await Instance.Host.RunAsync("ip", "link")).Output.Contains("lab", StringComparison.Ordinal));
        await Task.Delay(TimeSpan.FromSeconds(2), Cancellation); // the pass that closes what they had open
        Assert.Equal(Comparable(before), Comparable(await Instance.DescribeHostAsync()));
    }

    private async Task RemovalTakesAllAsync(TestGuest host1, TestGuest host2)
    {
        (await Instance.VnetAsync("reservation", "add", "lab4/kept", "--mac", "02:00:5e:00:00:09", "--address", "10.44.4.9")).EnsureSuccess();
        CommandResult refused = await Instance.VnetAsync("network", "rm", "lab4");
        Assert.Equal(7, refused.ExitCode);
        Assert.Contains("[NETWORK_IN_USE]", refused.Error, StringComparison.Ordinal);
        Assert.Contains(host1.Name, refused.Error, StringComparison.Ordinal);
        Assert.Contains(host2.Name, refused.Error, StringComparison.Ordinal);

        (await Instance.VnetAsync("network", "rm", "lab4", "--force")).EnsureSuccess();
        Assert.DoesNotContain(host1.Name, NetworkNamespace.List());
        await Wait.UntilAsync(TimeSpan.FromSeconds(5), "device, rules and changes are gone", async () =>
            !(await Instance.Host.RunAsync("sh", "-c", "ip link; ip route; nft list ruleset")).Output.Contains("lab4", StringComparison.Ordinal)
            && !(await Instance.VnetAsync("host", "changes")).Output.Contains("networks/lab4", StringComparison.Ordinal));

        // Another of the same name begins with nothing.
        (await Instance.VnetAsync("network", "create", "lab4", "--kind", "host-only", "--subnet", "10.44.4.0/24")).EnsureSuccess();
        await Wait.UntilAsync(TimeSpan.FromSeconds(5), "dhcp serves it", async () => (await Instance.VnetAsync("lease", "ls", "lab4")).ExitCode == 0);
        using JsonDocument leases = await Instance.JsonAsync("lease", "ls", "lab4"), reservations = await Instance.JsonAsync("reservation", "ls", "lab4");
        Assert.Equal((0, 0), (leases.RootElement.GetArrayLength(), reservations.RootElement.GetArrayLength()));
    }

    /// <summary>Without counts, the kernel's numbers of interfaces, and link-local addresses, which come some seconds after their interfaces.</summary>
    private static string Comparable(string host) => System.Text.RegularExpressions.Regex.Replace(host, @"^.*fe80::.*\n|packets \d+ bytes \d+|^\d+: ", "", System.Text.RegularExpressions.RegexOptions.Multiline);
}
