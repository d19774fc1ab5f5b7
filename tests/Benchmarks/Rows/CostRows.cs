using System.Diagnostics;
using System.Globalization;
using VNetMesh.Benchmarks.Load;
using VNetMesh.Benchmarks.Results;
using VNetMesh.Benchmarks.Running;
using VNetMesh.Benchmarks.Systems;

namespace VNetMesh.Benchmarks.Rows;

/// <summary>What VNetMesh costs while it stands there: each measured on an instance that nothing was done with before. CPU for each gigabyte: <see cref="CpuCost"/>.</summary>
internal static class CostRows
{
    private const int Flows = 10_000;
    private const int FlowPort = 7200;
    private const double Mega = 1e6;
    private static readonly TimeSpan Settling = TimeSpan.FromSeconds(5);

    /// <summary>Until the compiler of the runtime, which makes code anew that ran often at the start, is done.</summary>
    private static readonly TimeSpan Quietness = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan IdleTime = TimeSpan.FromSeconds(10);
    private static readonly string[] Ours = [SystemNames.VNetMesh];

    public static IEnumerable<Row> All() => [Start(), Idle(), OpenFlows()];

    private static Row Start() => new("cost-start", Ours, [new Metric("cost-start", CpuCost.Group, "from `vnet up` to the first guest's lease", "s", false)],
        (lab, _, _, cancellation) => WithInstanceAsync(lab, async instance =>
        {
            var watch = Stopwatch.StartNew();
            await instance.UpAsync(cancellation);
            await instance.GuestAsync("a", "vmnet8", cancellation);
            return [watch.Elapsed.TotalSeconds];
        }));

    private static Row Idle() => new("cost-idle", Ours,
        [
            new Metric("cost-idle", CpuCost.Group, "resident memory of the four services, idle", "MB", false, new Target(null, 200)),
            new Metric("cost-idle-pss", CpuCost.Group, "  shared pages counted once (PSS)", "MB", false),
            new Metric("cost-idle-cpu", CpuCost.Group, "CPU of the four services, idle, over 10 s", "% of a core", false, new Target(null, 1)),
        ],
        (lab, _, _, cancellation) => WithInstanceAsync(lab, async instance =>
        {
            await instance.UpAsync(cancellation);
            await instance.GuestAsync("a", "vmnet8", cancellation);
            await Task.Delay(Quietness, cancellation);
            double before = ProcessTimes.CpuSeconds(instance.Processes);
            var watch = Stopwatch.StartNew();
            await Task.Delay(IdleTime, cancellation);
            double percent = (ProcessTimes.CpuSeconds(instance.Processes) - before) / watch.Elapsed.TotalSeconds * 100;
            return [.. Memory(instance), percent];
        }));

    private static Row OpenFlows() => new("cost-flows", Ours,
        [
            new Metric("cost-flows", CpuCost.Group, "resident memory with 10,000 idle flows", "MB", false, new Target(null, 300)),
            new Metric("cost-flows-pss", CpuCost.Group, "  shared pages counted once (PSS)", "MB", false),
        ],
        (lab, _, _, cancellation) => WithInstanceAsync(lab, async instance =>
        {
            await instance.UpAsync(cancellation);
            VNetMeshGuest guest = await instance.GuestAsync("a", "vmnet8", cancellation);
            await using BackgroundProgram taker = instance.Site.Wan.Start("server of many connections", Worker.Command("accept", Text(FlowPort)));
            await taker.UntilAsync("it was ready", () => taker.Output.Contains("ready", StringComparison.Ordinal), cancellation);
            await using BackgroundProgram opener = guest.Namespace.Start("client of many connections", Worker.Command("open", $"{Site.WanAddress}:{Text(FlowPort)}", Text(Flows)));
            await opener.UntilAsync("all were open", () => opener.Output.Contains("ready", StringComparison.Ordinal), cancellation, 60);
            await Task.Delay(Settling, cancellation);
            return [.. Memory(instance)];
        }));

    private static double?[] Memory(VNetMeshInstance instance) =>
        [ProcessTimes.MemoryBytes(instance.Processes, "Rss") / Mega, ProcessTimes.MemoryBytes(instance.Processes, "Pss") / Mega];

    private static async Task<double?[]> WithInstanceAsync(Lab lab, Func<VNetMeshInstance, Task<double?[]>> measure)
    {
        VNetMeshInstance instance = await lab.NewInstanceAsync();
        try
        {
            return await measure(instance);
        }
        finally
        {
            await instance.DisposeAsync();
        }
    }

    private static string Text(int number) => number.ToString(CultureInfo.InvariantCulture);
}
