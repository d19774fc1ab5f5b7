using System.Diagnostics;
using System.Runtime.InteropServices;
using Grpc.Core;
using Grpc.Net.Client;
using VNetMesh.Hosting;
using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.V1;

namespace VNetMesh.Dhcp.Tests.Support;

/// <summary>
/// The real switch and the real dhcp, in a network namespace that has nothing in it, and guests on vmnet8, each a namespace with
/// a TAP that was handed to the switch. Needs root; skips the test without it. Removes all it made.
/// </summary>
internal sealed unsafe partial class Lab : IDisposable
{
    private const string Script = """
        #!/bin/sh
        [ -n "$1" ] && reason=$1
        case $reason in
        BOUND|RENEW|REBIND|REBOOT) ip addr flush dev "$interface"; ip addr add "$new_ip_address/$new_subnet_mask" dev "$interface" ;;
        bound|renew) ip addr flush dev "$interface"; ip addr add "$ip/$mask" dev "$interface" ;;
        PREINIT|deconfig) ip link set "$interface" up; exit 0 ;;
        *) exit 0 ;;
        esac
        export reason
        env > "$0.env.new" && mv "$0.env.new" "$0.env"
        echo "$reason" >> "$0.events"
        """;

    private static int s_number;
    private readonly string _prefix = $"dhcp-{Environment.ProcessId % 100000}-{Interlocked.Increment(ref s_number)}";
    private readonly Dictionary<string, FileDescriptor> _guests = [];
    private readonly List<Process> _started = [];
    private readonly List<string> _log = [];
    private readonly string[] _dhcpArguments;

    public Lab(params string[] dhcpArguments)
    {
        _dhcpArguments = dhcpArguments;
        if (Unistd.geteuid() != 0)
            Assert.Skip("network namespaces need root");
        if (!File.Exists(IfTun.DevicePath))
            Assert.Skip("/dev/net/tun is missing");
        Executable("Switch", "vnetmesh-switch");
        Directory = System.IO.Directory.CreateTempSubdirectory("vnmd").FullName;
        SwitchChannel = UnixChannel.Create(Path.Combine(Directory, "run", "switch.sock"));
        DhcpChannel = UnixChannel.Create(Path.Combine(Directory, "run", "dhcp.sock"));
        try
        {
            Run("ip", $"netns add {Host}");
            SwitchProcess = StartService("Switch", "vnetmesh-switch");
            StartDhcp();
            Wait(15, "the port is up", () => Answer(() => Dhcp.ListPools(new ListPoolsRequest())).Pools.Any(pool => pool.Network == "networks/vmnet8" && pool.LinkUp));
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public string Directory { get; }
    public Process SwitchProcess { get; private set; } = null!;
    public Process DhcpProcess { get; private set; } = null!;
    public DhcpService.DhcpServiceClient Dhcp => new(DhcpChannel);
    public NetworkService.NetworkServiceClient Networks => new(SwitchChannel);

    public AsyncDuplexStreamingCall<AttachRequest, AttachResponse> Attach() => new PortService.PortServiceClient(SwitchChannel).Attach();
    private GrpcChannel SwitchChannel { get; }
    private GrpcChannel DhcpChannel { get; }
    private string Host => _prefix + "h";

    /// <summary>What the services have written.</summary>
    public string Log
    {
        get
        {
            lock (_log)
                return string.Join('\n', _log);
        }
    }

    public Network Network => Answer(() => Networks.GetNetwork(new GetNetworkRequest { Name = "networks/vmnet8" })).Network;

    public Pool Pool => Answer(() => Dhcp.ListPools(new ListPoolsRequest())).Pools.Single(pool => pool.Network == "networks/vmnet8");

    public IReadOnlyList<Lease> Leases => Answer(() => Dhcp.ListLeases(new ListLeasesRequest { Parent = "networks/vmnet8" })).Leases;

    public void StartDhcp() => DhcpProcess = StartService("Dhcp", "vnetmesh-dhcp", _dhcpArguments);

    public void KillDhcp()
    {
        DhcpProcess.Kill();
        DhcpProcess.WaitForExit();
    }

    public void RestartSwitch()
    {
        SwitchProcess.Kill();
        SwitchProcess.WaitForExit();
        SwitchProcess = StartService("Switch", "vnetmesh-switch");
        foreach (string name in _guests.Keys)
            HandOver(name);
    }

    /// <summary>A guest with a TAP eth0 on vmnet8, up and without an address.</summary>
    public LabGuest AddGuest(string name)
    {
        string place = $"{_prefix}{name}";
        Run("ip", $"netns add {place}");
        FileDescriptor? tap = null;
        Exception? failure = null;
        var thread = new Thread(() =>
        {
            try
            {
                Enter(place);
                tap = OpenTap();
            }
            catch (Exception exception)
            {
                failure = exception;
            }
        });
        thread.Start();
        thread.Join();
        _guests[name] = tap ?? throw new InvalidOperationException("the TAP could not be made", failure);
        Run("ip", $"-n {place} link set lo up");
        Run("ip", $"-n {place} link set eth0 up");
        HandOver(name);
        return new LabGuest(this, place);
    }

    public void Dispose()
    {
        foreach (Process process in Enumerable.Reverse(_started))
        {
            if (!process.HasExited)
                process.Kill();
            process.WaitForExit();
            process.Dispose();
        }
        DhcpChannel.Dispose();
        SwitchChannel.Dispose();
        foreach ((string name, FileDescriptor tap) in _guests)
        {
            tap.Dispose();
            Run("ip", $"netns del {_prefix}{name}");
        }
        if (File.Exists("/run/netns/" + Host))
            Run("ip", $"netns del {Host}");
        System.IO.Directory.Delete(Directory, recursive: true);
    }

    public static void Wait(double seconds, string what, Func<bool> condition)
    {
        var watch = Stopwatch.StartNew();
        while (!condition())
        {
            Assert.True(watch.Elapsed.TotalSeconds < seconds, $"not within {seconds} s: {what}");
            Thread.Sleep(20);
        }
    }

    /// <summary>Asks until the service is there.</summary>
    public static T Answer<T>(Func<T> ask)
    {
        for (int i = 0; ; i++)
        {
            try
            {
                return ask();
            }
            catch (RpcException exception) when (exception.StatusCode == StatusCode.Unavailable && i < 400)
            {
                Thread.Sleep(50);
            }
        }
    }

    internal Process Start(string place, params string[] command)
    {
        Process process = Process.Start(new ProcessStartInfo("nsenter", [$"--net=/run/netns/{place}", .. command]) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        process.OutputDataReceived += (_, line) => Keep(line.Data);
        process.ErrorDataReceived += (_, line) => Keep(line.Data);
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        _started.Add(process);
        return process;
    }

    internal string WriteScript()
    {
        string path = Path.Combine(Directory, Path.GetRandomFileName());
        File.WriteAllText(path, Script);
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        return path;
    }

    internal static string Run(string program, string arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        Task<string> error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0 ? output : throw new InvalidOperationException($"{program} {arguments}: {output}{error.Result}");
    }

    private void HandOver(string name)
    {
        RegisterPortResponse registered = Answer(() => new PortService.PortServiceClient(SwitchChannel).RegisterPort(new RegisterPortRequest
        {
            Parent = "networks/vmnet8",
            PortId = name,
            Port = new Port { Transport = PortTransport.Tap, Owner = "test" },
        }));
        HandoffClient.HandOverTap(Path.Combine(Directory, "run", "handoff.sock"), registered.HandoffToken.Span, _guests[name], LinkOffloads.All);
    }

    private Process StartService(string project, string name, params string[] arguments) => Start(Host,
    [
        "env", $"VNETMESH_RUN_DIR={Directory}/run", $"VNETMESH_STATE_DIR={Directory}/state", $"VNETMESH_CONFIG={Directory}/none", "VNETMESH_LOG_LEVEL=Debug",
        Executable(project, name), .. arguments,
    ]);

    private void Keep(string? line)
    {
        lock (_log)
        {
            if (line is not null)
                _log.Add(line);
        }
    }

    private static string Executable(string project, string name)
    {
        var here = new DirectoryInfo(AppContext.BaseDirectory);
        string path = Path.Combine(here.Parent!.Parent!.FullName, project, here.Name, name);
        if (!File.Exists(path))
            Assert.Skip($"{project} is not built in this configuration");
        return path;
    }

    private static void Enter(string place)
    {
        using var handle = new FileDescriptor(Syscall.Check(Fcntl.open($"/run/netns/{place}", Fcntl.O_RDONLY | Fcntl.O_CLOEXEC), "open(netns)"));
        const int CLONE_NEWNET = 0x40000000;
        Syscall.Check(setns(handle.Number, CLONE_NEWNET), "setns");
    }

    private static FileDescriptor OpenTap()
    {
        var tap = new FileDescriptor(Syscall.Check(Fcntl.open(IfTun.DevicePath, Fcntl.O_RDWR | Fcntl.O_CLOEXEC), "open(tun)"));
        var request = new IfTun.ifreq { ifr_flags = IfTun.IFF_TAP | IfTun.IFF_NO_PI | IfTun.IFF_VNET_HDR | IfTun.IFF_MULTI_QUEUE };
        request.SetName("eth0");
        Syscall.Check(IfTun.ioctl(tap.Number, IfTun.TUNSETIFF, &request), "TUNSETIFF");
        int size = 12;
        Syscall.Check(IfTun.ioctl(tap.Number, IfTun.TUNSETVNETHDRSZ, &size), "TUNSETVNETHDRSZ");
        Syscall.Check(IfTun.ioctl(tap.Number, IfTun.TUNSETOFFLOAD, (nuint)(IfTun.TUN_F_CSUM | IfTun.TUN_F_TSO4 | IfTun.TUN_F_TSO6)), "TUNSETOFFLOAD");
        return tap;
    }

    [LibraryImport("libc", SetLastError = true)]
    private static partial int setns(int fd, int type);
}

/// <summary>A guest's namespace.</summary>
internal sealed class LabGuest(Lab lab, string place)
{
    public string Exec(string command) => Lab.Run("nsenter", $"--net=/run/netns/{place} {command}");

    // nsenter changes the network namespace alone: /sys would still show another's devices, so netlink is asked.
    public string Mac => Exec("ip -o link show dev eth0").Split("link/ether ")[1][..17];

    public RealClient Udhcpc(params string[] more)
    {
        string script = lab.WriteScript();
        return new RealClient(script, lab.Start(place, ["busybox", "udhcpc", "-f", "-t", "20", "-T", "1", "-O", "mtu", "-i", "eth0", "-s", script, .. more]));
    }

    public RealClient Dhclient(string configuration, string? leases = null)
    {
        string script = lab.WriteScript();
        leases ??= script + ".leases";
        if (!File.Exists(leases))
            File.WriteAllText(leases, "");
        File.WriteAllText(script + ".conf", configuration);
        return new RealClient(script, lab.Start(place, "dhclient", "-4", "-d", "-v", "-cf", script + ".conf", "-lf", leases, "-pf", script + ".pid", "-sf", script, "eth0")) { LeaseFile = leases };
    }
}

/// <summary>A DHCP client of the system, and what its script was told.</summary>
internal sealed class RealClient(string script, Process process)
{
    public string LeaseFile { get; init; } = "";

    public string[] Events => File.Exists(script + ".events") ? File.ReadAllLines(script + ".events") : [];

    public IReadOnlyDictionary<string, string> Options => File.ReadAllLines(script + ".env")
        .Select(line => line.Split('=', 2)).Where(pair => pair.Length == 2).ToDictionary(pair => pair[0], pair => pair[1]);

    public string Address => Options.TryGetValue("ip", out string? address) ? address : Options["new_ip_address"];

    public void Signal(string name) => Lab.Run("kill", $"-{name} {process.Id}");

    public void Kill()
    {
        process.Kill();
        process.WaitForExit();
    }
}
