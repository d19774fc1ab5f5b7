using VNetMesh.Benchmarks.Load;
using VNetMesh.Benchmarks.Results;
using VNetMesh.Benchmarks.Running;

namespace VNetMesh.Benchmarks.Rows;

/// <summary>What a gigabyte costs, measured with the throughput itself.</summary>
internal static class CpuCost
{
    public const string Group = "cost";

    /// <param name="row">The row of which these are a part.</param>
    /// <param name="title">What is carried.</param>
    public static Metric[] Metrics(string row, string title) =>
    [
        new Metric("cost-cpu-" + row, Group, "CPU of its processes: " + title, "s/GB", false),
        new Metric("cost-machine-" + row, Group, "CPU of the machine, load included: " + title, "s/GB", false),
    ];

    /// <returns>Gbit/s, CPU seconds of the processes for each 10⁹ bytes (null without processes), the same of the whole machine.</returns>
    public static async Task<double?[]> MeasureAsync(IReadOnlyList<int> processes, Func<Task<IperfResult>> run)
    {
        double ownBefore = ProcessTimes.CpuSeconds(processes), machineBefore = ProcessTimes.MachineCpuSeconds();
        IperfResult result = await run();
        double gigabytes = result.Bytes / 1e9;
        return
        [
            result.GigabitsPerSecond,
            processes.Count == 0 ? null : (ProcessTimes.CpuSeconds(processes) - ownBefore) / gigabytes,
            (ProcessTimes.MachineCpuSeconds() - machineBefore) / gigabytes,
        ];
    }
}
