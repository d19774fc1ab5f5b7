using System.Text.RegularExpressions;

namespace VNetMesh.EndToEnd.Tests.Harness;

/// <summary>
/// Debian's kernel and an initramfs made of this machine's busybox (tests/Vm), in a folder of the test: nothing is installed. The VM
/// takes an address by DHCP, resolves a name, fetches a file, says on its console what came of it, and stays.
/// </summary>
public sealed partial class VirtualMachineImage
{
    public const int FileLength = 2_000_000;

    private VirtualMachineImage(string folder) => (Kernel, Initramfs) = (Path.Combine(folder, "vmlinuz"), Path.Combine(folder, "initramfs"));

    public string Kernel { get; }

    public string Initramfs { get; }

    /// <summary>Makes it in a folder; skips the test where Debian's package cannot be had.</summary>
    public static async Task<VirtualMachineImage> MakeAsync(string folder)
    {
        Require.Programs("qemu-system-x86_64", "busybox", "apt-get", "dpkg-deb");
        string scripts = ScriptFolder();
        CommandResult made = await Command.RunAsync(TimeSpan.FromSeconds(90), [Path.Combine(scripts, "make-image.sh"), folder, Path.Combine(scripts, "task.sh")]);
        if (made.ExitCode != 0)
            Assert.Skip($"needs Debian's package of a kernel, which cannot be had here: {made.Error.Trim()}");
        return new VirtualMachineImage(folder);
    }

    /// <summary>Boots it with QEMU's arguments for its network, by TCG: a /dev/kvm that opens may hang its guest all the same.</summary>
    /// <param name="before">What QEMU is run by, e.g. `vnet vm run … --`.</param>
    public VirtualMachine Boot(NetworkNamespace host, string arguments, params string[] before) => new(host.Start(
        [.. before, "qemu-system-x86_64", "-accel", "tcg", "-m", "192", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
         "-kernel", Kernel, "-initrd", Initramfs, "-append", "console=ttyS0 quiet panic=-1", .. arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)]));

    [GeneratedRegex(@"VM: address (\d+\.\d+\.\d+\.\d+)")]
    internal static partial Regex AddressPattern();

    private static string ScriptFolder()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "VNetMesh.sln")))
            folder = Path.GetDirectoryName(folder);
        return Path.Combine(folder ?? throw new InvalidOperationException("VNetMesh.sln is in no folder above the tests"), "tests", "Vm");
    }
}

/// <summary>A VM that runs; ended when disposed.</summary>
public sealed class VirtualMachine(BackgroundCommand qemu) : IAsyncDisposable
{
    public string Console => qemu.Output;

    public bool HasExited => qemu.HasExited;

    /// <summary>Waits until it has done what it does by itself.</summary>
    /// <returns>Its address.</returns>
    public async Task<string> UntilDoneAsync(TimeSpan limit)
    {
        await Wait.UntilAsync(limit, "the VM is done", () =>
            qemu.HasExited ? throw new InvalidOperationException("QEMU ended: " + Console) : Console.Contains("VM: done", StringComparison.Ordinal) ? true : throw new InvalidOperationException(Console));
        Match match = VirtualMachineImage.AddressPattern().Match(Console);
        Assert.True(match.Success, "the VM got no address\n" + Console);
        return match.Groups[1].Value;
    }

    public ValueTask DisposeAsync() => qemu.DisposeAsync();
}
