using System.Text.Json;
using System.Text.RegularExpressions;

namespace VNetMesh.Architecture.Tests;

/// <summary>Dashboards are read by people: each panel says what it shows, in which unit, and shows nothing that no service measures.</summary>
public sealed partial class DashboardFileTests
{
    private static readonly string Folder = Path.Combine(ImportTests.Root, "services", "Observability");

    public static TheoryData<string> Dashboards => [.. Directory.GetFiles(Path.Combine(Folder, "grafana", "dashboards"), "*.json").Select(path => Path.GetFileName(path)).Order(StringComparer.Ordinal)];

    [Fact]
    public void The_four_dashboards_are_there() => Assert.Equal(["dhcp.json", "nat.json", "overview.json", "services.json"], Dashboards.Select(row => row.Data));

    [Theory]
    [MemberData(nameof(Dashboards))]
    public void Each_panel_has_a_title_a_description_and_a_unit(string file)
    {
        JsonElement[] panels = Panels(file);
        Assert.InRange(panels.Length, 8, 40);
        Assert.All(panels, panel =>
        {
            Assert.InRange(panel.GetProperty("title").GetString()!.Length, 3, 60);
            Assert.EndsWith(".", panel.GetProperty("description").GetString());
            Assert.NotEqual("", panel.GetProperty("fieldConfig").GetProperty("defaults").GetProperty("unit").GetString());
            Assert.NotEqual(0, panel.GetProperty("targets").GetArrayLength());
            Assert.All(panel.GetProperty("targets").EnumerateArray(), target => Assert.NotEqual("", target.GetProperty("legendFormat").GetString()));
            Assert.Equal("prometheus", panel.GetProperty("datasource").GetProperty("uid").GetString());
        });
        Assert.Equal(panels.Length, panels.Select(panel => panel.GetProperty("title").GetString()).Distinct().Count());
        Assert.Equal(panels.Length, panels.Select(panel => panel.GetProperty("id").GetInt32()).Distinct().Count());
    }

    [Theory]
    [MemberData(nameof(Dashboards))]
    public void Panels_do_not_lie_on_each_other(string file)
    {
        var taken = new HashSet<(int, int)>();
        foreach (JsonElement place in Panels(file).Select(panel => panel.GetProperty("gridPos")))
        {
            int x = place.GetProperty("x").GetInt32(), y = place.GetProperty("y").GetInt32(), width = place.GetProperty("w").GetInt32();
            Assert.InRange(x + width, 1, 24);
            for (int row = y; row < y + place.GetProperty("h").GetInt32(); row++)
                Assert.All(Enumerable.Range(x, width), column => Assert.True(taken.Add((column, row)), $"{file}: two panels at {column}, {row}"));
        }
    }

    [Fact]
    public void Every_metric_of_ours_that_is_asked_for_is_listed()
    {
        string page = File.ReadAllText(Path.Combine(ImportTests.Root, "docs", "telemetry.md"));
        HashSet<string> listed = [.. Row().Matches(page).Select(match => match.Groups[1].Value.Replace('.', '_'))];
        string[] files = [.. Directory.GetFiles(Path.Combine(Folder, "grafana", "dashboards")), .. Directory.GetFiles(Path.Combine(Folder, "prometheus", "rules"))];
        string[] asked = [.. files.SelectMany(file => Metric().Matches(File.ReadAllText(file)).Select(match => match.Value)).Distinct()];
        Assert.NotEmpty(asked);
        Assert.All(asked, name => Assert.True(listed.Any(known => Suffix().Replace(name, "") == known), name));
    }

    private static JsonElement[] Panels(string file)
    {
        using JsonDocument document = JsonDocument.Parse(File.ReadAllText(Path.Combine(Folder, "grafana", "dashboards", file)));
        return [.. document.RootElement.GetProperty("panels").EnumerateArray().Where(panel => panel.GetProperty("type").GetString() != "row").Select(panel => panel.Clone())];
    }

    [GeneratedRegex(@"^\| `([a-z_.]+)` \|", RegexOptions.Multiline)]
    private static partial Regex Row();

    // Labels have the prefix as well: they are followed by = or stand in by (…) and {{…}}.
    [GeneratedRegex(@"\bvnetmesh_(switch|nat|dhcp|agent|loop)_[a-z_]+\b(?!\s*[=!,)}])|\bvnetmesh_(switch|nat|dhcp|agent|loop)_[a-z_]+(_total|_bucket|_count)\b")]
    private static partial Regex Metric();

    [GeneratedRegex("(_(seconds|bytes))?(_(total|bucket|count))?$")]
    private static partial Regex Suffix();
}
