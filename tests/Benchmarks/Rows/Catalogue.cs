namespace VNetMesh.Benchmarks.Rows;

/// <summary>All rows, in the order of the table.</summary>
public static class Catalogue
{
    public static IReadOnlyList<Row> Rows { get; } = [.. SwitchRows.All(), .. NatRows.All()];

    /// <summary>Rows that bear the name, or whose names begin with it and a dash: "nat-tcp" stands for eight.</summary>
    public static IReadOnlyList<Row> Find(string name) =>
        [.. Rows.Where(row => row.Name == name || row.Name.StartsWith(name + "-", StringComparison.Ordinal))];
}
