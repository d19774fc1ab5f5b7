using System.Diagnostics;
using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Switch.Tests.Support;

/// <summary>A TAP device as the agent makes them.</summary>
internal static unsafe class Tap
{
    public static bool Available => Unistd.geteuid() == 0 && File.Exists(IfTun.DevicePath);

    public static FileDescriptor Create(string name, bool offloads = true, short flags = IfTun.IFF_TAP | IfTun.IFF_NO_PI | IfTun.IFF_VNET_HDR | IfTun.IFF_MULTI_QUEUE, int headerSize = VirtioNetHeader.Length)
    {
        var descriptor = new FileDescriptor(Syscall.Check(Fcntl.open(IfTun.DevicePath, Fcntl.O_RDWR | Fcntl.O_CLOEXEC), "open(/dev/net/tun)"));
        IfTun.ifreq request = default;
        request.SetName(name);
        request.ifr_flags = flags;
        Syscall.Check(IfTun.ioctl(descriptor.Number, IfTun.TUNSETIFF, &request), "TUNSETIFF");
        if ((flags & IfTun.IFF_VNET_HDR) != 0)
            Syscall.Check(IfTun.ioctl(descriptor.Number, IfTun.TUNSETVNETHDRSZ, &headerSize), "TUNSETVNETHDRSZ");
        if (offloads)
            Syscall.Check(IfTun.ioctl(descriptor.Number, IfTun.TUNSETOFFLOAD, (nuint)(IfTun.TUN_F_CSUM | IfTun.TUN_F_TSO4 | IfTun.TUN_F_TSO6)), "TUNSETOFFLOAD");
        return descriptor;
    }
}

/// <summary>Commands of the system, and network namespaces that are removed with the object.</summary>
internal sealed class Namespace : IDisposable
{
    public Namespace(string name)
    {
        Name = name;
        if (Directory.Exists("/run/netns") && File.Exists("/run/netns/" + name))
            Run("ip", "netns", "del", name);
        Run("ip", "netns", "add", name);
    }

    public string Name { get; }

    /// <summary>Moves a device here as eth0, with an address.</summary>
    public void Adopt(string device, string address, string mac)
    {
        Run("ip", "link", "set", device, "netns", Name);
        Exec("ip", "link", "set", device, "name", "eth0", "address", mac);
        Exec("ip", "addr", "add", address, "dev", "eth0");
        Exec("sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1");
        Exec("ip", "link", "set", "eth0", "up");
    }

    public string Exec(params string[] command) => Run("ip", ["netns", "exec", Name, .. command]);

    public Process Start(params string[] command) => Process.Start(new ProcessStartInfo("ip", ["netns", "exec", Name, .. command]) { RedirectStandardOutput = true, RedirectStandardError = true })!;

    public void Dispose() => Run("ip", "netns", "del", Name);

    public static string Run(string command, params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo(command, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        if (process.ExitCode != 0)
            throw new InvalidOperationException($"{command} {string.Join(' ', arguments)}: exit {process.ExitCode}\n{output}{errors.Result}");
        return output;
    }
}

internal static class Handing
{
    /// <summary>Registers a TAP port and hands the descriptor over, as the agent does.</summary>
    public static void HandOver(SwitchProcess process, string network, string id, FileDescriptor tap, V1.PortRole role = V1.PortRole.Guest, LinkOffloads offloads = LinkOffloads.All)
    {
        V1.RegisterPortResponse response = process.Ports.RegisterPort(new V1.RegisterPortRequest
        {
            Parent = network,
            PortId = id,
            Port = new V1.Port { Transport = V1.PortTransport.Tap, Role = role, Owner = "agent" },
        });
        HandoffClient.HandOverTap(process.Paths.HandoffSocket, response.HandoffToken.Span, tap, offloads);
    }
}
