using System.Diagnostics;
using System.Text.Json;
using VNetMesh.Native;
using VNetMesh.Packets;
using VNetMesh.Switch.Tests.Rpc;
using VNetMesh.Switch.Tests.Support;
using VNetMesh.V1;

namespace VNetMesh.Switch.Tests.Taps;

/// <summary>Guests in namespaces of their own, on TAPs handed over to the real switch.</summary>
public sealed class TapForwardingTests
{
    private const string Network = "networks/vmnet1";

    [Fact]
    public async Task GuestsReachEachOtherThroughASwitchWithoutRights()
    {
        SkipWithoutRights();
        await using SwitchProcess process = await SwitchProcess.StartAsync(["setpriv", "--reuid", "63108", "--regid", "63108", "--clear-groups",
            "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs"]);
        using var guests = new Pair(process);

        guests.One.Exec("ping", "-c", "3", "-i", "0.2", "-W", "2", "10.99.0.2");
        double gigabits = Iperf(guests.One, guests.Two);
        TestContext.Current.TestOutputHelper?.WriteLine($"TAP to TAP, one stream: {gigabits:F1} Gbit/s");
        Assert.True(gigabits > 0.5, $"{gigabits} Gbit/s");
        ListMacEntriesResponse macs = await process.Ports.ListMacEntriesAsync(new ListMacEntriesRequest { Parent = Network });
        Assert.Contains(macs.Entries, entry => entry.Mac == "02:56:4e:00:00:01" && entry.Port == Network + "/ports/one");

        string status = await File.ReadAllTextAsync($"/proc/{process.Pid}/status");
        foreach (string set in new[] { "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb" })
            Assert.Contains($"{set}:\t0000000000000000\n", status, StringComparison.Ordinal);
        Assert.Contains("Uid:\t63108\t63108\t63108\t63108\n", status, StringComparison.Ordinal);
        Assert.Contains("NoNewPrivs:\t1\n", status, StringComparison.Ordinal);
        // Nothing that it holds is a socket of a network.
        Assert.DoesNotContain("socket:", Inodes(process.Pid, "tcp", "tcp6", "udp", "udp6", "raw", "packet"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task TheSameDescriptorsAreHandedOverAgainAfterKillNine()
    {
        SkipWithoutRights();
        await using SwitchProcess process = await SwitchProcess.StartAsync();
        using var guests = new Pair(process);
        guests.One.Exec("ping", "-c", "1", "-W", "2", "10.99.0.2");
        await process.KillAsync();
        await process.LaunchAsync();
        guests.HandOver(process);
        guests.One.Exec("ping", "-c", "2", "-i", "0.2", "-W", "2", "10.99.0.2");
        // Handing over while the old link is up is no loss either.
        guests.HandOver(process);
        guests.One.Exec("ping", "-c", "1", "-W", "2", "10.99.0.2");
    }

    [Fact]
    public async Task ADeviceThatIsDownOrGoneIsNamed()
    {
        SkipWithoutRights();
        await using SwitchProcess process = await SwitchProcess.StartAsync();
        using var guests = new Pair(process);
        using AttachClient client = await AttachClient.OpenAsync(process, new AttachHello { Network = Network });
        guests.One.Exec("ip", "link", "set", "eth0", "down");
        await client.SendAsync(AttachClient.Frame(MacAddress.Broadcast, Frames.A));
        await UntilAsync(async () => (await PortAsync(process, "one")).Counters.Drops.ContainsKey("device_down"));
        Assert.Equal(PortState.Up, (await PortAsync(process, "one")).State);
        guests.Two.Exec("ip", "link", "del", "eth0");
        await UntilAsync(async () => (await PortAsync(process, "two")).State == PortState.Down);
        Assert.Contains("networks/vmnet1/ports/two is down", process.Log, StringComparison.Ordinal);
    }

    [Fact]
    public async Task AClientWithoutOffloadsAnswersAPing()
    {
        SkipWithoutRights();
        await using SwitchProcess process = await SwitchProcess.StartAsync();
        using var guests = new Pair(process);
        using AttachClient client = await AttachClient.OpenAsync(process, new AttachHello { Network = Network });
        Ipv4Address mine = Ipv4Address.Parse("10.99.0.77");
        Task answering = Task.Run(async () =>
        {
            while (true)
            {
                foreach (Frame frame in (await client.ReceiveAsync()).Frames)
                {
                    if (Responder.Answer(frame.Data.ToByteArray(), Frames.C, mine) is { } answer)
                        await client.SendAsync(answer);
                }
            }
        });
        guests.One.Exec("ping", "-c", "3", "-i", "0.2", "-W", "2", "10.99.0.77");
        Assert.False(answering.IsCompletedSuccessfully);
    }

    private static void SkipWithoutRights()
    {
        if (!Tap.Available)
            Assert.Skip("needs root and /dev/net/tun");
    }

    private static async Task<Port> PortAsync(SwitchProcess process, string id) =>
        (await process.Ports.GetPortAsync(new GetPortRequest { Name = $"{Network}/ports/{id}" })).Port;

    private static async Task UntilAsync(Func<Task<bool>> condition)
    {
        for (var watch = Stopwatch.StartNew(); !await condition(); await Task.Delay(20))
            Assert.True(watch.Elapsed < TimeSpan.FromSeconds(5), "it did not happen in time");
    }

    /// <summary>Those of a process's descriptors that stand in the socket tables of its namespace.</summary>
    private static string Inodes(int pid, params string[] tables)
    {
        string listed = string.Join('\n', tables.Select(table => File.Exists($"/proc/{pid}/net/{table}") ? File.ReadAllText($"/proc/{pid}/net/{table}") : ""));
        IEnumerable<string?> held = Directory.EnumerateFileSystemEntries($"/proc/{pid}/fd").Select(path => new FileInfo(path).LinkTarget);
        return string.Join('\n', held.Where(target => target?.StartsWith("socket:[", StringComparison.Ordinal) == true && listed.Contains(" " + target[8..^1] + " ", StringComparison.Ordinal)));
    }

    private static double Iperf(Namespace client, Namespace server)
    {
        using Process listening = server.Start("iperf3", "-s", "-1");
        Thread.Sleep(300);
        string json = client.Exec("iperf3", "-c", "10.99.0.2", "-t", Environment.GetEnvironmentVariable("SWITCH_IPERF_SECONDS") ?? "1", "-J");
        listening.WaitForExit(3000);
        using JsonDocument document = JsonDocument.Parse(json);
        return document.RootElement.GetProperty("end").GetProperty("sum_received").GetProperty("bits_per_second").GetDouble() / 1e9;
    }

    /// <summary>Two guests, "one" at 10.99.0.1 and "two" at 10.99.0.2.</summary>
    private sealed class Pair : IDisposable
    {
        private readonly FileDescriptor _first = Tap.Create("switch-t1");
        private readonly FileDescriptor _second = Tap.Create("switch-t2");

        public Pair(SwitchProcess process)
        {
            One.Adopt("switch-t1", "10.99.0.1/24", "02:56:4e:00:00:01");
            Two.Adopt("switch-t2", "10.99.0.2/24", "02:56:4e:00:00:02");
            HandOver(process);
        }

        public Namespace One { get; } = new("switch-t1");

        public Namespace Two { get; } = new("switch-t2");

        public void HandOver(SwitchProcess process)
        {
            Handing.HandOver(process, Network, "one", _first);
            Handing.HandOver(process, Network, "two", _second);
        }

        public void Dispose()
        {
            _first.Dispose();
            _second.Dispose();
            One.Dispose();
            Two.Dispose();
        }
    }
}
