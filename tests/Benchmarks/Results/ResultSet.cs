namespace VNetMesh.Benchmarks.Results;

/// <summary>What the rounds of one system gave for one metric.</summary>
public sealed class Samples
{
    public List<double> Values { get; init; } = [];

    /// <summary>Why rounds gave nothing, one entry each.</summary>
    public List<string> Failures { get; init; } = [];

    /// <summary>Null when no round gave a value.</summary>
    public double? Median => Statistics.Median(Values);
}

/// <summary>Whether a target is met.</summary>
public enum Verdict
{
    /// <summary>A side of the comparison has no value.</summary>
    Unknown,
    Met,
    Short,
}

/// <summary>A target with the ratio (or value) seen.</summary>
public sealed record Judgement(Target Target, double? Seen, Verdict Verdict);

/// <summary>One metric with the samples of every system.</summary>
public sealed class MetricResult(Metric metric)
{
    public Metric Metric { get; } = metric;
    public Dictionary<string, Samples> Systems { get; } = [];

    public Samples Of(string system) => Systems.TryGetValue(system, out Samples? samples) ? samples : Systems[system] = new Samples();

    /// <summary>Median of <paramref name="ours"/> divided by the median of the peer.</summary>
    public double? Ratio(string ours, string peer) =>
        MedianOf(ours) is { } own && MedianOf(peer) is { } other && other > 0 ? own / other : null;

    public double? MedianOf(string system) => Systems.TryGetValue(system, out Samples? samples) ? samples.Median : null;

    public IEnumerable<Judgement> Judge(string ours) => Metric.Targets.Select(target =>
    {
        double? seen = target.Peer is null ? MedianOf(ours) : Ratio(ours, target.Peer);
        Verdict verdict = seen is not { } value ? Verdict.Unknown : (Metric.HigherIsBetter ? value >= target.Bound : value <= target.Bound) ? Verdict.Met : Verdict.Short;
        return new Judgement(target, seen, verdict);
    });
}
