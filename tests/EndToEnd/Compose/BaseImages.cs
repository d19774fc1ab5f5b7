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
    private const string Dotnet = "/usr/share/dotnet";
    private const string Path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

    // What the agent's image needs is in it already: in the build there is no network to install it from.
    private static readonly string[] Packages = ["busybox", "ca-certificates", "curl", "iproute2", "iputils-ping", "libpcap0.8", "libssl3", "libstdc++6", "mount", "nftables", "udhcpc", "util-linux", "zlib1g"];

    private static string Cache => System.IO.Path.Combine(Repository.Root, "artifacts", "compose", "bookworm.tar");

    /// <summary>Skips the test where the Debian cannot be made.</summary>
    public static async Task ImportAsync(DockerEngine engine, string scratch)
    {
        await EnsureDebianAsync(scratch);
        string sdk = Directory.Exists(Dotnet) ? Dotnet[1..] : "";
        Assert.SkipWhen(sdk.Length == 0, $"the SDK is not in {Dotnet}");
        string packages = System.IO.Path.Combine(scratch, "packages");
        await File.WriteAllLinesAsync(packages, LockedPackages());
        await ImportAsync(engine, "mcr.microsoft.com/dotnet/sdk:10.0", $"ENV {Path}:{Dotnet} DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1", scratch, $"{sdk} -T {packages}");
        await ImportAsync(engine, "mcr.microsoft.com/dotnet/aspnet:10.0-noble", "ENV " + Path, scratch, $"{sdk}/dotnet {sdk}/host {sdk}/shared");
        (await engine.DockerAsync("tag", "mcr.microsoft.com/dotnet/aspnet:10.0-noble", "mcr.microsoft.com/dotnet/aspnet:10.0-noble-chiseled")).EnsureSuccess();
    }

    private static async Task EnsureDebianAsync(string scratch)
    {
        string stamp = Cache + ".packages", wanted = string.Join(',', Packages);
        if (File.Exists(Cache) && File.Exists(stamp) && await File.ReadAllTextAsync(stamp) == wanted)
            return;
        Directory.CreateDirectory(System.IO.Path.GetDirectoryName(Cache)!);
        string root = System.IO.Path.Combine(scratch, "bookworm");
        CommandResult made = await Command.RunAsync(TimeSpan.FromMinutes(5), ["debootstrap", "--variant=minbase", "--include=" + wanted, "bookworm", root]);
        Assert.SkipUnless(made.ExitCode == 0, "debootstrap failed: " + made.Output.TrimEnd().Split('\n')[^1]);
        (await Command.RunAsync(TimeSpan.FromMinutes(1), ["tar", "-c", "-C", root, "--exclude=./var/cache/apt", "--exclude=./var/lib/apt/lists", "-f", Cache + ".new", "."])).EnsureSuccess();
        Directory.Delete(root, recursive: true);
        File.Move(Cache + ".new", Cache, overwrite: true);
        await File.WriteAllTextAsync(stamp, wanted);
    }

    private static async Task ImportAsync(DockerEngine engine, string name, string change, string scratch, string more)
    {
        string tar = System.IO.Path.Combine(scratch, "image.tar");
        (await Command.RunAsync(TimeSpan.FromMinutes(2), ["sh", "-c", $"cp '{Cache}' '{tar}' && tar -r -f '{tar}' -C / {more}"])).EnsureSuccess();
        (await engine.DockerAsync("import", "-c", change, tar, name)).EnsureSuccess();
        File.Delete(tar);
    }

    /// <summary>The folders of the packages that the services' lock files name, as they were restored here; without a leading slash.</summary>
    private static IEnumerable<string> LockedPackages()
    {
        string cache = Environment.GetEnvironmentVariable("NUGET_PACKAGES") ?? System.IO.Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.UserProfile), ".nuget", "packages");
        var found = new SortedSet<string>(StringComparer.Ordinal);
        foreach (string file in Directory.EnumerateFiles(System.IO.Path.Combine(Repository.Root, "services"), "packages.lock.json", SearchOption.AllDirectories))
        {
            using JsonDocument document = JsonDocument.Parse(File.ReadAllText(file));
            foreach (JsonProperty package in document.RootElement.GetProperty("dependencies").EnumerateObject().SelectMany(framework => framework.Value.EnumerateObject()))
            {
                if (package.Value.TryGetProperty("resolved", out JsonElement version))
                    found.Add(string.Create(CultureInfo.InvariantCulture, $"{cache}/{package.Name.ToLowerInvariant()}/{version.GetString()!.ToLowerInvariant()}"));
            }
        }
        Assert.SkipUnless(cache == "/root/.nuget/packages", $"packages are in {cache}; the stand-in image has them where root's are");
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
