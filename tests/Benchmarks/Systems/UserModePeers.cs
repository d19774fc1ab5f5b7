using System.Globalization;
using VNetMesh.Benchmarks.Running;

namespace VNetMesh.Benchmarks.Systems;

/// <summary>
/// pasta, in the namespace that is the host, its TAP in the guest's. Without port forwards, without a way to the host's loopback, and with root's rights
/// kept: as nobody it may not enter a namespace that root made.
/// </summary>
internal static class Pasta
{
    public static async Task<NatPath> StartAsync(string program, Task<Site> siteTask, int mtu, Func<IAsyncDisposable, IAsyncDisposable> keep, CancellationToken cancellation)
    {
        Site site = await siteTask;
        NetworkNamespace guest = await site.AddNamespaceAsync("g", cancellation);
        // It refuses to start where SIGPIPE is ignored, as .NET leaves it to its children.
        BackgroundProgram pasta = site.Host.Start("pasta", "env", "--default-signal=PIPE", program, "--config-net", "--foreground", "--stderr", "--quiet", "--ipv4-only", "--runas", "0:0", "--netns", guest.Path,
            "--mtu", mtu.ToString(CultureInfo.InvariantCulture), "-t", "none", "-u", "none", "-T", "none", "-U", "none", "--no-map-gw");
        keep(pasta);
        await GuestDevice.WaitAsync(pasta, guest, cancellation);
        return new NatPath(guest, site, ProcessTimes.Tree(pasta.ProcessId));
    }
}

/// <summary>slirp4netns, in the namespace that is the host, its TAP in the guest's.</summary>
internal static class Slirp
{
    public static async Task<NatPath> StartAsync(Task<Site> siteTask, int mtu, Func<IAsyncDisposable, IAsyncDisposable> keep, CancellationToken cancellation)
    {
        Site site = await siteTask;
        NetworkNamespace guest = await site.AddNamespaceAsync("g", cancellation);
        BackgroundProgram slirp = site.Host.Start("slirp4netns", "slirp4netns", "--configure", "--netns-type=path", "--disable-dns",
            "--mtu=" + mtu.ToString(CultureInfo.InvariantCulture), guest.Path, "tap0");
        keep(slirp);
        await GuestDevice.WaitAsync(slirp, guest, cancellation);
        return new NatPath(guest, site, ProcessTimes.Tree(slirp.ProcessId));
    }
}

internal static class GuestDevice
{
    /// <summary>Waits until the program has given the guest a default route.</summary>
    public static async Task WaitAsync(BackgroundProgram program, NetworkNamespace guest, CancellationToken cancellation)
    {
        for (int wait = 0; wait < 100 && !program.HasExited; wait++)
        {
            if ((await guest.RunAsync(cancellation, "ip", "-4", "route", "show", "default")).Trim().Length > 0)
                return;
            await Task.Delay(50, cancellation);
        }
        throw new BenchmarkException($"the guest got no route: {string.Join(" / ", program.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).TakeLast(4))}");
    }
}
