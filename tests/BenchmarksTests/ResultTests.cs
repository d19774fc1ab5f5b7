using VNetMesh.Benchmarks.Results;
using VNetMesh.Benchmarks.Rows;
using VNetMesh.Benchmarks.Systems;

namespace VNetMesh.Benchmarks.Tests;

public sealed class ResultTests
{
    private static readonly Metric Throughput = new("nat-tcp-1500-out-1", "nat", "TCP out", "Gbit/s", true, new Target(SystemNames.Veth, 0.45), new Target(SystemNames.Pasta, 5), new Target(SystemNames.Slirp, 5));
    private static readonly Metric Latency = new("switch-ping", "switch", "ping, p50", "ms", false, new Target(SystemNames.Vde, 1), new Target(null, 0.04));

    [Theory]
    [InlineData(new[] { 3.0 }, 3.0)]
    [InlineData(new[] { 9.0, 1.0, 5.0 }, 5.0)]
    [InlineData(new[] { 4.0, 1.0, 3.0, 2.0 }, 2.5)]
    public void The_median_is_the_middle(double[] values, double median) => Assert.Equal(median, Statistics.Median(values));

    [Fact]
    public void Nothing_has_no_median() => Assert.Null(Statistics.Median([]));

    [Theory]
    [InlineData(50, 2)]
    [InlineData(99, 4)]
    [InlineData(1, 1)]
    [InlineData(100, 4)]
    public void Percentiles_are_of_the_nearest_rank(double percent, double value) => Assert.Equal(value, Statistics.Percentile([4, 2, 1, 3], percent));

    [Fact]
    public void More_is_better_for_throughput_and_less_for_time()
    {
        MetricResult throughput = Result(Throughput, (SystemNames.VNetMesh, 10), (SystemNames.Veth, 20), (SystemNames.Pasta, 2.5));
        Assert.Equal([(0.5, Verdict.Met), (4, Verdict.Short), (null, Verdict.Unknown)], throughput.Judge(SystemNames.VNetMesh).Select(judgement => (judgement.Seen, judgement.Verdict)));
        MetricResult latency = Result(Latency, (SystemNames.VNetMesh, 0.05), (SystemNames.Vde, 0.1));
        Assert.Equal([(0.5, Verdict.Met), (0.05, Verdict.Short)], latency.Judge(SystemNames.VNetMesh).Select(judgement => (judgement.Seen, judgement.Verdict)));
    }

    [Fact]
    public void The_table_shows_ratios_verdicts_and_why_a_row_failed()
    {
        MetricResult result = Result(Throughput, (SystemNames.VNetMesh, 10), (SystemNames.Veth, 20));
        result.Of(SystemNames.Pasta).Failures.Add("pasta: not found");
        string text = Table.Render([result], markdown: false);
        Assert.Contains("20.0 (0.50)", text, StringComparison.Ordinal);
        Assert.Contains("≥ 0.45 × veth: met; ≥ 5 × pasta: ?", text, StringComparison.Ordinal);
        Assert.Contains("nat-tcp-1500-out-1, pasta: pasta: not found", text, StringComparison.Ordinal);
        string[] lines = Table.Render([result], markdown: true).Split('\n');
        Assert.Equal(lines[0].Count(letter => letter == '|'), lines[1].Count(letter => letter == '|'));
    }

    [Fact]
    public void A_report_reads_back_as_it_was_written()
    {
        MetricResult result = Result(Latency, (SystemNames.VNetMesh, 0.05), (SystemNames.Vde, 0.1));
        result.Of(SystemNames.Bridge).Failures.Add("why");
        var facts = new RunFacts(new DateTime(2026, 1, 2, 3, 4, 5, DateTimeKind.Utc), 2, "6.18", 3, 3, "cubic", new Dictionary<string, string> { ["pasta"] = "1" });
        (RunFacts read, IReadOnlyList<MetricResult> results) = Report.FromJson(Report.ToJson(facts, [result]));
        Assert.Equal((facts.Time, facts.Kernel, "1"), (read.Time, read.Kernel, read.Versions["pasta"]));
        Assert.Equal(Table.Render([result], markdown: false), Table.Render(results, markdown: false));
    }

    [Fact]
    public void The_best_case_is_the_best_of_each_system()
    {
        MetricResult[] all =
        [
            .. Catalogue.Find("nat-tcp").SelectMany(row => row.Metrics).Where(metric => metric.Group == "nat")
                .Select((metric, at) => Result(metric, (SystemNames.VNetMesh, 10 + at), (SystemNames.Pasta, 20 - at))),
        ];
        Assert.Equal(8, all.Length);
        MetricResult best = Runner.WithBest(all).Single(result => result.Metric.Name == "nat-tcp-best-out");
        double Most(string system) => all.Where(result => result.Metric.Name.Contains("-out-", StringComparison.Ordinal)).Max(result => result.MedianOf(system)!.Value);
        Assert.Equal((Most(SystemNames.VNetMesh), Most(SystemNames.Pasta)), (best.MedianOf(SystemNames.VNetMesh), best.MedianOf(SystemNames.Pasta)));
        Assert.DoesNotContain(Runner.WithBest(all[..3]), result => result.Metric.Name.Contains("best", StringComparison.Ordinal));
    }

    [Fact]
    public void Rows_and_metrics_have_names_of_their_own()
    {
        string[] names = [.. Catalogue.Rows.SelectMany(row => row.Metrics).Select(metric => metric.Name)];
        Assert.Equal(names.Length, names.Distinct().Count());
        Assert.All(Catalogue.Rows, row => Assert.Contains(row, Catalogue.Find(row.Name)));
        Assert.Equal(8, Catalogue.Find("nat-tcp").Count);
        Assert.Equal(["switch-tcp-1"], Catalogue.Find("cost-cpu-switch-tcp-1").Select(row => row.Name));
        Assert.Empty(Catalogue.Find("nat-tc"));
    }

    private static MetricResult Result(Metric metric, params (string System, double Value)[] values)
    {
        var result = new MetricResult(metric);
        foreach ((string system, double value) in values)
            result.Of(system).Values.Add(value);
        return result;
    }
}
