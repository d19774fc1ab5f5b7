using VNetMesh.Benchmarks.Load;
using VNetMesh.Benchmarks.Results;
using VNetMesh.Benchmarks.Systems;

namespace VNetMesh.Benchmarks.Rows;

/// <summary>A guest on the LAN by vmnet0, beside the host on its bare NIC (a veth). MTU 1500.</summary>
internal static class BridgedRows
{
    private const string Group = "bridged";

    public static IEnumerable<Row> All() =>
    [
        Tcp("bridged-lan-out", "TCP to a station of the LAN, 1 stream", toHost: false, Direction.Out),
        Tcp("bridged-lan-in", "TCP from a station of the LAN, 1 stream", toHost: false, Direction.In),
        Tcp("bridged-host-out", "TCP to the host, 1 stream", toHost: true, Direction.Out),
        Tcp("bridged-host-in", "TCP from the host, 1 stream", toHost: true, Direction.In),
    ];

    private static Row Tcp(string name, string title, bool toHost, Direction direction) =>
        new(name, [SystemNames.VNetMesh, SystemNames.Veth], [new Metric(name, Group, title, "Gbit/s", true, new Target(SystemNames.Veth, 0.45))], async (lab, system, settings, cancellation) =>
        {
            SwitchPath path = await lab.BridgedAsync(system, toHost);
            return [(await Iperf.TcpAsync(path.Left, path.Right, path.RightAddress, 1, direction, settings.Seconds, cancellation)).GigabitsPerSecond];
        });
}
