using System.Globalization;
using System.Text.Json;
using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests.Compose;

/// <summary>
/// Stand-ins for the base images, under their official names, so that nothing is fetched from a registry: a small Debian by
/// debootstrap (kept under artifacts/ from one run to the next), with the SDK of this machine and the packages of the lock files.
/// </summary>
internal static class BaseImages
{
    private const string Sdk = "mcr.microsoft.com/dotnet/sdk:10.0", Runtime = "mcr.microsoft.com/dotnet/aspnet:10.0-noble";
    private const string Dotnet = "/usr/share/dotnet";
    private const string Path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

    /// <summary>Where this machine has its packages; in the image it is the same path.</summary>
    private static string PackageCache { get; } = Environment.GetEnvironmentVariable("NUGET_PACKAGES") is { Length: > 0 } set ? set
        : System.IO.Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".nuget", "packages");

    private static string Cache => System.IO.Path.Combine(Repository.Root, "artifacts", "compose", "debian.tar");

    /// <summary>Makes the Debian, unless test.sh has. Skips the test where it cannot be made.</summary>
    public static async Task EnsureDebianAsync()
    {
        string script = System.IO.Path.Combine(Repository.Root, "tests", "EndToEnd", "Compose", "base-image.sh");
        CommandResult made = await Command.RunAsync(TimeSpan.FromMinutes(5), [script, Cache]);
        Assert.SkipUnless(made.ExitCode == 0, made.Error.TrimEnd());
    }

    /// <summary>Skips the test where the SDK is not in its usual place.</summary>
    public static async Task ImportAsync(DockerEngine engine, string scratch)
    {
        Assert.SkipUnless(Directory.Exists(Dotnet), $"the SDK is not in {Dotnet}");
        string packages = System.IO.Path.Combine(scratch, "packages");
        await File.WriteAllLinesAsync(packages, LockedPackages());
        string dotnet = Dotnet[1..];
        // Tars one after the other, as pipes: what is left out of the SDK builds nothing of ours.
        Task sdk = ImportAsync(engine, Sdk, $"ENV {Path}:{Dotnet} DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1 NUGET_PACKAGES={PackageCache}", scratch, $"--exclude=FSharp --exclude=*/templates/* {dotnet} -T {packages}");
        Task runtime = ImportAsync(engine, Runtime, "ENV " + Path, scratch, $"{dotnet}/dotnet {dotnet}/host {dotnet}/shared");
        await Task.WhenAll(sdk, runtime);
        (await engine.DockerAsync("tag", Runtime, Runtime + "-chiseled")).EnsureSuccess();
    }

    private static async Task ImportAsync(DockerEngine engine, string name, string change, string scratch, string more)
    {
        string tar = System.IO.Path.Combine(scratch, System.IO.Path.GetRandomFileName() + ".tar");
        (await Command.RunAsync(TimeSpan.FromMinutes(2), ["sh", "-c", $"cp '{Cache}' '{tar}' && tar -r -f '{tar}' -C / {more}"])).EnsureSuccess();
        (await engine.DockerAsync("import", "-c", change, tar, name)).EnsureSuccess();
        File.Delete(tar);
    }

    /// <summary>The folders of the packages that the services' lock files name, as they were restored here; without a leading slash.</summary>
    private static IEnumerable<string> LockedPackages()
    {
        var found = new SortedSet<string>(StringComparer.Ordinal);
        foreach (string file in Directory.EnumerateFiles(System.IO.Path.Combine(Repository.Root, "services"), "packages.lock.json", SearchOption.AllDirectories))
        {
            using JsonDocument document = JsonDocument.Parse(File.ReadAllText(file));
            foreach (JsonProperty package in document.RootElement.GetProperty("dependencies").EnumerateObject().SelectMany(framework => framework.Value.EnumerateObject()))
            {
                if (package.Value.TryGetProperty("resolved", out JsonElement version))
                    found.Add(string.Create(CultureInfo.InvariantCulture, $"{PackageCache}/{package.Name.ToLowerInvariant()}/{version.GetString()!.ToLowerInvariant()}"));
            }
        }
        return found.Where(Directory.Exists).Select(folder => folder[1..]);
    }
}

/// <summary>The tree that is tested.</summary>
internal static class Repository
{
    public static string Root { get; } = Find();

    private static string Find()
    {
        DirectoryInfo? at = new(AppContext.BaseDirectory);
        while (at is not null && !File.Exists(System.IO.Path.Combine(at.FullName, "compose.yaml")))
            at = at.Parent;
        return at?.FullName ?? throw new InvalidOperationException("no compose.yaml above " + AppContext.BaseDirectory);
    }
}
