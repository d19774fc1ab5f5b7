using VNetMesh.Nat.Gateways;

namespace VNetMesh.Nat.Tests.Gateways;

public sealed class DropCauseTests
{
    [Fact]
    public void Each_cause_is_explained_and_none_that_is_not_there()
    {
        DirectoryInfo? directory = new(AppContext.BaseDirectory);
        while (directory is not null && !File.Exists(Path.Combine(directory.FullName, "VNetMesh.sln")))
            directory = directory.Parent;
        if (directory is null)
            Assert.Skip("the documents are not beside the tests");
        string page = File.ReadAllText(Path.Combine(directory.FullName, "docs", "drops.md"));
        string section = page[page.IndexOf("## NAT", StringComparison.Ordinal)..];
        int next = section.IndexOf("\n## ", StringComparison.Ordinal);
        section = next < 0 ? section : section[..next];
        IEnumerable<string> explained = section.Split('\n').Where(line => line.StartsWith("| `", StringComparison.Ordinal)).Select(line => line.Split('`')[1]);
        Assert.Equal(DropCounters.Names.Order(), explained.Order());
        Assert.All(DropCounters.Names, name => Assert.Matches("^[a-z][a-z0-9_]*$", name));
    }
}
