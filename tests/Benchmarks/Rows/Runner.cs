using System.ComponentModel;
using System.Text.Json;
using VNetMesh.Benchmarks.Results;
using VNetMesh.Benchmarks.Running;
using VNetMesh.Benchmarks.Systems;

namespace VNetMesh.Benchmarks.Rows;

/// <summary>Runs rows: round after round, in each round every system after the other, so that a machine that changes its pace does it to all.</summary>
public sealed class Runner(Lab lab, RunSettings settings, int rounds, TextWriter progress)
{
    private readonly List<MetricResult> _results = [];

    /// <summary>So far, in the order of the rows.</summary>
    public IReadOnlyList<MetricResult> Results => _results;

    public async Task RunAsync(IReadOnlyList<Row> rows, CancellationToken cancellation)
    {
        int total = rows.Sum(row => row.Systems.Count) * rounds, done = 0;
        foreach (Row row in rows)
        {
            MetricResult[] results = [.. row.Metrics.Select(metric => new MetricResult(metric))];
            _results.AddRange(results);
            for (int round = 1; round <= rounds; round++)
            {
                foreach (string system in row.Systems)
                {
                    cancellation.ThrowIfCancellationRequested();
                    await progress.WriteAsync($"[{++done}/{total}] {row.Name}, round {round} of {rounds}, {system} … ");
                    await progress.WriteLineAsync(await MeasureAsync(row, system, results, cancellation));
                }
            }
        }
    }

    /// <summary>One measurement; a failure is noted, and stops nobody else.</summary>
    /// <returns>What to tell.</returns>
    private async Task<string> MeasureAsync(Row row, string system, MetricResult[] results, CancellationToken cancellation)
    {
        try
        {
            double?[] values = await row.MeasureAsync(lab, system, settings, cancellation);
            for (int at = 0; at < results.Length; at++)
            {
                if (values[at] is { } value)
                    results[at].Of(system).Values.Add(value);
            }
            return string.Join(", ", results.Select((result, at) => values[at] is null ? "" : $"{Table.Number(values[at])} {result.Metric.Unit}").Where(text => text.Length > 0));
        }
        catch (Exception exception) when (IsFailure(exception) && !cancellation.IsCancellationRequested)
        {
            string why = exception.Message.ReplaceLineEndings(" ");
            foreach (MetricResult result in results)
                result.Of(system).Failures.Add(why);
            return "failed: " + why;
        }
    }

    /// <summary>What a peer, a tool or a process that ended can do to a measurement; a mistake of this program is none of them.</summary>
    private static bool IsFailure(Exception exception) =>
        exception is BenchmarkException or IOException or UnauthorizedAccessException or JsonException or Win32Exception or Grpc.Core.RpcException or FormatException;

    /// <summary>Lines that follow from others: the best case of each system.</summary>
    public static IReadOnlyList<MetricResult> WithBest(IReadOnlyList<MetricResult> results)
    {
        List<MetricResult> all = [.. results];
        foreach ((Metric metric, Func<Metric, bool> of) in NatRows.Best())
        {
            MetricResult[] sources = [.. results.Where(result => of(result.Metric))];
            if (sources.Length < NatRows.CasesPerDirection || results.Any(result => result.Metric.Name == metric.Name))
                continue;
            var best = new MetricResult(metric);
            foreach (string system in SystemNames.Nats)
            {
                double[] medians = [.. sources.Select(source => source.MedianOf(system)).OfType<double>()];
                if (medians.Length > 0)
                    best.Of(system).Values.Add(medians.Max());
            }
            all.Insert(all.FindLastIndex(result => of(result.Metric)) + 1, best);
        }
        return all;
    }
}
