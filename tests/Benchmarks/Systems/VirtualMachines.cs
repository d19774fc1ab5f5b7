using VNetMesh.Benchmarks.Running;

namespace VNetMesh.Benchmarks.Systems;

/// <summary>The same VM on each system. QEMU is in the namespace that is the host, and so is passt.</summary>
internal static class VirtualMachines
{
    private const string Device = "virtio-net-pci,netdev=net0";

    /// <summary>`vnet vm run`: a TAP.</summary>
    public static Task<VirtualMachine> ByTapAsync(VNetMeshInstance instance, string name, string image, string console, CancellationToken cancellation) =>
        VirtualMachine.StartAsync(instance.Site.Host, image, console,
            ["env", "VNETMESH_RUN_DIR=" + instance.RunDirectory, VNetMeshInstance.CommandLine, "vm", "run", name, "--network", "vmnet8", "--"], [], cancellation);

    /// <summary>`vnet vm args`: the stream socket.</summary>
    public static async Task<VirtualMachine> BySocketAsync(VNetMeshInstance instance, string name, string image, string console, CancellationToken cancellation)
    {
        string arguments = await instance.VnetAsync(cancellation, "vm", "args", name, "--network", "vmnet8");
        return await VirtualMachine.StartAsync(instance.Site.Host, image, console, [], arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries), cancellation);
    }

    /// <summary>QEMU's own user-mode network (libslirp).</summary>
    public static Task<VirtualMachine> ByUserAsync(Site site, string image, string console, CancellationToken cancellation) =>
        VirtualMachine.StartAsync(site.Host, image, console, [], ["-netdev", "user,id=net0", "-device", Device], cancellation);

    /// <summary>passt, with root's rights kept, as pasta beside it.</summary>
    public static async Task<VirtualMachine> ByPasstAsync(Site site, string image, string folder, Func<IAsyncDisposable, IAsyncDisposable> keep, CancellationToken cancellation)
    {
        string socket = folder + "/passt.sock";
        BackgroundProgram passt = site.Host.Start("passt", "env", "--default-signal=PIPE", "passt", "--foreground", "--stderr", "--quiet", "--ipv4-only", "--runas", "0:0", "--socket", socket, "-t", "none", "-u", "none", "--no-map-gw");
        keep(passt);
        await passt.UntilAsync("it made its socket", () => File.Exists(socket), cancellation);
        return await VirtualMachine.StartAsync(site.Host, image, folder + "/console.sock", [], ["-netdev", "stream,id=net0,server=off,addr.type=unix,addr.path=" + socket, "-device", Device], cancellation);
    }
}
