using System.Text.RegularExpressions;

namespace VNetMesh.Architecture.Tests;

/// <summary>docs/settings.md names every VNETMESH_ variable that the sources and compose.yaml read, and no other.</summary>
public sealed partial class SettingsPageTests
{
    [Fact]
    public void Every_setting_is_in_the_table_and_every_row_is_a_setting()
    {
        IEnumerable<string> sources = Directory.EnumerateFiles(Path.Combine(ImportTests.Root, "services"), "*", SearchOption.AllDirectories)
            .Where(path => Path.GetExtension(path) is ".cs" or ".script" && !path.Contains("/obj/", StringComparison.Ordinal) && !path.Contains("/bin/", StringComparison.Ordinal))
            .Append(Path.Combine(ImportTests.Root, "compose.yaml")).Append(Path.Combine(ImportTests.Root, "Dockerfile"));
        Assert.Equal(Names(sources), Names([Path.Combine(ImportTests.Root, "docs", "settings.md")]));
    }

    private static string[] Names(IEnumerable<string> files) =>
        [.. files.SelectMany(file => Variable().Matches(File.ReadAllText(file)).Select(match => match.Value)).Distinct().Order(StringComparer.Ordinal)];

    /// <summary>Sections of configuration (VNETMESH_DHCP__X) count as one.</summary>
    [GeneratedRegex("VNETMESH_[A-Z]+(_[A-Z]+)*")]
    private static partial Regex Variable();
}
