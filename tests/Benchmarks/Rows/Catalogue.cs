namespace VNetMesh.Benchmarks.Rows;

/// <summary>All rows, in the order of the table.</summary>
public static class Catalogue
{
    public static IReadOnlyList<Row> Rows { get; } = [.. SwitchRows.All(), .. NatRows.All(), .. BridgedRows.All(), .. VmRows.All(), .. CostRows.All(), .. AttachRows.All()];

    /// <summary>Rows that bear the name, or of which one metric does, or whose names begin with it and a dash: "nat-tcp" stands for eight.</summary>
    public static IReadOnlyList<Row> Find(string name) =>
        [.. Rows.Where(row => row.Metrics.Select(metric => metric.Name).Prepend(row.Name).Any(known => known == name || known.StartsWith(name + "-", StringComparison.Ordinal)))];
}
