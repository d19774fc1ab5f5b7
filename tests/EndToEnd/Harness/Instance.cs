using System.Globalization;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Grpc.Health.V1;
using Grpc.Net.Client;

namespace VNetMesh.EndToEnd.Tests.Harness;

/// <summary>How an instance is started.</summary>
public sealed record InstanceOptions
{
    /// <summary>More environment for <c>vnet up</c>, and so for the services.</summary>
    public IReadOnlyDictionary<string, string> Environment { get; init; } = new Dictionary<string, string>();

    /// <summary>Commands run in the host's namespace before <c>vnet up</c>.</summary>
    public IReadOnlyList<string[]> HostCommands { get; init; } = [];

    /// <summary>Whether the host has its wan; without it the host has no device but lo.</summary>
    public bool WithWan { get; init; } = true;

    /// <summary>Whether StartAsync runs <c>vnet up</c>.</summary>
    public bool Up { get; init; } = true;

    /// <summary>Enter the host's namespace by nsenter, which keeps the file systems (sysfs then shows another namespace's devices); else by ip netns exec.</summary>
    public bool ByNsenter { get; init; } = true;
}

/// <summary>
/// One whole VNetMesh on its own: a "host" namespace in which the services run, a "wan" namespace that a veth joins to it, and
/// run and state directories of its own.
/// <code>
///   guests ── vmnet8 / vmnet1 ── [host 192.0.2.10] ──veth── [wan 192.0.2.1: HTTP, echo, DNS; .66 drops; .99 is nobody]
/// </code>
/// </summary>
public sealed class Instance : IAsyncDisposable
{
    /// <summary>Begins the name of everything that the suite makes; the process id follows, so that a later run knows what is left over.</summary>
    public const string NamePrefix = "vne-";

    public const string WanAddress = "192.0.2.1";
    public const string HostWanAddress = "192.0.2.10";

    /// <summary>Takes every packet and says nothing.</summary>
    public const string DroppingAddress = "192.0.2.66";

    /// <summary>Nobody has this address: nothing answers ARP for it.</summary>
    public const string DeadAddress = "192.0.2.99";

    /// <summary>Behind the wan, which answers that there is no way (ICMP host unreachable).</summary>
    public const string UnreachableAddress = "198.51.100.1";

    public static readonly string[] Services = ["switch", "dhcp", "nat", "agent"];

    private static int _count;
    private readonly InstanceOptions _options;
    private readonly Dictionary<string, string> _environment;
    private readonly Dictionary<string, GrpcChannel> _channels = [];
    private BackgroundCommand? _dns;

    private Instance(InstanceOptions options)
    {
        _options = options;
        Prefix = $"{NamePrefix}{Environment.ProcessId.ToString(CultureInfo.InvariantCulture)}-{Interlocked.Increment(ref _count).ToString(CultureInfo.InvariantCulture)}";
        Host = new NetworkNamespace(Prefix + "-host");
        Wan = new NetworkNamespace(Prefix + "-wan");
        RunDirectory = "/run/" + Prefix;
        StateDirectory = "/var/tmp/" + Prefix;
        _environment = new Dictionary<string, string>(options.Environment)
        {
            ["VNETMESH_RUN_DIR"] = RunDirectory,
            ["VNETMESH_STATE_DIR"] = StateDirectory,
            ["VNETMESH_CONFIG"] = StateDirectory + ".yaml",
            ["VNETMESH_RESOLV_CONF"] = ResolvConf,
        };
    }

    public string Prefix { get; }
    public NetworkNamespace Host { get; }
    public NetworkNamespace Wan { get; }
    public string RunDirectory { get; }
    public string StateDirectory { get; }

    /// <summary>A folder for files of the tests.</summary>
    public string ScratchDirectory => Directory.CreateDirectory("/var/tmp/" + Prefix + "-scratch").FullName;

    public WanServers Servers { get; private set; } = null!;

    private string ResolvConf => $"/etc/netns/{Host.Name}/resolv.conf";

    /// <summary>Where the build put the executables: beside the tests' own, with the same configuration.</summary>
    public static string CommandLine
    {
        get
        {
            var own = new DirectoryInfo(AppContext.BaseDirectory);
            return Path.GetFullPath(Path.Combine(own.FullName, "..", "..", "Cli", own.Name, "vnet"));
        }
    }

    public static async Task<Instance> StartAsync(InstanceOptions? options = null)
    {
        Require.Root();
        Require.Programs("ip", "nft", "curl", "dnsmasq", "nsenter");
        await Leftovers.RemoveAsync();
        var instance = new Instance(options ?? new InstanceOptions());
        try
        {
            await instance.BuildAsync();
            if (instance._options.Up)
                (await instance.VnetAsync("up")).EnsureSuccess();
            return instance;
        }
        catch (Exception exception)
        {
            string logs = instance.Logs();
            await instance.DisposeAsync();
            throw new InvalidOperationException($"the instance did not start: {exception.Message}\n{logs}", exception);
        }
    }

    /// <summary>Runs <c>vnet</c> in the host's namespace.</summary>
    public Task<CommandResult> VnetAsync(params string[] arguments) => VnetAsync(TimeSpan.FromSeconds(60), arguments);

    public Task<CommandResult> VnetAsync(TimeSpan limit, params string[] arguments)
    {
        string[] enter = _options.ByNsenter ? ["nsenter", "--net=" + Host.Path] : ["ip", "netns", "exec", Host.Name];
        return Command.RunAsync(limit, [.. enter, CommandLine, .. arguments], _environment);
    }

    /// <summary>Runs <c>vnet … --json</c> and parses what it says.</summary>
    public async Task<JsonDocument> JsonAsync(params string[] arguments)
    {
        CommandResult result = (await VnetAsync([.. arguments, "--json"])).EnsureSuccess();
        try
        {
            return JsonDocument.Parse(result.Output);
        }
        catch (JsonException exception)
        {
            throw new InvalidOperationException($"not JSON ({exception.Message}):\n{result}");
        }
    }

    /// <summary>A guest made by <c>vnet guest add</c>; its namespace bears the name that begins with the instance's prefix.</summary>
    public async Task<TestGuest> AddGuestAsync(string id, string network, params string[] more)
    {
        string name = $"{Prefix}-{id}";
        (await VnetAsync(["guest", "add", name, "--network", network, .. more])).EnsureSuccess();
        return new TestGuest(this, name, network);
    }

    /// <summary>A channel to a service that reconnects by itself.</summary>
    public GrpcChannel Channel(string service)
    {
        lock (_channels)
        {
            if (!_channels.TryGetValue(service, out GrpcChannel? channel))
                _channels[service] = channel = OpenChannel(SocketOf(service));
            return channel;
        }
    }

    public string SocketOf(string service) => Path.Combine(RunDirectory, service + ".sock");

    /// <summary>Process ids by service, as the supervisor tells them; zero while one is not running.</summary>
    public Dictionary<string, int> ProcessIds()
    {
        using JsonDocument document = JsonDocument.Parse(File.ReadAllText(Path.Combine(RunDirectory, "supervisor.json")));
        return SupervisorFile.ProcessIds(document.RootElement);
    }

    /// <summary>Ends the services with SIGKILL, all at the same moment, and waits until each is back and healthy.</summary>
    public async Task KillAsync(params string[] services)
    {
        Dictionary<string, int> before = ProcessIds();
        foreach (string service in services)
            Assert.True(NetworkNamespace.Kill(before[service], 9), $"{service} (pid {before[service]}) was not running");
        await Wait.UntilAsync(TimeSpan.FromSeconds(20), $"{string.Join(", ", services)} back and healthy", async () =>
        {
            Dictionary<string, int> now = ProcessIds();
            foreach (string service in services)
            {
                if (now[service] == 0 || now[service] == before[service] || !await IsHealthyAsync(service))
                    return false;
            }
            return true;
        });
    }

    /// <summary>What the standard health service says.</summary>
    public async Task<bool> IsHealthyAsync(string service)
    {
        HealthCheckResponse answer = await new Health.HealthClient(Channel(service)).CheckAsync(new HealthCheckRequest(), deadline: DateTime.UtcNow.AddSeconds(1));
        return answer.Status == HealthCheckResponse.Types.ServingStatus.Serving;
    }

    /// <summary>Everything that VNetMesh could have changed on the host, to compare before and after.</summary>
    public async Task<string> DescribeHostAsync()
    {
        CommandResult description = (await Host.RunAsync("sh", "-c", """
            set -e
            echo "links:"; ip -o link | sed 's/ state [A-Z]* / /'
            echo "addresses:"; ip -o addr | sed 's/valid_lft.*//'
            echo "routes:"; ip route show table all | sort
            echo "rules:"; ip rule
            echo "nft:"; nft list ruleset
            echo "sysctl:"; sysctl net.ipv4.ping_group_range net.ipv4.ip_forward net.ipv4.conf.all.forwarding net.ipv6.conf.all.forwarding
            """)).EnsureSuccess();
        // Others on this machine may make namespaces of their own meanwhile: those of this instance count.
        string[] namespaces = [.. NetworkNamespace.List().Where(name => name.StartsWith(Prefix, StringComparison.Ordinal))];
        string[] files = Directory.Exists("/etc/netns") ? [.. Directory.GetDirectories("/etc/netns", Prefix + "*").Order()] : [];
        return $"{description.Output}ip netns: {string.Join(' ', namespaces)}\n/etc/netns: {string.Join(' ', files)}";
    }

    /// <summary>The end of each service's log.</summary>
    public string Logs(int lines = 60)
    {
        var text = new StringBuilder();
        string folder = Path.Combine(RunDirectory, "log");
        foreach (string file in Directory.Exists(folder) ? Directory.GetFiles(folder, "*.log").Order().ToArray() : [])
        {
            text.AppendLine(CultureInfo.InvariantCulture, $"--- {Path.GetFileName(file)}");
            foreach (string line in File.ReadLines(file).TakeLast(lines))
                text.AppendLine(line.Length > 400 ? line[..400] + "…" : line);
        }
        return text.ToString();
    }

    public async ValueTask DisposeAsync()
    {
        foreach (GrpcChannel channel in _channels.Values)
            channel.Dispose();
        try
        {
            if (Directory.Exists(RunDirectory))
                await VnetAsync("down");
        }
        finally
        {
            if (_dns is not null)
                await _dns.DisposeAsync();
            if (Servers is not null)
                await Servers.DisposeAsync();
            await Leftovers.RemoveAsync(Prefix);
        }
    }

    private async Task BuildAsync()
    {
        if (!_options.WithWan)
        {
            await NetworkNamespace.CreateAsync(Host.Name);
            return;
        }
        Directory.CreateDirectory(Path.GetDirectoryName(ResolvConf)!);
        await File.WriteAllTextAsync(ResolvConf, $"nameserver {WanAddress}\n");
        await NetworkNamespace.CreateAsync(Host.Name);
        await NetworkNamespace.CreateAsync(Wan.Name);
        string script = $"""
            set -e
            ip link add wan0 netns {Host.Name} type veth peer name host0 netns {Wan.Name}
            # Its link-local address would come some seconds later, and look like a change that VNetMesh made.
            ip netns exec {Host.Name} sysctl -qw net.ipv6.conf.wan0.disable_ipv6=1 2>/dev/null || true
            ip -n {Host.Name} addr add {HostWanAddress}/24 dev wan0
            ip -n {Host.Name} link set wan0 up
            ip -n {Host.Name} route add default via {WanAddress}
            # As on a host that runs containers: what is not to be forwarded must be stopped by us, not by luck.
            ip netns exec {Host.Name} sysctl -qw net.ipv4.ip_forward=1
            ip -n {Wan.Name} addr add {WanAddress}/24 dev host0
            ip -n {Wan.Name} addr add {DroppingAddress}/24 dev host0
            ip -n {Wan.Name} link set host0 up
            ip -n {Wan.Name} route add unreachable {UnreachableAddress}/32
            ip netns exec {Wan.Name} sysctl -qw net.ipv4.ip_forward=1
            ip netns exec {Wan.Name} nft add table inet drops
            ip netns exec {Wan.Name} nft add chain inet drops in '{"{"} type filter hook input priority 0; {"}"}'
            ip netns exec {Wan.Name} nft add rule inet drops in ip daddr {DroppingAddress} counter drop
            """;
        (await Command.RunAsync("sh", "-c", script)).EnsureSuccess();
        foreach (string[] command in _options.HostCommands)
            (await Host.RunAsync(command)).EnsureSuccess();
        Servers = new WanServers(Wan);
        _dns = Wan.Start("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--pid-file",
            $"--listen-address={WanAddress}", "--bind-interfaces", $"--host-record=web.wan.test,{WanAddress}", "--local=/wan.test/",
            "--txt-record=big.wan.test," + string.Join(',', Enumerable.Range(0, 12).Select(number => $"\"{new string((char)('a' + number), 200)}\"")));
        await Wait.UntilAsync(TimeSpan.FromSeconds(5), "dnsmasq answers", async () =>
            _dns.HasExited ? throw new InvalidOperationException(_dns.Output) : (await Wan.RunAsync("sh", "-c", "ss -lun | grep -q ':53 '")).ExitCode == 0);
    }

    private static GrpcChannel OpenChannel(string socketPath) => GrpcChannel.ForAddress("http://localhost", new GrpcChannelOptions
    {
        DisposeHttpClient = true,
        HttpHandler = new SocketsHttpHandler
        {
            ConnectCallback = async (_, cancellation) =>
            {
                var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                try
                {
                    await socket.ConnectAsync(new UnixDomainSocketEndPoint(socketPath), cancellation);
                    return new NetworkStream(socket, ownsSocket: true);
                }
                catch
                {
                    socket.Dispose();
                    throw;
                }
            },
        },
    });
}
