using VNetMesh.Benchmarks.Running;

namespace VNetMesh.Benchmarks.Systems;

/// <summary>
/// A host and the outside of it, for one system under test alone; joined by veth, connected to nothing else.
/// <code>
///   [host 192.0.2.10] ──veth, MTU 1500── [wan 192.0.2.1, behind it 198.51.100.1: nginx, iperf3, UDP]
/// </code>
/// </summary>
public sealed class Site : IAsyncDisposable
{
    /// <summary>Not the host's gateway: pasta takes connections to that one for connections to the host.</summary>
    public const string WanAddress = "198.51.100.1";

    /// <summary>The host's, on its NIC.</summary>
    public const string HostAddress = "192.0.2.10";

    /// <summary>The outside's, on the host's own link.</summary>
    public const string LanAddress = "192.0.2.1";

    public const int WebPort = 8080;

    private readonly string _prefix;
    private readonly string _folder;
    private BackgroundProgram? _nginx;

    private Site(string prefix, string folder)
    {
        (_prefix, _folder) = (prefix, folder);
        Host = new NetworkNamespace(prefix + "-host");
        Wan = new NetworkNamespace(prefix + "-wan");
    }

    public NetworkNamespace Host { get; }
    public NetworkNamespace Wan { get; }

    /// <summary>TCP's, in each of its namespaces.</summary>
    public string CongestionControl { get; private set; } = "";

    /// <param name="prefix">Begins the names of its namespaces.</param>
    /// <param name="folder">For files; made when missing.</param>
    /// <param name="cancellation">Ends the wait.</param>
    public static async Task<Site> CreateAsync(string prefix, string folder, CancellationToken cancellation)
    {
        Directory.CreateDirectory(folder);
        var site = new Site(prefix, folder);
        await NetworkNamespace.CreateAsync(site.Host.Name, cancellation);
        await NetworkNamespace.CreateAsync(site.Wan.Name, cancellation);
        site.CongestionControl = await site.Host.TuneAsync(cancellation);
        await site.Wan.TuneAsync(cancellation);
        await Shell.RunAsync(cancellation, "sh", "-c", $"""
            set -e
            ip link add wan0 netns {site.Host.Name} type veth peer name host0 netns {site.Wan.Name}
            ip -n {site.Host.Name} addr add {HostAddress}/24 dev wan0
            ip -n {site.Host.Name} link set wan0 up
            ip -n {site.Host.Name} route add default via {LanAddress}
            ip -n {site.Wan.Name} addr add {LanAddress}/24 dev host0
            ip -n {site.Wan.Name} addr add {WanAddress}/32 dev lo
            ip -n {site.Wan.Name} link set host0 up
            """);
        return site;
    }

    /// <summary>Another namespace of this site, set up like the others.</summary>
    public async Task<NetworkNamespace> AddNamespaceAsync(string id, CancellationToken cancellation)
    {
        NetworkNamespace added = await NetworkNamespace.CreateAsync($"{_prefix}-{id}", cancellation);
        await added.TuneAsync(cancellation);
        return added;
    }

    /// <summary>Starts nginx in the wan, once.</summary>
    public async Task EnsureWebServerAsync(CancellationToken cancellation)
    {
        if (_nginx is not null)
            return;
        string configuration = Path.Combine(_folder, "nginx.conf");
        await File.WriteAllTextAsync(configuration, $$"""
            daemon off;
            worker_processes auto;
            pid {{_folder}}/nginx.pid;
            error_log stderr crit;
            events { worker_connections 8192; }
            http {
                access_log off;
                keepalive_requests 1000000000;
                server { listen {{WanAddress}}:{{WebPort}} backlog=4096; location / { return 200 "hello\n"; } }
            }
            """, cancellation);
        _nginx = Wan.Start("nginx", "nginx", "-e", "stderr", "-c", configuration);
        await _nginx.UntilAsync("it listened", () => ProcessTimes.Listens(_nginx.ProcessId, WebPort), cancellation);
    }

    public async ValueTask DisposeAsync()
    {
        if (_nginx is not null)
            await _nginx.DisposeAsync();
    }
}
