using System.Text.RegularExpressions;
using VNetMesh.Agent.Uplinks;

namespace VNetMesh.Agent.Tests.Uplinks;

public sealed partial class DropsPageTests
{
    [Fact]
    public void ThePageListsExactlyTheCausesThatThereAre()
    {
        string? directory = AppContext.BaseDirectory;
        while (directory is not null && !File.Exists(Path.Combine(directory, "VNetMesh.sln")))
            directory = Path.GetDirectoryName(directory);
        string page = File.ReadAllText(Path.Combine(directory!, "docs", "drops.md"));
        string section = page[page.IndexOf("\n## agent", StringComparison.Ordinal)..];
        int end = section.IndexOf("\n## ", 3, StringComparison.Ordinal);
        IEnumerable<string> listed = Row().Matches(end < 0 ? section : section[..end]).Select(match => match.Groups[1].Value);
        Assert.Equal(Enum.GetValues<UplinkDropCause>().Select(UplinkDrops.NameOf).Order(), listed.Order());
    }

    [GeneratedRegex(@"^\| `([a-z_]+)` \|", RegexOptions.Multiline)]
    private static partial Regex Row();
}
