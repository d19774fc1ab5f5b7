using System.Diagnostics;
using System.Text.Json;
using VNetMesh.Native;
using VNetMesh.Switch.Tests.Support;
using VNetMesh.V1;

namespace VNetMesh.Switch.Tests.Taps;

/// <summary>Two guests in namespaces, on TAPs handed over to the real switch, which has no rights at all.</summary>
public sealed class TapForwardingTests
{
    private const string Network = "networks/vmnet1";

    [Fact]
    public async Task GuestsReachEachOtherThroughASwitchWithoutRights()
    {
        if (!Tap.Available)
            Assert.Skip("needs root and /dev/net/tun");
        await using SwitchProcess process = await SwitchProcess.StartAsync();
        using var one = new Namespace("switch-t1");
        using var two = new Namespace("switch-t2");
        using FileDescriptor first = Tap.Create("switch-t1");
        using FileDescriptor second = Tap.Create("switch-t2");
        one.Adopt("switch-t1", "10.99.0.1/24", "02:56:4e:00:00:01");
        two.Adopt("switch-t2", "10.99.0.2/24", "02:56:4e:00:00:02");
        Handing.HandOver(process, Network, "one", first);
        Handing.HandOver(process, Network, "two", second);

        one.Exec("ping", "-c", "3", "-i", "0.2", "-W", "2", "10.99.0.2");
        double gigabits = Iperf(one, two, "10.99.0.2");
        TestContext.Current.TestOutputHelper?.WriteLine($"TAP to TAP, one stream: {gigabits:F1} Gbit/s");
        Assert.True(gigabits > 0.5, $"{gigabits} Gbit/s");

        ListMacEntriesResponse macs = await process.Ports.ListMacEntriesAsync(new ListMacEntriesRequest { Parent = Network });
        Assert.Contains(macs.Entries, entry => entry.Mac == "02:56:4e:00:00:01" && entry.Port == Network + "/ports/one");
    }

    private static double Iperf(Namespace client, Namespace server, string address)
    {
        using Process listening = server.Start("iperf3", "-s", "-1");
        Thread.Sleep(300);
        string json = client.Exec("iperf3", "-c", address, "-t", Environment.GetEnvironmentVariable("SWITCH_IPERF_SECONDS") ?? "1", "-J");
        listening.WaitForExit(3000);
        using JsonDocument document = JsonDocument.Parse(json);
        return document.RootElement.GetProperty("end").GetProperty("sum_received").GetProperty("bits_per_second").GetDouble() / 1e9;
    }
}
