using System.Diagnostics;
using System.Runtime.InteropServices;
using VNetMesh.Links;
using VNetMesh.Native;

namespace VNetMesh.Nat.Tests.Support;

/// <summary>
/// Network namespaces that stand for a guest, the host and a wide area network: guest —TAP— nat's loop, whose thread lives in
/// the host's namespace —veth— wan (192.0.2.1 host, 192.0.2.2 wan). Needs root; skips the test without it.
/// </summary>
internal sealed unsafe partial class NamespaceLab : IDisposable
{
    public const string WanAddress = "192.0.2.2";
    public const string HostAddress = "192.0.2.1";

    private static int s_number;
    private readonly string _prefix;
    private readonly List<Process> _started = [];

    public NamespaceLab()
    {
        if (Unistd.geteuid() != 0)
            Assert.Skip("network namespaces need root");
        if (!File.Exists("/dev/net/tun"))
            Assert.Skip("/dev/net/tun is missing");
        _prefix = $"nat{Environment.ProcessId % 100000}x{Interlocked.Increment(ref s_number)}";
        try
        {
            Run("ip", $"netns add {Host}");
            Run("ip", $"netns add {Wan}");
            Run("ip", $"-n {Host} link set lo up");
            Run("ip", $"-n {Wan} link set lo up");
            Run("ip", $"-n {Host} link add wan0 type veth peer name eth0 netns {Wan}");
            Run("ip", $"-n {Host} addr add {HostAddress}/24 dev wan0");
            Run("ip", $"-n {Wan} addr add {WanAddress}/24 dev eth0");
            Run("ip", $"-n {Host} link set wan0 up");
            Run("ip", $"-n {Wan} link set eth0 up");
            Run("ip", $"-n {Host} route add default via {WanAddress}");
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public string Host => _prefix + "h";
    public string Wan => _prefix + "w";
    public string Guest(int number = 1) => $"{_prefix}g{number}";

    /// <summary>Makes a guest's namespace with a TAP eth0 in it, addressed and up.</summary>
    public TapLink AddGuest(int number, string cidr, string gateway) => new(AddGuestTap(number, cidr, gateway), LinkOffloads.All);

    /// <summary>As <see cref="AddGuest"/>, and gives the TAP's descriptor.</summary>
    public FileDescriptor AddGuestTap(int number, string cidr, string gateway)
    {
        string name = Guest(number);
        Run("ip", $"netns add {name}");
        FileDescriptor? tap = null;
        Exception? failure = null;
        var thread = new Thread(() =>
        {
            try
            {
                Enter(name);
                tap = OpenTap();
            }
            catch (Exception exception)
            {
                failure = exception;
            }
        });
        thread.Start();
        thread.Join();
        if (failure is not null)
            throw new InvalidOperationException("the TAP could not be made", failure);
        Run("ip", $"-n {name} link set lo up");
        Run("ip", $"-n {name} addr add {cidr} dev eth0");
        Run("ip", $"-n {name} link set eth0 up");
        Run("ip", $"-n {name} route add default via {gateway}");
        return tap!;
    }

    /// <summary>Moves the calling thread into a namespace, for good.</summary>
    public static void Enter(string name)
    {
        using var handle = new FileDescriptor(Syscall.Check(Fcntl.open($"/run/netns/{name}", Fcntl.O_RDONLY | Fcntl.O_CLOEXEC), "open(netns)"));
        const int CLONE_NEWNET = 0x40000000;
        Syscall.Check(setns(handle.Number, CLONE_NEWNET), "setns");
    }

    /// <summary>Runs a command in a namespace to its end.</summary>
    public static (int Code, string Output) In(string name, string command, int seconds = 20)
    {
        using Process process = StartIn(name, command);
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        Task<string> error = process.StandardError.ReadToEndAsync();
        if (!process.WaitForExit(seconds * 1000))
        {
            process.Kill();
            process.WaitForExit();
            return (-1, output.Result + error.Result);
        }
        return (process.ExitCode, output.Result + error.Result);
    }

    /// <summary>Starts a command in a namespace; it is ended with the lab.</summary>
    public Process Start(string name, string command)
    {
        Process process = StartIn(name, command);
        // Read and forgotten, so that it never blocks on a full pipe.
        process.OutputDataReceived += static (_, _) => { };
        process.ErrorDataReceived += static (_, _) => { };
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        _started.Add(process);
        return process;
    }

    /// <summary>Waits until something listens on a TCP port of a namespace.</summary>
    public static void WaitForListener(string name, int port) =>
        Assert.True(TestNat.Within(10, () => In(name, $"ss -Htln sport = :{port}").Output.Length > 0), $"nothing listens on {port}");

    public void Dispose()
    {
        foreach (Process process in _started)
        {
            if (!process.HasExited)
                process.Kill();
            process.WaitForExit();
            process.Dispose();
        }
        foreach (string name in new[] { Host, Wan, Guest(1), Guest(2) })
        {
            if (File.Exists($"/run/netns/{name}"))
                Run("ip", $"netns del {name}");
        }
    }

    private static Process StartIn(string name, string command)
    {
        var start = new ProcessStartInfo("nsenter") { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (string word in new[] { $"--net=/run/netns/{name}", "sh", "-c", "exec " + command })
            start.ArgumentList.Add(word);
        return Process.Start(start)!;
    }

    private static void Run(string program, string arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardError = true };
        using Process process = Process.Start(start)!;
        string error = process.StandardError.ReadToEnd();
        process.WaitForExit();
        if (process.ExitCode != 0)
            throw new InvalidOperationException($"{program} {arguments}: {error}");
    }

    private static FileDescriptor OpenTap()
    {
        var tap = new FileDescriptor(Syscall.Check(Fcntl.open(IfTun.DevicePath, Fcntl.O_RDWR | Fcntl.O_CLOEXEC), "open(tun)"));
        var request = new IfTun.ifreq { ifr_flags = IfTun.IFF_TAP | IfTun.IFF_NO_PI | IfTun.IFF_VNET_HDR };
        request.SetName("eth0");
        Syscall.Check(IfTun.ioctl(tap.Number, IfTun.TUNSETIFF, &request), "TUNSETIFF");
        int size = 12;
        Syscall.Check(IfTun.ioctl(tap.Number, IfTun.TUNSETVNETHDRSZ, &size), "TUNSETVNETHDRSZ");
        Syscall.Check(IfTun.ioctl(tap.Number, IfTun.TUNSETOFFLOAD, (nuint)(IfTun.TUN_F_CSUM | IfTun.TUN_F_TSO4 | IfTun.TUN_F_TSO6)), "TUNSETOFFLOAD");
        Fcntl.SetNonBlocking(tap.Number);
        return tap;
    }

    [LibraryImport("libc", SetLastError = true)]
    private static partial int setns(int fd, int type);
}
