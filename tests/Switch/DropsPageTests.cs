using System.Text.RegularExpressions;
using VNetMesh.Switch.Forwarding;

namespace VNetMesh.Switch.Tests;

public sealed partial class DropsPageTests
{
    [Fact]
    public void ThePageListsExactlyTheCausesThatThereAre()
    {
        string page = File.ReadAllText(Path.Combine(RepositoryRoot(), "docs", "drops.md"));
        string section = page[page.IndexOf("## Switch", StringComparison.Ordinal)..];
        int end = section.IndexOf("\n## ", 3, StringComparison.Ordinal);
        IEnumerable<string> listed = Row().Matches(end < 0 ? section : section[..end]).Select(match => match.Groups[1].Value);
        Assert.Equal(DropCauses.All.ToArray().Select(DropCauses.NameOf).Order(), listed.Order());
    }

    private static string RepositoryRoot()
    {
        string? directory = AppContext.BaseDirectory;
        while (directory is not null && !File.Exists(Path.Combine(directory, "VNetMesh.sln")))
            directory = Path.GetDirectoryName(directory);
        return directory ?? throw new InvalidOperationException("not inside the repository");
    }

    [GeneratedRegex(@"^\| `([a-z_]+)` \|", RegexOptions.Multiline)]
    private static partial Regex Row();
}
