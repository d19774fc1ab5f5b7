using System.Text.RegularExpressions;
using System.Xml.Linq;

namespace VNetMesh.Architecture.Tests;

/// <summary>
/// Imports go one way: Packets ← Links ← services. Read from the project files and the sources, so that a shortcut
/// taken in a hurry is seen at once.
/// </summary>
public sealed partial class ImportTests
{
    private static readonly string[] Services = ["Switch", "Dhcp", "Nat", "Agent", "Cli"];

    /// <summary>What each shared library may import; the services may import all of them, and nothing else.</summary>
    private static readonly Dictionary<string, string[]> Shared = new(StringComparer.Ordinal)
    {
        ["VNetMesh.Packets"] = [],
        ["VNetMesh.Native"] = [],
        ["VNetMesh.Contracts"] = [],
        ["VNetMesh.Declarations"] = [],
        ["VNetMesh.Links"] = ["VNetMesh.Packets", "VNetMesh.Native", "VNetMesh.Contracts"],
        ["VNetMesh.Hosting"] = ["VNetMesh.Contracts", "VNetMesh.Native"],
    };

    /// <summary>Of Links, which domain code uses, only what speaks to the switch may know the generated types.</summary>
    private static readonly string[] LinksThatSpeakGrpc = ["FrameBatchBuffer.cs", "PortClient.cs", "StreamLink.cs"];

    internal static readonly string Root = FindRoot();

    public static TheoryData<string> SharedNames => [.. Shared.Keys];

    public static TheoryData<string> ServiceNames => [.. Services];

    [Fact]
    public void Every_project_is_one_that_these_rules_know()
    {
        string[] known = [.. Shared.Keys.Select(name => $"services/Shared/{name}/{name}.csproj"), .. Services.Select(name => $"services/{name}/{name}.csproj")];
        string[] found = [.. Directory.GetFiles(Path.Combine(Root, "services"), "*.csproj", SearchOption.AllDirectories).Select(path => Path.GetRelativePath(Root, path))];
        Assert.Equal(known.Order(StringComparer.Ordinal), found.Order(StringComparer.Ordinal));
    }

    [Theory]
    [MemberData(nameof(SharedNames))]
    public void A_shared_library_imports_only_what_lies_below_it(string name) =>
        Assert.Subset(Shared[name].ToHashSet(), ImportsOf($"services/Shared/{name}/{name}.csproj").ToHashSet());

    [Theory]
    [MemberData(nameof(ServiceNames))]
    public void A_service_imports_shared_libraries_and_no_other_service(string name) =>
        Assert.Subset(Shared.Keys.ToHashSet(), ImportsOf($"services/{name}/{name}.csproj").ToHashSet());

    [Fact]
    public void Packets_and_Native_use_nothing_but_the_runtime()
    {
        foreach (string name in new[] { "VNetMesh.Packets", "VNetMesh.Native" })
        {
            XDocument project = XDocument.Load(Path.Combine(Root, $"services/Shared/{name}/{name}.csproj"));
            Assert.Empty(project.Descendants("PackageReference"));
            Assert.Empty(project.Descendants("FrameworkReference"));
        }
    }

    [Theory]
    [InlineData("Switch")]
    [InlineData("Dhcp")]
    [InlineData("Nat")]
    [InlineData("Agent")]
    public void Generated_types_are_seen_in_Rpc_and_in_Program_alone(string service)
    {
        string folder = Path.Combine(Root, "services", service);
        string[] offenders = [.. SourcesOf(folder)
            .Where(path => path != "Program.cs" && !path.StartsWith("Rpc/", StringComparison.Ordinal))
            .Where(path => MentionsGenerated(Path.Combine(folder, path)))];
        Assert.True(offenders.Length == 0, $"VNetMesh.V1 is used outside of Rpc/ in {string.Join(", ", offenders)}");
        Assert.False(MentionsGenerated(Path.Combine(folder, service + ".csproj")), "a global using shows VNetMesh.V1 to every folder");
    }

    [Fact]
    public void Generated_types_are_seen_in_few_places_of_Links()
    {
        string folder = Path.Combine(Root, "services/Shared/VNetMesh.Links");
        Assert.Equal(LinksThatSpeakGrpc, SourcesOf(folder).Where(path => MentionsGenerated(Path.Combine(folder, path))).Order(StringComparer.Ordinal));
    }

    /// <summary>P/Invoke has one home.</summary>
    [Fact]
    public void Only_Native_calls_libc()
    {
        string folder = Path.Combine(Root, "services");
        string[] offenders = [.. SourcesOf(folder)
            .Where(path => !path.StartsWith("Shared/VNetMesh.Native/", StringComparison.Ordinal))
            .Where(path => NativeImport().IsMatch(File.ReadAllText(Path.Combine(folder, path))))];
        Assert.True(offenders.Length == 0, $"LibraryImport or DllImport outside of VNetMesh.Native in {string.Join(", ", offenders)}");
    }

    [Fact]
    public void Programs_are_short()
    {
        foreach (string service in Services)
            Assert.InRange(File.ReadLines(Path.Combine(Root, "services", service, "Program.cs")).Count(line => !string.IsNullOrWhiteSpace(line)), 1, 59);
    }

    private static string[] ImportsOf(string project) =>
        [.. XDocument.Load(Path.Combine(Root, project)).Descendants("ProjectReference").Select(reference => Path.GetFileNameWithoutExtension(reference.Attribute("Include")!.Value))];

    private static IEnumerable<string> SourcesOf(string folder)
    {
        string[] sources = [.. Directory.GetFiles(folder, "*.cs", SearchOption.AllDirectories).Select(path => Path.GetRelativePath(folder, path))];
        Assert.NotEmpty(sources);
        return sources.Where(path => !path.Contains("/obj/", StringComparison.Ordinal) && !path.Contains("/bin/", StringComparison.Ordinal));
    }

    private static bool MentionsGenerated(string path) => Generated().IsMatch(Comments().Replace(File.ReadAllText(path), ""));

    private static string FindRoot()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "VNetMesh.sln")))
            folder = Path.GetDirectoryName(folder);
        return folder ?? throw new InvalidOperationException("VNetMesh.sln is in no folder above the tests");
    }

    [GeneratedRegex(@"\bVNetMesh\.V1\b|(?<![\w.])V1\.\w")]
    private static partial Regex Generated();

    [GeneratedRegex(@"//[^\n]*")]
    private static partial Regex Comments();

    [GeneratedRegex(@"\[\s*(LibraryImport|DllImport)\b")]
    private static partial Regex NativeImport();
}
