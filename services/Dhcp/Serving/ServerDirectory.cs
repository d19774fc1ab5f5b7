using System.Security.Cryptography;
using System.Text;
using VNetMesh.Dhcp.Leases;
using VNetMesh.Dhcp.Observability;
using VNetMesh.Dhcp.Protocol;
using VNetMesh.Dhcp.RouterAdvertisements;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Serving;

/// <summary>Keeps a server's port on the switch connected until cancelled, telling the server of each link.</summary>
public delegate Task ConnectPort(NetworkServer server, CancellationToken cancellation);

/// <summary>What one network wants: DHCP, router advertisements, or both.</summary>
/// <param name="Network">"networks/{id}".</param>
public sealed record ServedNetwork(string Network, NetworkSettings? Dhcp, AdvertisementSettings? Advertisements);

/// <summary>How one network stands.</summary>
public sealed record PoolStatus(string Network, long Size, int Bound, int Offered, int Declined, bool IsLinkUp, IReadOnlyList<(string, long)> Messages, IReadOnlyList<(string, long)> Drops);

/// <summary>A reservation that cannot be made; the reason is that of the API.</summary>
public sealed class ReservationRefusedException(string reason, string message) : Exception(message)
{
    public string Reason { get; } = reason;
}

/// <summary>
/// The servers of this process, one for each network with DHCP, brought in line with what the switch's registry says. Here the
/// asynchronous world ends: what is asked of a server is asked on its loop's thread.
/// </summary>
public sealed class ServerDirectory(ServerContext context, ConnectPort connect) : IAsyncDisposable
{
    public const string PortId = "dhcp";
    private const int MaxReservations = 4096;
    private static readonly TimeSpan Memory = TimeSpan.FromDays(30);

    // Changed on the loop's thread alone, once the loop runs.
    private readonly SortedDictionary<string, NetworkServer> _servers = new(StringComparer.Ordinal);
    private readonly Dictionary<string, PortTask> _ports = new(StringComparer.Ordinal);
    private readonly SemaphoreSlim _gate = new(1);

    /// <summary>The server's MAC address on a network: the same each time.</summary>
    public static MacAddress MacOf(string network)
    {
        Span<byte> hash = stackalloc byte[SHA256.HashSizeInBytes];
        SHA256.HashData(Encoding.UTF8.GetBytes($"{network}/ports/{PortId}"), hash);
        return new MacAddress(0x02564E_000000 | ((ulong)hash[0] << 16) | ((ulong)hash[1] << 8) | hash[2]);
    }

    /// <summary>Reads what is on disk, so that leases are there to be seen before the switch has answered. Before the loop's start.</summary>
    /// <exception cref="IOException">It cannot be read.</exception>
    public async Task LoadAsync()
    {
        await PurgeAsync().ConfigureAwait(false);
        (List<Lease> leases, List<Reservation> reservations) = await context.Writer.RunAsync(store => (store.ReadLeases(null), store.ReadReservations(null))).ConfigureAwait(false);
        foreach (string network in leases.Select(lease => lease.Network).Concat(reservations.Select(reservation => reservation.Network)).Distinct())
            Add(network, leases.Where(lease => lease.Network == network), reservations.Where(reservation => reservation.Network == network));
    }

    /// <summary>Forgets leases that ended long ago.</summary>
    public Task PurgeAsync()
    {
        DateTimeOffset before = context.Time.GetUtcNow() - Memory;
        return context.Writer.RunAsync(store => store.Purge(before));
    }

    /// <summary>Opens what is missing, closes what is not wanted any more, and tells the others of their settings.</summary>
    /// <param name="existing">All networks that there are: what is on disk of another went with it.</param>
    public async Task ReconcileAsync(IReadOnlyCollection<ServedNetwork> wanted, IReadOnlySet<string> existing)
    {
        await _gate.WaitAsync().ConfigureAwait(false);
        try
        {
            HashSet<string> names = [.. wanted.Select(served => served.Network)];
            foreach (string network in await context.Loop.InvokeAsync(() => _servers.Keys.Where(name => !names.Contains(name)).ToList()).ConfigureAwait(false))
            {
                await CloseAsync(network).ConfigureAwait(false);
                if (!existing.Contains(network))
                    await context.Writer.RunAsync(store => store.DeleteNetwork(network)).ConfigureAwait(false);
            }
            foreach (ServedNetwork served in wanted)
                await OpenAsync(served).ConfigureAwait(false);
        }
        finally
        {
            _gate.Release();
        }
    }

    /// <param name="network">"networks/{id}"; null: of all.</param>
    /// <returns>In the order of networks and addresses.</returns>
    public Task<List<Lease>> ListLeasesAsync(string? network) => context.Loop.InvokeAsync(() => Leases(network));

    /// <summary>A watch and what is there as it begins.</summary>
    public Task<(LeaseWatch Watch, List<Lease> Snapshot)> WatchAsync(string? network) =>
        context.Loop.InvokeAsync(() => (context.Feed.Watch(network), Leases(network)));

    /// <summary>What is there now; changes from before it are gone from the watch.</summary>
    public Task<List<Lease>> SnapshotAsync(LeaseWatch watch, string? network) => context.Loop.InvokeAsync(() =>
    {
        watch.BeginAnew();
        return Leases(network);
    });

    /// <summary>Forgets a lease or an offer. False: there is none.</summary>
    /// <exception cref="IOException">It could not be written; the lease stands.</exception>
    public async Task<bool> DeleteLeaseAsync(string network, Ipv4Address address)
    {
        AddressEntry? entry = await context.Loop.InvokeAsync(() => _servers.GetValueOrDefault(network)?.Table.Find(address)).ConfigureAwait(false);
        if (entry is null)
            return false;
        await context.Writer.RunAsync(store => store.Write([new LeaseWrite([], [(network, address)])])).ConfigureAwait(false);
        await context.Loop.InvokeAsync(() =>
        {
            if (_servers.GetValueOrDefault(network)?.Table is not { } table)
                return false;
            table.RemoveLease(address);
            // A write that is on its way brings the lease back, and its client was promised nothing else.
            if (table.Find(address) is { Hold.Kind: HoldKind.Offered } offered)
                table.RemoveHold(offered);
            return true;
        }).ConfigureAwait(false);
        return true;
    }

    public Task<List<Reservation>> ListReservationsAsync(string? network) => context.Loop.InvokeAsync(() =>
        _servers.Values.Where(server => network is null || server.Network == network).SelectMany(server => server.Core.Reservations.All).ToList());

    /// <summary>Makes a reservation; when it returns, it is on disk and in force. Null: the network is not served.</summary>
    /// <exception cref="ReservationRefusedException">It contradicts the network, or another reservation.</exception>
    /// <exception cref="IOException">It could not be written.</exception>
    public async Task<Reservation?> CreateReservationAsync(Reservation reservation)
    {
        await _gate.WaitAsync().ConfigureAwait(false);
        try
        {
            bool served = await context.Loop.InvokeAsync(() => Check(reservation)).ConfigureAwait(false);
            if (!served)
                return null;
            await context.Writer.RunAsync(store => store.WriteReservation(reservation)).ConfigureAwait(false);
            await context.Loop.InvokeAsync(() =>
            {
                _servers.GetValueOrDefault(reservation.Network)?.Core.Reservations.Add(reservation);
                return true;
            }).ConfigureAwait(false);
            return reservation;
        }
        finally
        {
            _gate.Release();
        }
    }

    /// <summary>Takes a reservation away; a lease that came from it stands until it ends. False: there is none.</summary>
    /// <exception cref="IOException">It could not be written; the reservation stands.</exception>
    public async Task<bool> DeleteReservationAsync(string network, string id)
    {
        await _gate.WaitAsync().ConfigureAwait(false);
        try
        {
            Reservation? reservation = await context.Loop.InvokeAsync(() => _servers.GetValueOrDefault(network)?.Core.Reservations.Find(id)).ConfigureAwait(false);
            if (reservation is null)
                return false;
            await context.Writer.RunAsync(store => store.DeleteReservation(network, id)).ConfigureAwait(false);
            await context.Loop.InvokeAsync(() =>
            {
                _servers.GetValueOrDefault(network)?.Core.Reservations.Remove(reservation);
                return true;
            }).ConfigureAwait(false);
            return true;
        }
        finally
        {
            _gate.Release();
        }
    }

    /// <summary>Of the networks that are served now.</summary>
    public Task<List<PoolStatus>> ListPoolsAsync() => context.Loop.InvokeAsync(() => _servers.Values.Where(server => server.Core.Settings is not null).Select(server =>
        new PoolStatus(server.Network, server.PoolSize, server.Table.Bound, server.Table.Offered, server.Table.Declined, server.IsLinkUp, [.. server.Counters.Messages()], [.. server.Counters.Drops()])).ToList());

    /// <summary>What clients asked last and were told, the newest first.</summary>
    /// <param name="network">Null: all.</param>
    /// <param name="mac">Null: of every client.</param>
    public Task<List<ExchangeEntry>> ListExchangesAsync(string? network, MacAddress? mac, int count) => context.Loop.InvokeAsync(() => _servers.Values
        .Where(server => network is null || server.Network == network)
        .SelectMany(server => server.Exchanges.List(mac))
        .OrderByDescending(entry => entry.Time).Take(count).ToList());

    public Task<bool> KnowsAsync(string network) => context.Loop.InvokeAsync(() => _servers.ContainsKey(network));

    /// <summary>Takes all ports away. The loop is the caller's to end.</summary>
    public async ValueTask DisposeAsync()
    {
        foreach (PortTask port in _ports.Values)
            await port.DisposeAsync().ConfigureAwait(false);
        _ports.Clear();
        _gate.Dispose();
    }

    private NetworkServer Add(string network, IEnumerable<Lease> leases, IEnumerable<Reservation> reservations)
    {
        var server = new NetworkServer(network, MacOf(network), context);
        server.Load(leases, reservations);
        server.Open();
        _servers[network] = server;
        return server;
    }

    private async Task OpenAsync(ServedNetwork served)
    {
        string network = served.Network;
        if (!await KnowsAsync(network).ConfigureAwait(false))
        {
            // It may have been served before, and be on disk: in its turn after all writes about it.
            (List<Lease> leases, List<Reservation> reservations) = await context.Writer.RunAsync(store => (store.ReadLeases(network), store.ReadReservations(network))).ConfigureAwait(false);
            await context.Loop.InvokeAsync(() => Add(network, leases, reservations)).ConfigureAwait(false);
        }
        NetworkServer server = await context.Loop.InvokeAsync(() =>
        {
            if (served.Dhcp is { } settings)
                _servers[network].Configure(settings);
            else
                _servers[network].Suspend();
            _servers[network].Advertise(served.Advertisements);
            return _servers[network];
        }).ConfigureAwait(false);
        if (!_ports.ContainsKey(network))
            _ports[network] = new PortTask(cancellation => connect(server, cancellation));
    }

    private async Task CloseAsync(string network)
    {
        if (_ports.Remove(network, out PortTask? port))
            await port.DisposeAsync().ConfigureAwait(false);
        await context.Loop.InvokeAsync(() =>
        {
            if (_servers.Remove(network, out NetworkServer? server))
                server.Close();
            return true;
        }).ConfigureAwait(false);
    }

    private List<Lease> Leases(string? network) =>
        [.. _servers.Values.Where(server => network is null || server.Network == network).SelectMany(server => server.Table.Views.OrderBy(lease => lease.Address))];

    private bool Check(Reservation reservation)
    {
        if (_servers.GetValueOrDefault(reservation.Network)?.Core is not { Settings: { } settings } core)
            return false;
        if (core.Reservations.Find(reservation.Id) is not null)
            throw new ReservationRefusedException("RESERVATION_EXISTS", $"there is a reservation '{reservation.Id}' already; delete it first, or choose another id");
        if (core.Reservations.ForSameClient(reservation) is { } same)
            throw new ReservationRefusedException("RESERVATION_EXISTS", $"the client has a reservation already, '{same.Id}' for {same.Address}");
        if (!settings.Subnet.Contains(reservation.Address))
            throw new ReservationRefusedException("ADDRESS_OUTSIDE_SUBNET", $"{reservation.Address} is not in {settings.Subnet}");
        if (!settings.IsGivable(reservation.Address))
            throw new ReservationRefusedException("ADDRESS_RESERVED", $"{reservation.Address} is the network's, the broadcast, the server's, the host's or the gateway's address");
        if (core.Reservations.For(reservation.Address) is { } other)
            throw new ReservationRefusedException("ADDRESS_RESERVED_FOR_OTHER", $"{reservation.Address} is reserved for another client by '{other.Id}'");
        if (core.Reservations.Count >= MaxReservations)
            throw new ReservationRefusedException("TOO_MANY_RESERVATIONS", $"a network has at most {MaxReservations} reservations");
        return true;
    }

    /// <summary>A port that is kept connected, until stopped.</summary>
    private sealed class PortTask : IAsyncDisposable
    {
        private readonly CancellationTokenSource _stop = new();
        private readonly Task _task;

        public PortTask(Func<CancellationToken, Task> run) => _task = run(_stop.Token);

        public async ValueTask DisposeAsync()
        {
            await _stop.CancelAsync().ConfigureAwait(false);
            await _task.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            _stop.Dispose();
        }
    }
}
