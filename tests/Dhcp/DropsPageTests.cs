using System.Text.RegularExpressions;
using VNetMesh.Dhcp.Protocol;

namespace VNetMesh.Dhcp.Tests;

public sealed partial class DropsPageTests
{
    [Fact]
    public void The_page_lists_exactly_the_causes_that_there_are()
    {
        string? directory = AppContext.BaseDirectory;
        while (directory is not null && !File.Exists(Path.Combine(directory, "VNetMesh.sln")))
            directory = Path.GetDirectoryName(directory);
        Assert.NotNull(directory);
        string page = File.ReadAllText(Path.Combine(directory, "docs", "drops.md"));
        string section = page[page.IndexOf("## dhcp", StringComparison.Ordinal)..];
        int end = section.IndexOf("\n## ", 3, StringComparison.Ordinal);
        IEnumerable<string> listed = Row().Matches(end < 0 ? section : section[..end]).Select(match => match.Groups[1].Value);
        Assert.Equal(Enum.GetValues<DropCause>().Select(DropCauses.NameOf).Order(), listed.Order());
    }

    [GeneratedRegex(@"^\| `([a-z_]+)` \|", RegexOptions.Multiline)]
    private static partial Regex Row();
}
