using System.Text.Json;
using System.Text.Json.Serialization;
using VNetMesh.Benchmarks.Systems;

namespace VNetMesh.Benchmarks.Results;

/// <summary>Of what a run was made.</summary>
/// <param name="Time">When it ended, UTC.</param>
/// <param name="Cores">Of the machine.</param>
/// <param name="Kernel">Release.</param>
/// <param name="Rounds">Of each row.</param>
/// <param name="Seconds">Of each measurement.</param>
/// <param name="CongestionControl">In every namespace.</param>
/// <param name="Versions">Of the peers and tools.</param>
public sealed record RunFacts(DateTime Time, int Cores, string Kernel, int Rounds, int Seconds, string CongestionControl, IReadOnlyDictionary<string, string> Versions);

/// <summary>Results as JSON, and back.</summary>
public static class Report
{
    private static readonly JsonSerializerOptions Options = new(JsonSerializerDefaults.Web) { WriteIndented = true, Converters = { new JsonStringEnumConverter(JsonNamingPolicy.CamelCase) } };

    public static string ToJson(RunFacts facts, IReadOnlyList<MetricResult> results) => JsonSerializer.Serialize(new Document(facts, [.. results.Select(ToEntry)]), Options);

    /// <exception cref="JsonException">Not a report.</exception>
    public static (RunFacts Facts, IReadOnlyList<MetricResult> Results) FromJson(string json)
    {
        Document document = JsonSerializer.Deserialize<Document>(json, Options) ?? throw new JsonException("an empty report");
        return (document.Run, [.. document.Rows.Select(FromEntry)]);
    }

    private static Entry ToEntry(MetricResult result) => new(result.Metric,
        result.Systems.ToDictionary(system => system.Key, system => new SystemEntry(system.Value.Median, result.Ratio(SystemNames.VNetMesh, system.Key), system.Value.Values, system.Value.Failures)),
        [.. result.Judge(SystemNames.VNetMesh)]);

    private static MetricResult FromEntry(Entry entry)
    {
        var result = new MetricResult(entry.Metric);
        foreach ((string system, SystemEntry values) in entry.Systems)
            result.Systems[system] = new Samples { Values = values.Samples, Failures = values.Failures };
        return result;
    }

    private sealed record Document(RunFacts Run, List<Entry> Rows);

    private sealed record Entry(Metric Metric, Dictionary<string, SystemEntry> Systems, List<Judgement> Targets);

    /// <param name="Median">Of the samples.</param>
    /// <param name="Ratio">VNetMesh's median divided by this one.</param>
    /// <param name="Samples">One for each round that succeeded.</param>
    /// <param name="Failures">One for each round that did not.</param>
    private sealed record SystemEntry(double? Median, double? Ratio, List<double> Samples, List<string> Failures);
}
