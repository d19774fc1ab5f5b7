using System.Globalization;
using VNetMesh.Benchmarks.Load;
using VNetMesh.Benchmarks.Results;
using VNetMesh.Benchmarks.Systems;

namespace VNetMesh.Benchmarks.Rows;

/// <summary>The same VM, interpreted by QEMU, and the wan behind its host: by `vnet vm run`, by the stream socket, by QEMU's own NAT, by passt. MTU 1500.</summary>
internal static class VmRows
{
    private const string Group = "vm";
    private static readonly Target[] Ahead = [new Target(SystemNames.QemuUser, 1), new Target(SystemNames.Passt, 1)];

    public static IEnumerable<Row> All() => [Tcp("vm-tcp-out", "TCP VM→wan, 1 stream", Direction.Out), Tcp("vm-tcp-in", "TCP wan→VM, 1 stream", Direction.In), Requests()];

    private static Row Tcp(string name, string title, Direction direction) =>
        new(name, SystemNames.Vms, [new Metric(name, Group, title, "Gbit/s", true, Ahead)], async (lab, system, settings, cancellation) =>
        {
            VmPath path = await lab.VmAsync(system);
            IperfResult result = await Iperf.TcpAsync(path.Site.Wan, direction, settings.Seconds, (port, seconds, way) => path.Machine.RunAsync(
                $"iperf3 --client {Site.WanAddress} --port {port} --time {seconds} --omit 1 --json {way}", TimeSpan.FromSeconds(settings.Seconds + 20), cancellation), cancellation);
            return [result.GigabitsPerSecond];
        });

    private static Row Requests() => new("vm-requests", SystemNames.Vms,
        [new Metric("vm-requests", Group, "requests on 32 kept connections", "1/s", true, Ahead), new Metric("vm-requests-p50", Group, "  their latency, p50", "ms", false)],
        async (lab, system, settings, cancellation) =>
        {
            VmPath path = await lab.VmAsync(system);
            await path.Site.EnsureWebServerAsync(cancellation);
            string seconds = settings.Seconds.ToString(CultureInfo.InvariantCulture);
            WrkResult result = Wrk.Parse(await path.Machine.RunAsync(
                $"wrk -t1 -c32 -d{seconds}s --latency http://{Site.WanAddress}:{Site.WebPort}/", TimeSpan.FromSeconds(settings.Seconds + 20), cancellation));
            return [result.RequestsPerSecond, result.P50];
        });
}
