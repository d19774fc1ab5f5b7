using System.Globalization;
using VNetMesh.Benchmarks.Running;

namespace VNetMesh.Benchmarks.Systems;

/// <summary>
/// vde_switch with TAPs of its own (<c>-tap</c>): one process between the guests, where vde_plug2tap would put three. The TAPs are made in
/// the host's namespace and moved to the guests.
/// </summary>
internal static class VdeSwitch
{
    public static async Task<SwitchPath> StartAsync(Task<Site> siteTask, string folder, CancellationToken cancellation)
    {
        Site site = await siteTask;
        NetworkNamespace left = await site.AddNamespaceAsync("a", cancellation), right = await site.AddNamespaceAsync("b", cancellation);
        string pidFile = Path.Combine(folder, "vde.pid");
        // In the foreground it ends with its standard input; as a daemon it is known by its file, and ends with the host's namespace.
        await site.Host.RunAsync(cancellation, "vde_switch", "-d", "-p", pidFile, "-s", Path.Combine(folder, "vde"), "-M", Path.Combine(folder, "vde.mgmt"), "-tap", "vleft", "-tap", "vright");
        for (int wait = 0; !File.Exists(pidFile) && wait < 100; wait++)
            await Task.Delay(20, cancellation);
        int process = int.Parse(await File.ReadAllTextAsync(pidFile, cancellation), CultureInfo.InvariantCulture);
        await Shell.RunAsync(cancellation, "sh", "-c", $"""
            set -e
            ip -n {site.Host.Name} link set vleft netns {left.Name}
            ip -n {site.Host.Name} link set vright netns {right.Name}
            """);
        return await AddressAsync(left, right, "vleft", "vright", [process], cancellation);
    }

    /// <summary>Gives both guests an address.</summary>
    internal static async Task<SwitchPath> AddressAsync(NetworkNamespace left, NetworkNamespace right, string leftDevice, string rightDevice, IReadOnlyList<int> processes, CancellationToken cancellation)
    {
        await Shell.RunAsync(cancellation, "sh", "-c", $"""
            set -e
            ip -n {left.Name} addr add 10.99.0.1/24 dev {leftDevice}
            ip -n {right.Name} addr add 10.99.0.2/24 dev {rightDevice}
            ip -n {left.Name} link set {leftDevice} up
            ip -n {right.Name} link set {rightDevice} up
            """);
        return new SwitchPath(left, right, "10.99.0.2", processes);
    }
}
