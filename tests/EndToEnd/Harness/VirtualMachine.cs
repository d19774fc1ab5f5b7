using System.Text.RegularExpressions;

namespace VNetMesh.EndToEnd.Tests.Harness;

/// <summary>
/// Debian's kernel and an initramfs made of this machine's busybox, in a folder of the test: nothing is installed. The VM takes an
/// address by DHCP, resolves a name, fetches a file, says on its console what came of it, and stays.
/// </summary>
public sealed partial class VirtualMachineImage
{
    public const int FileLength = 2_000_000;

    private const string Init = """
        #!/bin/sh
        mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev 2>/dev/null
        for module in $(cat /modules); do insmod /lib/modules/$module.ko || echo "VM: $module failed"; done
        ip link set lo up; ip link set eth0 up
        udhcpc -i eth0 -n -q -t 10 -T 1 -s /dhcp.sh >/dev/null 2>&1 || echo "VM: no lease"
        echo "VM: address $(ip -4 -o addr show dev eth0 | sed 's/.*inet \([0-9.]*\).*/\1/')"
        nslookup web.wan.test 2>/dev/null | grep -q 192.0.2.1 && echo "VM: resolved"
        echo "VM: hash $(wget -q -O - http://web.wan.test/bytes/2000000 | sha256sum)"
        echo "VM: done"
        while :; do sleep 100; done
        """;

    private const string Dhcp = """
        #!/bin/sh
        [ "$1" = bound ] || exit 0
        ip addr add "$ip/$mask" dev "$interface"
        ip route add default via "$router"
        for server in $dns; do echo "nameserver $server"; done > /etc/resolv.conf
        """;

    private VirtualMachineImage(string kernel, string initramfs) => (Kernel, Initramfs) = (kernel, initramfs);

    public string Kernel { get; }

    public string Initramfs { get; }

    /// <summary>Makes it in a folder; skips the test where Debian's package cannot be had.</summary>
    public static async Task<VirtualMachineImage> MakeAsync(string folder)
    {
        Require.Programs("qemu-system-x86_64", "busybox", "apt-get", "dpkg-deb");
        string root = Path.Combine(folder, "root");
        CommandResult unpacked = await Command.RunAsync(TimeSpan.FromSeconds(90), ["sh", "-ec", """
            cd "$1"
            package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\).*/\1/p' | head -n 1)
            [ -n "$package" ]
            apt-get download -q "$package" >/dev/null 2>&1
            dpkg-deb -x linux-image-*.deb kernel
            rm linux-image-*.deb
            """, "sh", folder]);
        if (unpacked.ExitCode != 0)
            Assert.Skip($"needs Debian's package of a kernel, which cannot be had here: {unpacked.Error.Trim()}");
        (await Command.RunAsync(TimeSpan.FromSeconds(30), ["sh", "-ec", """
            cd "$1"
            mkdir -p bin sbin lib/modules etc proc sys dev tmp usr/bin usr/share
            busybox=$(command -v busybox)
            cp "$busybox" bin/busybox
            for applet in $(busybox --list); do [ "$applet" = busybox ] || ln -s busybox "bin/$applet"; done
            for library in $(ldd "$busybox" 2>/dev/null | grep -o '/[^ ]*'); do mkdir -p ".$(dirname "$library")"; cp -L "$library" ".$library"; done
            # In the order in which they need one another.
            for module in virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover virtio_net; do
                file=$(find ../kernel/lib/modules -name "$module.ko*" | head -n 1)
                [ -n "$file" ] || continue
                case $file in *.xz) xz -dc "$file" > "lib/modules/$module.ko" ;; *) cp "$file" lib/modules/ ;; esac
                echo "$module" >> modules
            done
            """, "sh", Directory.CreateDirectory(root).FullName])).EnsureSuccess();
        foreach ((string name, string text) in new[] { ("init", Init), ("dhcp.sh", Dhcp) })
        {
            await File.WriteAllTextAsync(Path.Combine(root, name), text + "\n");
            File.SetUnixFileMode(Path.Combine(root, name), UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        }
        string initramfs = Path.Combine(folder, "initramfs");
        (await Command.RunAsync("sh", "-ec", $"cd '{root}'; find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 > '{initramfs}'")).EnsureSuccess();
        return new VirtualMachineImage(Directory.GetFiles(Path.Combine(folder, "kernel", "boot"), "vmlinuz-*").Single(), initramfs);
    }

    /// <summary>Boots it with what `vnet vm args` said; TCG, for a /dev/kvm that opens may hang its guest all the same.</summary>
    public VirtualMachine Boot(NetworkNamespace host, string arguments) => new(host.Start(
        ["qemu-system-x86_64", "-accel", "tcg", "-m", "192", "-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
         "-kernel", Kernel, "-initrd", Initramfs, "-append", "console=ttyS0 quiet panic=-1", .. arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)]));

    [GeneratedRegex(@"VM: address (\d+\.\d+\.\d+\.\d+)")]
    internal static partial Regex AddressPattern();
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
