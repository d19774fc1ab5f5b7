using VNetMesh.Benchmarks.Load;
using VNetMesh.Benchmarks.Results;
using VNetMesh.Benchmarks.Systems;

namespace VNetMesh.Benchmarks.Rows;

/// <summary>Guest to guest on one switch, beside the kernel's bridge and vde_switch. MTU 1500.</summary>
internal static class SwitchRows
{
    private const string Group = "switch";

    /// <summary>Ethernet, IPv4, UDP and the frame check sequence: what a frame has beside the payload of its datagram.</summary>
    private const int Overhead = 14 + 20 + 8 + 4;

    public static IEnumerable<Row> All() =>
    [
        Tcp("switch-tcp-1", "TCP, 1 stream", 1, Direction.Out, new Target(SystemNames.Bridge, 0.65), new Target(SystemNames.Vde, 20)),
        Tcp("switch-tcp-4", "TCP, 4 streams", 4, Direction.Out),
        Tcp("switch-tcp-both", "TCP, both ways at once, sum", 1, Direction.Both),
        Frames(64),
        Frames(1400),
        Pings(),
    ];

    private static Row Tcp(string name, string title, int streams, Direction direction, params Target[] targets) =>
        new(name, SystemNames.Switches, [new Metric(name, Group, title, "Gbit/s", true, targets), .. CpuCost.Metrics(name, "switch, " + title)], async (lab, system, settings, cancellation) =>
        {
            SwitchPath path = await lab.SwitchAsync(system);
            return await CpuCost.MeasureAsync(path.Processes, () => Iperf.TcpAsync(path.Left, path.Right, path.RightAddress, streams, direction, settings.Seconds, cancellation));
        });

    private static Row Frames(int size) => new($"switch-udp-{size}", SystemNames.Switches, [new Metric($"switch-udp-{size}", Group, $"UDP, {size}-byte frames, received", "1/s", true)],
        async (lab, system, settings, cancellation) =>
        {
            SwitchPath path = await lab.SwitchAsync(system);
            return [(await Udp.PushAsync(path.Left, path.Right, path.RightAddress, size - Overhead, settings.Seconds, cancellation)).DatagramsPerSecond];
        });

    private static Row Pings() => new("switch-ping", SystemNames.Switches,
        [new Metric("switch-ping", Group, "ping, p50", "ms", false, new Target(SystemNames.Vde, 1)), new Metric("switch-ping-p99", Group, "ping, p99", "ms", false)],
        async (lab, system, settings, cancellation) =>
        {
            SwitchPath path = await lab.SwitchAsync(system);
            PingResult result = await Ping.RunAsync(path.Left, path.RightAddress, settings.Seconds, cancellation);
            return [result.P50, result.P99];
        });
}
