using System.Diagnostics;
using System.Globalization;
using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.Packets;
using VNetMesh.Switch.Tests.Support;
using VNetMesh.V1;

namespace VNetMesh.Switch.Tests.Taps;

/// <summary>Five hundred TAPs on one network of the real switch.</summary>
public sealed class ManyPortsTests
{
    private const string Network = "networks/vmnet1";
    private const int Count = 500;
    private const double MaxIdle = 0.015;

    [Fact]
    public async Task FiveHundredIdlePortsCostNothingAndABroadcasterStallsNobody()
    {
        if (!Tap.Available)
            Assert.Skip("needs root and /dev/net/tun");
        await using SwitchProcess process = await SwitchProcess.StartAsync();
        using var taps = new Taps();
        long bare = ResidentBytes(process);
        taps.HandOver(process);
        ListPortsResponse ports = await process.Ports.ListPortsAsync(new ListPortsRequest { Parent = Network, PageSize = 1000 });
        Assert.Equal(Count, ports.Ports.Count(port => port.State == PortState.Up));

        // What is asked for once per port (a registration over gRPC) is garbage by now or soon; what stays is small.
        long perPort = (ResidentBytes(process) - bare) / Count;
        // The runtime compiles what ran often a while after it ran: that is the start, not the idling.
        double idle = await CpuShareAsync(process);
        for (int i = 0; i < 8 && idle >= MaxIdle; i++)
            idle = await CpuShareAsync(process);
        TestContext.Current.TestOutputHelper?.WriteLine($"{Count} idle ports: {idle:P2} of a core, {perPort / 1024.0:F1} KiB each");
        Assert.True(idle < MaxIdle, $"{idle:P2} of a core");
        Assert.True(perPort < 64 * 1024, $"{perPort} octets a port");

        (RingLink Link, FileDescriptor Life) one = OpenRing(process, "one"), two = OpenRing(process, "two"), loud = OpenRing(process, "loud");
        double quiet = RoundTrips(one.Link, two.Link, 300);
        bool stop = false;
        var storm = new Thread(() => Broadcast(loud.Link, ref stop));
        storm.Start();
        double stormy = RoundTrips(one.Link, two.Link, 300);
        Volatile.Write(ref stop, true);
        storm.Join();
        TestContext.Current.TestOutputHelper?.WriteLine($"round trip, median: {quiet:F2} ms, with broadcasts to all without a pause {stormy:F2} ms");
        // Without turns, a batch of 64 broadcasts would be 32,000 frames: a tenth of a second.
        Assert.True(stormy < 50, $"{stormy} ms");
        Port last = (await process.Ports.GetPortAsync(new GetPortRequest { Name = $"{Network}/ports/tap{Count - 1}" })).Port;
        Assert.True(last.Counters.TxFrames > 100);
        foreach ((RingLink link, FileDescriptor life) in new[] { one, two, loud })
        {
            link.Dispose();
            life.Dispose();
        }
    }

    private static void Broadcast(RingLink link, ref bool stop)
    {
        byte[] record = Frames.Record(MacAddress.Broadcast, Frames.C);
        while (!Volatile.Read(ref stop))
        {
            while (link.TrySend(record, default) == SendStatus.Sent)
            {
            }
            link.Flush();
            Thread.Sleep(1);
        }
    }

    /// <returns>The median in milliseconds.</returns>
    private static double RoundTrips(RingLink one, RingLink two, int count)
    {
        var times = new List<double>();
        for (int i = 0; i < count; i++)
        {
            long began = Stopwatch.GetTimestamp();
            Pass(one, two, Frames.Record(Frames.B, Frames.A));
            Pass(two, one, Frames.Record(Frames.A, Frames.B));
            times.Add(Stopwatch.GetElapsedTime(began).TotalMilliseconds);
        }
        return times.Order().ElementAt(count / 2);
    }

    private static void Pass(RingLink from, RingLink to, byte[] record)
    {
        Assert.Equal(SendStatus.Sent, from.TrySend(record, default));
        from.Flush();
        var watch = Stopwatch.StartNew();
        while (true)
        {
            // Broadcasts come as well.
            while (to.TryReceive(out ReadOnlySpan<byte> received, out _) == ReceiveStatus.Received)
            {
                if (received[VirtioNetHeader.Length] == record[VirtioNetHeader.Length])
                {
                    to.Flush();
                    return;
                }
            }
            to.Flush();
            Assert.True(watch.ElapsedMilliseconds < 5000, "a frame was lost");
            Thread.Yield();
        }
    }

    private static (RingLink, FileDescriptor) OpenRing(SwitchProcess process, string id)
    {
        RegisterPortResponse registered = process.Ports.RegisterPort(new RegisterPortRequest { Parent = Network, PortId = id, Port = new Port { Transport = PortTransport.Ring, Owner = "test" } });
        return HandoffClient.AskForRing(process.Paths.HandoffSocket, registered.HandoffToken.Span, 256 * 1024, LinkOffloads.All);
    }

    private static long ResidentBytes(SwitchProcess process)
    {
        string line = File.ReadLines($"/proc/{process.Pid}/status").First(line => line.StartsWith("VmRSS:", StringComparison.Ordinal));
        return long.Parse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture) * 1024;
    }

    /// <summary>Of one core, over a second.</summary>
    private static async Task<double> CpuShareAsync(SwitchProcess process)
    {
        double before = CpuSeconds(process);
        await Task.Delay(1000);
        return CpuSeconds(process) - before;
    }

    private static double CpuSeconds(SwitchProcess process)
    {
        using Process running = Process.GetProcessById(process.Pid);
        return running.TotalProcessorTime.TotalSeconds;
    }

    private sealed class Taps : IDisposable
    {
        private readonly Namespace _space = new("switch-many");
        private readonly List<FileDescriptor> _descriptors = [];

        public Taps()
        {
            _space.Exec("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1");
            // A thread that enters a namespace stays there, so it is one of its own.
            var thread = new Thread(() =>
            {
                using var place = new FileDescriptor(Syscall.Check(Fcntl.open("/run/netns/" + _space.Name, Fcntl.O_RDONLY | Fcntl.O_CLOEXEC), "open"));
                Syscall.Check(Sched.setns(place.Number, Sched.CLONE_NEWNET), "setns");
                for (int i = 0; i < Count; i++)
                    _descriptors.Add(Tap.Create($"tap{i}"));
            });
            thread.Start();
            thread.Join();
            string batch = Path.GetTempFileName();
            File.WriteAllLines(batch, Enumerable.Range(0, Count).Select(i => $"link set tap{i} up"));
            _space.Exec("ip", "-batch", batch);
            File.Delete(batch);
        }

        public void HandOver(SwitchProcess process)
        {
            for (int i = 0; i < Count; i++)
                Handing.HandOver(process, Network, $"tap{i}", _descriptors[i]);
        }

        public void Dispose()
        {
            // The kernel takes five hundred devices away at once with their namespace, and one by one with their descriptors.
            _space.Dispose();
            _descriptors.ForEach(descriptor => descriptor.Dispose());
        }
    }
}
