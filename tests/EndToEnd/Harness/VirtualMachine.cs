using System.Diagnostics;
using System.Text.RegularExpressions;

namespace VNetMesh.EndToEnd.Tests.Harness;

/// <summary>
/// Debian's kernel and an initramfs made of this machine's busybox (tests/Vm), in a folder of the test: nothing is installed. The VM
/// takes an address by DHCP, resolves a name, fetches a file, says on its console what came of it, and stays.
/// </summary>
public sealed partial class VirtualMachineImage
{
    public const int FileLength = 2_000_000;

    private static readonly SemaphoreSlim Probing = new(1);
    private static string? _accelerator;

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
        var image = new VirtualMachineImage(folder);
        await Probing.WaitAsync(TestContext.Current.CancellationToken);
        try
        {
            _accelerator ??= await image.SpeaksByKvmAsync() ? "kvm" : "tcg";
        }
        finally
        {
            Probing.Release();
        }
        return image;
    }

    /// <summary>Boots it with QEMU's arguments for its network, by KVM where it works and TCG otherwise.</summary>
    /// <param name="before">What QEMU is run by, e.g. `vnet vm run … --`.</param>
    public VirtualMachine Boot(NetworkNamespace host, string arguments, params string[] before) => new(host.Start(
        [.. before, .. Qemu(_accelerator!), .. arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)]));

    /// <summary>A /dev/kvm that opens may hang its guest all the same: it is the guest that must say something, and soon.</summary>
    private async Task<bool> SpeaksByKvmAsync()
    {
        if (!File.Exists("/dev/kvm"))
            return false;
        await using BackgroundCommand probe = BackgroundCommand.Start(Qemu("kvm"));
        for (var waited = Stopwatch.StartNew(); waited.Elapsed < TimeSpan.FromSeconds(6) && !probe.HasExited; await Task.Delay(100, TestContext.Current.CancellationToken))
        {
            if (probe.Output.Contains("VM: no lease", StringComparison.Ordinal))
                return true;
        }
        return false;
    }

    private string[] Qemu(string accelerator) =>
        ["qemu-system-x86_64", "-accel", accelerator, "-m", "192", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
         "-kernel", Kernel, "-initrd", Initramfs, "-append", "console=ttyS0 quiet panic=-1"];

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
