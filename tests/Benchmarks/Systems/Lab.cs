using System.Globalization;
using VNetMesh.Benchmarks.Load;
using VNetMesh.Benchmarks.Running;

namespace VNetMesh.Benchmarks.Systems;

/// <summary>
/// Everything that a run makes: namespaces, folders, systems under test. Each system is started when a row first asks for it, and stays
/// until the end, so that rounds of the systems can follow each other without a start between them; while one is measured the others
/// sleep. What cannot be started says the same to every row.
/// </summary>
public sealed class Lab : IAsyncDisposable
{
    private const string NamePrefix = "vnb-";
    private const int OtlpPort = 4318;
    private static readonly string[] Folders = ["/run", "/var/tmp"];
    private readonly string _prefix = NamePrefix + Environment.ProcessId.ToString(CultureInfo.InvariantCulture);
    private readonly Dictionary<string, Task<object>> _started = [];
    private readonly List<IAsyncDisposable> _made = [];
    private readonly CancellationToken _cancellation;
    private readonly string _pasta;
    private int _fresh;

    private Lab(string pasta, CancellationToken cancellation) => (_pasta, _cancellation) = (pasta, cancellation);

    /// <summary>For files of the run.</summary>
    public string Scratch => Directory.CreateDirectory("/var/tmp/" + _prefix + "-scratch").FullName;

    /// <summary>TCP's, in every namespace; empty before the first was made.</summary>
    public string CongestionControl { get; private set; } = "";

    /// <summary>Takes away what dead runs left, and opens a new laboratory.</summary>
    /// <param name="pasta">Program to run as pasta.</param>
    /// <param name="cancellation">Ends whatever is under way.</param>
    public static async Task<Lab> OpenAsync(string pasta, CancellationToken cancellation)
    {
        foreach (string dead in NamesInUse().Select(RunOf).OfType<string>().Distinct().Where(run => !Directory.Exists("/proc/" + run[NamePrefix.Length..])).ToList())
            await RemoveAsync(dead);
        return new Lab(pasta, cancellation);
    }

    public Task<VNetMeshInstance> VNetMeshAsync() => OnceAsync(SystemNames.VNetMesh, async () =>
    {
        VNetMeshInstance instance = await NewInstanceAsync("n");
        await instance.UpAsync(_cancellation);
        return instance;
    });

    /// <summary>One more VNetMesh, not yet up, for a measurement that needs it to itself. The caller takes it down when done.</summary>
    public Task<VNetMeshInstance> NewInstanceAsync() => NewInstanceAsync("f" + (++_fresh).ToString(CultureInfo.InvariantCulture));

    private async Task<VNetMeshInstance> NewInstanceAsync(string id)
    {
        Site site = await SiteAsync(id);
        return Keep(new VNetMeshInstance($"{_prefix}-{id}", site));
    }

    /// <summary>Two guests on a switch, MTU 1500.</summary>
    public Task<SwitchPath> SwitchAsync(string system) => OnceAsync("switch " + system, () => system switch
    {
        SystemNames.VNetMesh => VNetMeshSwitchAsync(),
        SystemNames.Bridge => KernelBridge.StartAsync(SiteAsync("b"), _cancellation),
        SystemNames.Vde => VdeSwitch.StartAsync(SiteAsync("d"), Scratch, _cancellation),
        _ => throw new ArgumentOutOfRangeException(nameof(system), system, "not a switch"),
    });

    /// <summary>A guest behind the system.</summary>
    /// <param name="system">One of <see cref="SystemNames.Nats"/>.</param>
    /// <param name="mtu">Of the guest's device, 1500 or 65520. The bare veth path has the one of the wan.</param>
    public Task<NatPath> NatAsync(string system, int mtu) => OnceAsync($"nat {system} {(system == SystemNames.Veth ? 0 : mtu)}", () => system switch
    {
        SystemNames.VNetMesh => VNetMeshNatAsync(mtu),
        SystemNames.Veth => BareVethAsync(),
        SystemNames.Pasta => Pasta.StartAsync(_pasta, SiteAsync($"p{mtu}"), mtu, Keep, _cancellation),
        SystemNames.Slirp => Slirp.StartAsync(SiteAsync($"s{mtu}"), mtu, Keep, _cancellation),
        _ => throw new ArgumentOutOfRangeException(nameof(system), system, "not a NAT"),
    });

    /// <summary>A guest behind a VNetMesh that exports what it observes, by its defaults, to a receiver on its host that throws it away.</summary>
    public Task<NatPath> TracedNatAsync() => OnceAsync("nat traced", async () =>
    {
        Site site = await SiteAsync("o");
        BackgroundProgram receiver = Keep(BackgroundProgram.Start("the receiver of traces", site.Host.Enter(Worker.Command("swallow", OtlpPort.ToString(CultureInfo.InvariantCulture)))));
        await receiver.UntilAsync("it listens", () => receiver.Output.Contains("ready", StringComparison.Ordinal), _cancellation);
        VNetMeshInstance instance = Keep(new VNetMeshInstance($"{_prefix}-o", site,
            new("OTEL_EXPORTER_OTLP_ENDPOINT", $"http://127.0.0.1:{OtlpPort.ToString(CultureInfo.InvariantCulture)}"), new("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")));
        await instance.UpAsync(_cancellation);
        return new NatPath((await instance.GuestAsync("a", "vmnet8", _cancellation)).Namespace, site, instance.Processes);
    });

    /// <summary>A guest on the LAN of a host, and a station of it or the host itself; for veth, the station and the host in the guest's place.</summary>
    public Task<SwitchPath> BridgedAsync(string system, bool toHost) => OnceAsync($"bridged {system} {toHost}", async () =>
    {
        if (system == SystemNames.Veth)
        {
            Site bare = await OnceAsync("bridged bare", () => SiteAsync("l"));
            return toHost ? new SwitchPath(bare.Wan, bare.Host, Site.HostAddress, []) : new SwitchPath(bare.Host, bare.Wan, Site.LanAddress, []);
        }
        VNetMeshInstance instance = await OnceAsync("bridged instance", async () =>
        {
            VNetMeshInstance made = await NewInstanceAsync("u");
            await made.UpAsync(_cancellation);
            return made;
        });
        NetworkNamespace guest = await OnceAsync("bridged guest", () => instance.BridgedGuestAsync("g", "192.0.2.20/24", _cancellation));
        return new SwitchPath(guest, toHost ? instance.Site.Host : instance.Site.Wan, toHost ? Site.HostAddress : Site.LanAddress, instance.Processes);
    });

    /// <summary>A VM behind the system.</summary>
    /// <param name="system">One of <see cref="SystemNames.Vms"/>.</param>
    public Task<VmPath> VmAsync(string system) => OnceAsync("vm " + system, async () =>
    {
        string image = await OnceAsync("vm image", () => VirtualMachine.MakeImageAsync(Scratch + "/image", _cancellation));
        string folder = Directory.CreateDirectory($"{Scratch}/vm-{system}").FullName, console = folder + "/console.sock";
        VNetMeshInstance? instance = system is SystemNames.VNetMesh or SystemNames.VNetMeshSocket ? await VNetMeshAsync() : null;
        Site site = instance?.Site ?? await SiteAsync(system == SystemNames.Passt ? "q" : "e");
        VirtualMachine machine = Keep(system switch
        {
            SystemNames.VNetMesh => await VirtualMachines.ByTapAsync(instance!, _prefix + "-t", image, console, _cancellation),
            SystemNames.VNetMeshSocket => await VirtualMachines.BySocketAsync(instance!, _prefix + "-s", image, console, _cancellation),
            SystemNames.QemuUser => await VirtualMachines.ByUserAsync(site, image, console, _cancellation),
            SystemNames.Passt => await VirtualMachines.ByPasstAsync(site, image, folder, Keep, _cancellation),
            _ => throw new ArgumentOutOfRangeException(nameof(system), system, "no VM of it"),
        });
        await machine.RunAsync($"echo {CongestionControl} > /proc/sys/net/ipv4/tcp_congestion_control", TimeSpan.FromSeconds(5), _cancellation);
        return new VmPath(machine, site);
    });

    public async ValueTask DisposeAsync()
    {
        // What is being started now ends by the cancellation, and must have ended before it is taken away.
        await Task.WhenAny(Task.WhenAll(_started.Values), Task.Delay(TimeSpan.FromSeconds(20)));
        foreach (IAsyncDisposable made in Enumerable.Reverse(_made))
        {
            try
            {
                await made.DisposeAsync();
            }
            catch (Exception exception) when (exception is BenchmarkException or InvalidOperationException)
            {
                await Console.Error.WriteLineAsync("at the end: " + exception.Message);
            }
        }
        await RemoveAsync(_prefix);
    }

    private async Task<SwitchPath> VNetMeshSwitchAsync()
    {
        VNetMeshInstance instance = await VNetMeshAsync();
        VNetMeshGuest left = await instance.GuestAsync("a", "vmnet8", _cancellation), right = await instance.GuestAsync("b", "vmnet8", _cancellation);
        return new SwitchPath(left.Namespace, right.Namespace, right.Address, instance.Processes);
    }

    private async Task<NatPath> VNetMeshNatAsync(int mtu)
    {
        VNetMeshInstance instance = await VNetMeshAsync();
        if (mtu != 1500)
            await instance.CreateJumboNetworkAsync("jumbo", mtu, _cancellation);
        VNetMeshGuest guest = mtu == 1500 ? await instance.GuestAsync("a", "vmnet8", _cancellation) : await instance.GuestAsync("j", "jumbo", _cancellation);
        return new NatPath(guest.Namespace, instance.Site, instance.Processes);
    }

    /// <summary>The host itself: what a proxy on it could reach if it cost nothing.</summary>
    private async Task<NatPath> BareVethAsync()
    {
        Site site = await SiteAsync("v");
        return new NatPath(site.Host, site, []);
    }

    private async Task<Site> SiteAsync(string id)
    {
        Site site = Keep(await Site.CreateAsync($"{_prefix}-{id}", Scratch + "/" + id, _cancellation));
        CongestionControl = site.CongestionControl;
        return site;
    }

    private T Keep<T>(T made) where T : IAsyncDisposable
    {
        _made.Add(made);
        return made;
    }

    private async Task<T> OnceAsync<T>(string key, Func<Task<T>> start) where T : class
    {
        if (!_started.TryGetValue(key, out Task<object>? started))
            _started[key] = started = StartAsync();
        return (T)await started;

        async Task<object> StartAsync() => await start();
    }

    /// <summary>"vnb-PID" of a name that some run gave.</summary>
    private static string? RunOf(string name)
    {
        string[] parts = name.Split('-');
        return parts.Length >= 2 && parts[0] + "-" == NamePrefix && int.TryParse(parts[1], CultureInfo.InvariantCulture, out int process) && process > 1 ? parts[0] + "-" + parts[1] : null;
    }

    private static IEnumerable<string> NamesInUse() =>
        NetworkNamespace.List().Concat(Folders.SelectMany(folder => Directory.GetDirectories(folder, NamePrefix + "*")).Select(path => Path.GetFileName(path)));

    private static async Task RemoveAsync(string run)
    {
        foreach (string name in NetworkNamespace.List().Where(name => RunOf(name) == run))
            await NetworkNamespace.DestroyAsync(name);
        foreach (string path in Folders.SelectMany(folder => Directory.GetDirectories(folder, NamePrefix + "*")).Where(path => RunOf(Path.GetFileName(path)) == run))
            Directory.Delete(path, recursive: true);
    }
}
