using System.Text.Json;
using VNetMesh.Links;
using VNetMesh.Nat.Tests.Support;

namespace VNetMesh.Nat.Tests;

/// <summary>One stream by iperf3 through a gateway that sits right on the guest's TAP. Only on demand: VNETMESH_BENCH=1.</summary>
public sealed class ThroughputTests(ITestOutputHelper output)
{
    [Theory]
    [InlineData("")]
    [InlineData("-R")]
    public void Single_stream(string direction)
    {
        if (Environment.GetEnvironmentVariable("VNETMESH_BENCH") is null)
            Assert.Skip("a measurement; set VNETMESH_BENCH=1");
        using var lab = new NamespaceLab();
        using var nat = new TestNat(lab.Host);
        using TapLink link = lab.AddGuest(1, "192.168.108.10/24", "192.168.108.2");
        nat.Ask(() => nat.Gateway.OnLinkUp(link));
        lab.Start(lab.Wan, $"iperf3 -s -B {NamespaceLab.WanAddress}");
        NamespaceLab.WaitForListener(lab.Wan, 5201);
        (int code, string text) = NamespaceLab.In(lab.Guest(), $"iperf3 -c {NamespaceLab.WanAddress} -t 4 -J {direction}");
        Assert.True(code == 0, text);
        double rate = JsonDocument.Parse(text).RootElement.GetProperty("end").GetProperty("sum_received").GetProperty("bits_per_second").GetDouble();
        output.WriteLine($"{(direction.Length == 0 ? "guest to wan" : "wan to guest")}: {rate / 1e9:F2} Gbit/s; drops {string.Join(", ", nat.Gateway.Drops.Seen())}");
    }

    [Theory]
    [InlineData("")]
    [InlineData("-R")]
    public void Single_stream_through_switch_and_nat(string direction)
    {
        if (Environment.GetEnvironmentVariable("VNETMESH_BENCH") is null)
            Assert.Skip("a measurement; set VNETMESH_BENCH=1");
        using var lab = new NamespaceLab();
        using var services = new Services(lab);
        lab.Start(lab.Wan, $"iperf3 -s -B {NamespaceLab.WanAddress}");
        NamespaceLab.WaitForListener(lab.Wan, 5201);
        (int code, string text) = NamespaceLab.In(lab.Guest(), $"iperf3 -c {NamespaceLab.WanAddress} -t 5 -J {direction}");
        Assert.True(code == 0, text);
        double rate = JsonDocument.Parse(text).RootElement.GetProperty("end").GetProperty("sum_received").GetProperty("bits_per_second").GetDouble();
        output.WriteLine($"{(direction.Length == 0 ? "guest to wan" : "wan to guest")} through the switch: {rate / 1e9:F2} Gbit/s");
    }
}
