using System.Text.Json;
using VNetMesh.Benchmarks.Running;

namespace VNetMesh.Benchmarks.Systems;

/// <summary>A guest with its IPv4 address and its MAC address.</summary>
public sealed record VNetMeshGuest(NetworkNamespace Namespace, string Address, string Mac);

/// <summary>A whole VNetMesh of its own, as <c>vnet up</c> starts it: a host namespace, run and state folders nobody else has.</summary>
public sealed class VNetMeshInstance : IAsyncDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);
    private readonly Dictionary<string, string> _environment;
    private readonly string _prefix;
    private readonly Dictionary<string, Task<VNetMeshGuest>> _guests = [];
    private bool _up;

    /// <param name="prefix">Begins the names of everything that it makes.</param>
    /// <param name="environment">More for the services.</param>
    public VNetMeshInstance(string prefix, Site site, params IEnumerable<KeyValuePair<string, string>> environment)
    {
        _prefix = prefix;
        Site = site;
        RunDirectory = "/run/" + prefix;
        StateDirectory = "/var/tmp/" + prefix + "-state";
        _environment = new Dictionary<string, string>(environment)
        {
            ["VNETMESH_RUN_DIR"] = RunDirectory,
            ["VNETMESH_STATE_DIR"] = StateDirectory,
            ["VNETMESH_CONFIG"] = StateDirectory + ".yaml",
        };
    }

    public Site Site { get; }
    public string RunDirectory { get; }
    public string StateDirectory { get; }

    /// <summary>Process ids of the four services, by name.</summary>
    public IReadOnlyDictionary<string, int> Services { get; private set; } = new Dictionary<string, int>();

    public IReadOnlyList<int> Processes => [.. Services.Values];

    /// <summary>Where the build put the command line: beside this program, with the same configuration.</summary>
    internal static string CommandLine => Path.GetFullPath(Path.Combine(AppContext.BaseDirectory, "..", "..", "Cli", new DirectoryInfo(AppContext.BaseDirectory).Name, "vnet"));

    public async Task UpAsync(CancellationToken cancellation)
    {
        _up = true;
        await VnetAsync(cancellation, "up");
        using JsonDocument status = JsonDocument.Parse(await VnetAsync(cancellation, "status", "--json"));
        Services = status.RootElement.EnumerateArray().ToDictionary(service => service.GetProperty("name").GetString()!, service => service.GetProperty("pid").GetInt32());
    }

    public Task<string> VnetAsync(CancellationToken cancellation, params string[] arguments) =>
        Shell.RunAsync(Patience, Site.Host.Enter([CommandLine, .. arguments]), _environment, cancellation);

    /// <summary>A guest with an address from DHCP; made at the first call, the same one after that.</summary>
    public Task<VNetMeshGuest> GuestAsync(string id, string network, CancellationToken cancellation)
    {
        if (!_guests.TryGetValue(id, out Task<VNetMeshGuest>? guest) || guest.IsFaulted)
            _guests[id] = guest = AddGuestAsync(id, network, cancellation);
        return guest;
    }

    /// <summary>A guest on vmnet0, which is joined to the host's NIC.</summary>
    public async Task<NetworkNamespace> BridgedGuestAsync(string id, string address, CancellationToken cancellation)
    {
        string name = $"{_prefix}-{id}";
        await VnetAsync(cancellation, "network", "update", "vmnet0", "--uplink", "wan0");
        await VnetAsync(cancellation, "guest", "add", name, "--network", "vmnet0", "--no-dhcp");
        var guest = new NetworkNamespace(name);
        await guest.TuneAsync(cancellation);
        await guest.RunAsync(cancellation, "ip", "addr", "add", address, "dev", "eth0");
        return guest;
    }

    /// <summary>A NAT network whose guests have large packets.</summary>
    public async Task CreateJumboNetworkAsync(string name, int mtu, CancellationToken cancellation) =>
        await VnetAsync(cancellation, "network", "create", name, "--kind", "nat", "--mtu", mtu.ToString(System.Globalization.CultureInfo.InvariantCulture));

    public async ValueTask DisposeAsync()
    {
        if (!_up)
            return;
        _up = false;
        await Shell.RunAsync(Patience, Site.Host.Enter(CommandLine, "down"), _environment, CancellationToken.None);
    }

    private async Task<VNetMeshGuest> AddGuestAsync(string id, string network, CancellationToken cancellation)
    {
        string name = $"{_prefix}-{id}";
        using JsonDocument guest = JsonDocument.Parse(await VnetAsync(cancellation, "guest", "add", name, "--network", network, "--json"));
        string address = guest.RootElement.GetProperty("ipv4Addresses").EnumerateArray().FirstOrDefault().GetString()
            ?? throw new BenchmarkException($"guest {name} got no address: {guest.RootElement.GetProperty("conditions")}");
        var made = new NetworkNamespace(name);
        await made.TuneAsync(cancellation);
        return new VNetMeshGuest(made, address.Split('/')[0], guest.RootElement.GetProperty("mac").GetString()!);
    }
}
