using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>An instance as a file, there and back.</summary>
public sealed class ApplyTests : OwnInstanceTest
{
    private const int Differs = 8;

    [Fact]
    public async Task A_file_is_applied_once_and_an_export_is_taken_back_without_a_difference()
    {
        string fresh = Path.Combine(Instance.ScratchDirectory, "fresh.yaml"), file = Path.Combine(Instance.ScratchDirectory, "file.yaml"), export = Path.Combine(Instance.ScratchDirectory, "export.yaml");
        string guest = Instance.Prefix + "-web1";
        (await Instance.VnetAsync("export", "-o", fresh)).EnsureSuccess();
        string text = $$"""
            networks:
              lab:
                kind: nat
                ipv4_subnet: 10.44.0.0/24
                ipv6_prefix: auto
                reservations:
                  web1: {mac: "02-00-5E-10-00-01", ipv4_address: 10.44.0.10, hostname: web1}
                forwards:
                  web: {listen: 8080, guest: "10.44.0.10:80"}
                  dns: {protocol: udp, listen: "0.0.0.0:5353", guest: "10.44.0.10:53"}
              seg:
                kind: isolated
              vmnet1:
                egress: snat
                dhcpv4: {domain: lab.example, dns_servers: [192.0.2.53]}
            guests:
              {{guest}}: {network: lab, mac: "02:00:5e:10:00:01"}
            """;
        await File.WriteAllTextAsync(file, text, Cancellation);

        CommandResult dry = await Instance.VnetAsync("apply", "-f", file, "--dry-run");
        Assert.Equal(Differs, dry.ExitCode);
        Assert.Contains("+ network lab", dry.Output, StringComparison.Ordinal);
        Assert.Contains("egress: none → snat", dry.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("lab", (await Instance.VnetAsync("network", "ls")).Output, StringComparison.Ordinal);

        CommandResult applied = (await Instance.VnetAsync("apply", "-f", file)).EnsureSuccess();
        Assert.Equal(Changes(dry), Changes(applied));
        var web1 = new NetworkNamespace(guest);
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "the guest has the address that is reserved for it", async () => (await web1.AddressesAsync("eth0")) is ["10.44.0.10"]);
        Assert.Contains("No differences", (await Instance.VnetAsync("apply", "-f", file)).EnsureSuccess().Output, StringComparison.Ordinal);
        Assert.Equal(0, (await Instance.VnetAsync("apply", "-f", file, "--dry-run")).ExitCode);

        (await Instance.VnetAsync("export", "-o", export)).EnsureSuccess();
        Assert.Equal(0, (await Instance.VnetAsync("apply", "-f", export, "--prune", "--dry-run")).ExitCode);

        // A change, and what the file names no more stays until it is pruned.
        await File.WriteAllTextAsync(file, text.Replace("10.44.0", "10.45.0", StringComparison.Ordinal).Replace("dns: {protocol: udp, listen: \"0.0.0.0:5353\"", "other: {protocol: udp, listen: \"0.0.0.0:5354\"", StringComparison.Ordinal), Cancellation);
        (await Instance.VnetAsync("apply", "-f", file)).EnsureSuccess();
        string forwards = (await Instance.VnetAsync("nat", "forward", "ls")).Output;
        Assert.Contains("10.45.0.10:80", forwards, StringComparison.Ordinal);
        Assert.Contains("10.44.0.10:53", forwards, StringComparison.Ordinal);
        CommandResult pruned = await Instance.VnetAsync("apply", "-f", file, "--prune", "--dry-run");
        Assert.Contains("- network vmnet8", pruned.Output, StringComparison.Ordinal);
        Assert.Contains("- forward lab/dns", pruned.Output, StringComparison.Ordinal);

        // Back to what it was in the beginning: nothing is left of the rest.
        (await Instance.VnetAsync("apply", "-f", fresh, "--prune")).EnsureSuccess();
        await File.WriteAllTextAsync(export, (await Instance.VnetAsync("export")).EnsureSuccess().Output, Cancellation);
        Assert.Equal(await File.ReadAllTextAsync(fresh, Cancellation), await File.ReadAllTextAsync(export, Cancellation));
        Assert.DoesNotContain(guest, NetworkNamespace.List());
    }

    private static string[] Changes(CommandResult result) => [.. result.Output.Split('\n').Where(line => line.StartsWith('+') || line.StartsWith('~') || line.StartsWith('-'))];
}

/// <summary>Files that cannot be understood, or ask for what cannot be had.</summary>
public sealed class ApplyRefusalTests(SharedInstance shared) : SharedInstanceTest(shared)
{
    [Theory]
    [InlineData("networks:\n  lab:\n    egres: none\n", 2, "line 3", "did you mean 'egress'?")]
    [InlineData("networks:\n  lab:\n    kind: bridge\n", 2, "line 3", "write bridged, host-only, nat or isolated")]
    [InlineData("network:\n  lab: {}\n", 2, "line 1", "did you mean 'networks'?")]
    [InlineData("networks: [lab]\n", 2, "line 1", "key: value")]
    [InlineData("networks:\n  lab:\n    mtu: 1500\n    mtu: 1400\n", 2, "line 4", "")]
    [InlineData("networks:\n  lab:\n    kind: nat\n    mtu: 1\n", 2, "line 2", "[MTU_OUT_OF_RANGE]")]
    [InlineData("networks:\n  vmnet8:\n    ipv4_subnet: 192.168.101.0/25\n", 7, "line 2", "[SUBNET_OVERLAPS]")]
    [InlineData("guests:\n  web1: {}\n", 2, "line 2", "network: NAME")]
    [InlineData("networks:\n  vmnet8:\n    forwards:\n      web: {guest: 192.168.108.9:80}\n", 2, "line 4", "listen: [ADDRESS:]PORT")]
    public async Task A_bad_file_changes_nothing_and_its_line_is_named(string text, int exitCode, string line, string advice)
    {
        string file = Path.Combine(Instance.ScratchDirectory, "bad.yaml");
        await File.WriteAllTextAsync(file, text, Cancellation);
        CommandResult refused = await Instance.VnetAsync("apply", "-f", file);
        Assert.Equal(exitCode, refused.ExitCode);
        Assert.Contains(line, refused.Error, StringComparison.Ordinal);
        Assert.Contains(advice, refused.Error, StringComparison.Ordinal);
        Assert.Single(refused.Error.Trim().Split('\n'));
    }
}
