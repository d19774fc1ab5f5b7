using System.Globalization;
using System.Text;
using VNetMesh.Benchmarks.Systems;

namespace VNetMesh.Benchmarks.Results;

/// <summary>Results as text: per group the metrics, each system's median, and beside each peer the ratio of VNetMesh to it.</summary>
public static class Table
{
    private static readonly string[] GroupOrder = ["switch", "nat", "cost", "attach"];

    public static string Render(IReadOnlyList<MetricResult> results, bool markdown)
    {
        var text = new StringBuilder();
        foreach (IGrouping<string, MetricResult> group in results.GroupBy(result => result.Metric.Group).OrderBy(group => Array.IndexOf(GroupOrder, group.Key)))
        {
            string[] peers = [.. group.SelectMany(result => result.Systems.Keys).Where(system => system != SystemNames.VNetMesh).Distinct().OrderBy(system => Array.IndexOf(SystemNames.Peers, system))];
            List<string[]> lines = [[group.Key, "unit", SystemNames.VNetMesh, .. peers.Select(peer => peer + " (ratio)"), "target"]];
            lines.AddRange(group.Select(result => Line(result, peers)));
            if (text.Length > 0)
                text.AppendLine();
            Append(text, lines, markdown);
        }
        foreach ((MetricResult result, string system, string failure) in results.SelectMany(result => result.Systems.SelectMany(system => system.Value.Failures.Distinct().Select(failure => (result, system.Key, failure)))))
            text.AppendLine(CultureInfo.InvariantCulture, $"{(markdown ? "- " : "")}{result.Metric.Name}, {system}: {failure}");
        return text.ToString();
    }

    /// <summary>Three significant digits, thousands separated.</summary>
    public static string Number(double? value) => value switch
    {
        null => "–",
        >= 1000 => value.Value.ToString("#,0", CultureInfo.InvariantCulture),
        >= 100 => value.Value.ToString("0", CultureInfo.InvariantCulture),
        >= 10 => value.Value.ToString("0.0", CultureInfo.InvariantCulture),
        >= 0.1 or 0 => value.Value.ToString("0.00", CultureInfo.InvariantCulture),
        _ => value.Value.ToString("0.0000", CultureInfo.InvariantCulture),
    };

    /// <summary>"≥ 0.65 × bridge: met".</summary>
    public static string Describe(Judgement judgement, Metric metric)
    {
        string sign = metric.HigherIsBetter ? "≥" : "≤";
        string bound = judgement.Target.Bound.ToString("0.##", CultureInfo.InvariantCulture);
        string what = judgement.Target.Peer is null ? $"{sign} {bound} {metric.Unit}" : $"{sign} {bound} × {judgement.Target.Peer}";
        return $"{what}: {judgement.Verdict switch { Verdict.Met => "met", Verdict.Short => "short", _ => "?" }}";
    }

    private static string[] Line(MetricResult result, string[] peers) =>
    [
        result.Metric.Title, result.Metric.Unit, Cell(result, SystemNames.VNetMesh),
        .. peers.Select(peer => result.Systems.ContainsKey(peer) ? Cell(result, peer) + (result.Ratio(SystemNames.VNetMesh, peer) is { } ratio ? $" ({Number(ratio)})" : "") : ""),
        string.Join("; ", result.Judge(SystemNames.VNetMesh).Select(judgement => Describe(judgement, result.Metric))),
    ];

    private static string Cell(MetricResult result, string system) =>
        result.MedianOf(system) is { } median ? Number(median) : result.Systems.TryGetValue(system, out Samples? samples) && samples.Failures.Count > 0 ? "failed" : "–";

    private static void Append(StringBuilder text, List<string[]> lines, bool markdown)
    {
        if (markdown)
        {
            text.AppendLine("| " + string.Join(" | ", lines[0]) + " |");
            text.AppendLine("|" + string.Concat(lines[0].Select((_, column) => column is 0 or 1 || column == lines[0].Length - 1 ? " --- |" : " ---: |")));
            foreach (string[] line in lines.Skip(1))
                text.AppendLine("| " + string.Join(" | ", line.Select(cell => cell.Trim())) + " |");
            return;
        }
        int[] widths = [.. Enumerable.Range(0, lines[0].Length).Select(column => lines.Max(line => line[column].Length))];
        foreach (string[] line in lines)
        {
            // Words to the left, numbers to the right.
            IEnumerable<string> cells = line.Select((cell, column) => column is 0 or 1 || column == line.Length - 1 ? cell.PadRight(widths[column]) : cell.PadLeft(widths[column]));
            text.AppendLine(string.Join("  ", cells).TrimEnd());
        }
    }
}
