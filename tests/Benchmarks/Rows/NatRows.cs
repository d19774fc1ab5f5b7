using VNetMesh.Benchmarks.Load;
using VNetMesh.Benchmarks.Results;
using VNetMesh.Benchmarks.Systems;

namespace VNetMesh.Benchmarks.Rows;

/// <summary>
/// A guest and the wan behind its host, beside pasta, slirp4netns and the host's own way to the wan over the bare veth. The guest connects,
/// whichever way the payload goes.
/// </summary>
internal static class NatRows
{
    public const int JumboMtu = 65520;
    public const string Group = "nat";
    private const int DatagramSize = 1400;
    public const string BestPrefix = "nat-tcp-best-";

    /// <summary>Two MTUs, two numbers of streams.</summary>
    public const int CasesPerDirection = 4;

    public static IEnumerable<Row> All()
    {
        foreach (int mtu in new[] { 1500, JumboMtu })
        {
            foreach (int streams in new[] { 1, 4 })
            {
                yield return Tcp(mtu, Direction.Out, streams);
                yield return Tcp(mtu, Direction.In, streams);
            }
        }
        yield return Datagrams("out", new Target(SystemNames.Pasta, 2));
        yield return Datagrams("in", new Target(SystemNames.Pasta, 2));
        yield return ShortConnections();
        yield return KeptConnections();
        yield return Tracing("tcp-out", "TCP guest→wan, 1 stream, MTU 1500, with traces exported", "Gbit/s",
            async (path, settings, cancellation) => (await Iperf.TcpAsync(path.Guest, path.Site.Wan, Site.WanAddress, 1, Direction.Out, settings.Seconds, cancellation)).GigabitsPerSecond);
        yield return Tracing("requests-close", "connect, request, close; with traces exported", "1/s",
            async (path, settings, cancellation) => (await RequestsAsync(path, close: true, settings, cancellation)).RequestsPerSecond);
        yield return Tracing("requests-kept", "requests on 32 kept connections, with traces exported", "1/s",
            async (path, settings, cancellation) => (await RequestsAsync(path, close: false, settings, cancellation)).RequestsPerSecond);
    }

    /// <summary>What it costs to export traces, metrics and logs as sampled by default, beside the same without.</summary>
    private static Row Tracing(string id, string title, string unit, Func<NatPath, RunSettings, CancellationToken, Task<double>> measure) => new("nat-tracing-" + id, [SystemNames.VNetMesh, SystemNames.VNetMeshUntraced],
        [new Metric("nat-tracing-" + id, Group, title, unit, true, new Target(SystemNames.VNetMeshUntraced, 0.97))],
        async (lab, system, settings, cancellation) => [await measure(await (system == SystemNames.VNetMesh ? lab.TracedNatAsync() : lab.NatAsync(SystemNames.VNetMesh, 1500)), settings, cancellation)]);

    /// <summary>The best of each system over MTUs and streams, for a direction.</summary>
    public static IEnumerable<(Metric Metric, Func<Metric, bool> Of)> Best() => new[] { "out", "in" }.Select(way =>
        (new Metric(BestPrefix + way, Group, $"TCP {(way == "out" ? "guest→wan" : "wan→guest")}, best case of each", "Gbit/s", true,
            new Target(SystemNames.Pasta, 1.1), new Target(SystemNames.Slirp, 2)),
        (Func<Metric, bool>)(metric => metric.Name.StartsWith("nat-tcp-", StringComparison.Ordinal) && metric.Name.Contains($"-{way}-", StringComparison.Ordinal))));

    private static Row Tcp(int mtu, Direction direction, int streams)
    {
        string way = direction == Direction.Out ? "out" : "in";
        string name = $"nat-tcp-{mtu}-{way}-{streams}";
        string title = $"TCP {(direction == Direction.Out ? "guest→wan" : "wan→guest")}, {streams} stream{(streams == 1 ? "" : "s")}, MTU {mtu}";
        Target[] targets = mtu == 1500 && streams == 1 ? [new Target(SystemNames.Veth, 0.45), new Target(SystemNames.Pasta, 5), new Target(SystemNames.Slirp, 5)] : [];
        return new Row(name, SystemNames.Nats, [new Metric(name, Group, title, "Gbit/s", true, targets), .. CpuCost.Metrics(name, "nat, " + title)], async (lab, system, settings, cancellation) =>
        {
            NatPath path = await lab.NatAsync(system, mtu);
            return await CpuCost.MeasureAsync(path.Processes, () => Iperf.TcpAsync(path.Guest, path.Site.Wan, Site.WanAddress, streams, direction, settings.Seconds, cancellation));
        });
    }

    private static Row Datagrams(string way, params Target[] targets) => new("nat-udp-" + way, SystemNames.Nats,
        [new Metric("nat-udp-" + way, Group, $"UDP, 1,400 bytes, {(way == "out" ? "guest→wan" : "wan→guest")}, received", "Gbit/s", true, targets)],
        async (lab, system, settings, cancellation) =>
        {
            NatPath path = await lab.NatAsync(system, 1500);
            UdpResult result = way == "out"
                ? await Udp.PushAsync(path.Guest, path.Site.Wan, Site.WanAddress, DatagramSize, settings.Seconds, cancellation)
                : await Udp.PullAsync(path.Guest, path.Site.Wan, Site.WanAddress, DatagramSize, settings.Seconds, cancellation);
            return [result.GigabitsPerSecond];
        });

    private static Row ShortConnections() => new("nat-requests-close", SystemNames.Nats,
        [new Metric("nat-requests-close", Group, "connect, request, close; 32 at a time", "1/s", true, new Target(SystemNames.Pasta, 2), new Target(SystemNames.Slirp, 2))],
        async (lab, system, settings, cancellation) => [(await RequestsAsync(lab, system, close: true, settings, cancellation)).RequestsPerSecond]);

    private static Row KeptConnections() => new("nat-requests-kept", SystemNames.Nats,
        [
            new Metric("nat-requests-kept", Group, "requests on 32 kept connections", "1/s", true, new Target(SystemNames.Pasta, 1.2), new Target(SystemNames.Slirp, 1.2)),
            new Metric("nat-requests-kept-p50", Group, "  their latency, p50", "ms", false),
            new Metric("nat-requests-kept-p99", Group, "  their latency, p99", "ms", false),
        ],
        async (lab, system, settings, cancellation) =>
        {
            WrkResult result = await RequestsAsync(lab, system, close: false, settings, cancellation);
            return [result.RequestsPerSecond, result.P50, result.P99];
        });

    private static async Task<WrkResult> RequestsAsync(Lab lab, string system, bool close, RunSettings settings, CancellationToken cancellation) =>
        await RequestsAsync(await lab.NatAsync(system, 1500), close, settings, cancellation);

    private static async Task<WrkResult> RequestsAsync(NatPath path, bool close, RunSettings settings, CancellationToken cancellation)
    {
        await path.Site.EnsureWebServerAsync(cancellation);
        return await Wrk.RunAsync(path.Guest, $"http://{Site.WanAddress}:{Site.WebPort}/", close, settings.Seconds, cancellation);
    }
}
