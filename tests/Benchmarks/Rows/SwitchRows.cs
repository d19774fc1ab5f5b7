using VNetMesh.Benchmarks.Load;
using VNetMesh.Benchmarks.Results;
using VNetMesh.Benchmarks.Systems;

namespace VNetMesh.Benchmarks.Rows;

/// <summary>Guest to guest on one switch, beside the kernel's bridge and vde_switch. MTU 1500.</summary>
internal static class SwitchRows
{
    private const string Group = "switch";

    public static IEnumerable<Row> All() =>
    [
        Tcp("switch-tcp-1", "TCP, 1 stream", 1, Direction.Out, new Target(SystemNames.Bridge, 0.65), new Target(SystemNames.Vde, 20)),
        Tcp("switch-tcp-4", "TCP, 4 streams", 4, Direction.Out),
        Tcp("switch-tcp-both", "TCP, both ways at once, sum", 1, Direction.Both),
    ];

    private static Row Tcp(string name, string title, int streams, Direction direction, params Target[] targets) =>
        new(name, SystemNames.Switches, [new Metric(name, Group, title, "Gbit/s", true, targets)], async (lab, system, settings, cancellation) =>
        {
            SwitchPath path = await lab.SwitchAsync(system);
            return [(await Iperf.TcpAsync(path.Left, path.Right, path.RightAddress, streams, direction, settings.Seconds, cancellation)).GigabitsPerSecond];
        });
}
