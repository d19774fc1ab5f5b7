using System.Globalization;
using Microsoft.Data.Sqlite;
using VNetMesh.Dhcp.Protocol;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Leases;

/// <summary>Leases and reservations on disk.</summary>
public interface ILeaseStore : IDisposable
{
    /// <param name="network">"networks/{id}"; null: of all.</param>
    /// <exception cref="IOException">They could not be read.</exception>
    List<Lease> ReadLeases(string? network);

    /// <inheritdoc cref="ReadLeases"/>
    List<Reservation> ReadReservations(string? network);

    /// <summary>Makes the changes, all or none; when it returns they are on disk.</summary>
    /// <exception cref="IOException">They could not be written.</exception>
    void Write(IReadOnlyList<LeaseWrite> writes);

    /// <inheritdoc cref="Write"/>
    void WriteReservation(Reservation reservation);

    /// <inheritdoc cref="Write"/>
    void DeleteReservation(string network, string id);

    /// <summary>Forgets all of a network: leases and reservations.</summary>
    /// <inheritdoc cref="Write"/>
    void DeleteNetwork(string network);

    /// <summary>Forgets leases that ended before that time.</summary>
    /// <inheritdoc cref="Write"/>
    void Purge(DateTimeOffset endedBefore);
}

/// <summary>
/// SQLite with WAL and synchronous=FULL: a commit that returned has reached the disk, and survives kill -9 and a loss of
/// power. One thread at a time.
/// </summary>
public sealed class LeaseStore : ILeaseStore
{
    private const int SchemaVersion = 1;

    private readonly SqliteConnection _connection;

    /// <param name="path">The database; made when it is not there. Its directory must exist.</param>
    /// <exception cref="InvalidDataException">It was written by a later version, or is not a database of ours.</exception>
    public LeaseStore(string path)
    {
        _connection = new SqliteConnection(new SqliteConnectionStringBuilder { DataSource = path, Pooling = false }.ToString());
        try
        {
            _connection.Open();
            Execute("PRAGMA journal_mode=WAL");
            Execute("PRAGMA synchronous=FULL");
            Migrate(path);
        }
        catch (SqliteException exception)
        {
            _connection.Dispose();
            throw new InvalidDataException($"{path} cannot be read as the database of leases: {exception.Message}; move it away to begin anew", exception);
        }
        catch
        {
            _connection.Dispose();
            throw;
        }
    }

    public List<Lease> ReadLeases(string? network)
    {
        using SqliteCommand command = Command("SELECT network, address, state, client, mac, client_id, hostname, start, expire, reserved FROM leases WHERE $network IS NULL OR network = $network ORDER BY network, address");
        command.Parameters.AddWithValue("$network", (object?)network ?? DBNull.Value);
        using SqliteDataReader reader = command.ExecuteReader();
        var leases = new List<Lease>();
        while (reader.Read())
        {
            leases.Add(new Lease
            {
                Network = reader.GetString(0),
                Address = new Ipv4Address((uint)reader.GetInt64(1)),
                State = (LeaseState)reader.GetInt32(2),
                Client = new ClientKey(reader.GetString(3)),
                Mac = new MacAddress((ulong)reader.GetInt64(4)),
                ClientId = reader.GetString(5),
                HostName = reader.GetString(6),
                Start = DateTimeOffset.FromUnixTimeMilliseconds(reader.GetInt64(7)),
                Expire = DateTimeOffset.FromUnixTimeMilliseconds(reader.GetInt64(8)),
                Reserved = reader.GetBoolean(9),
            });
        }
        return leases;
    }

    public List<Reservation> ReadReservations(string? network)
    {
        using SqliteCommand command = Command("SELECT network, id, address, mac, client_id, hostname FROM reservations WHERE $network IS NULL OR network = $network ORDER BY network, id");
        command.Parameters.AddWithValue("$network", (object?)network ?? DBNull.Value);
        using SqliteDataReader reader = command.ExecuteReader();
        var reservations = new List<Reservation>();
        while (reader.Read())
        {
            reservations.Add(new Reservation
            {
                Network = reader.GetString(0),
                Id = reader.GetString(1),
                Address = new Ipv4Address((uint)reader.GetInt64(2)),
                Mac = reader.IsDBNull(3) ? null : new MacAddress((ulong)reader.GetInt64(3)),
                ClientId = reader.GetString(4),
                HostName = reader.GetString(5),
            });
        }
        return reservations;
    }

    public void Write(IReadOnlyList<LeaseWrite> writes) => Transact(() =>
    {
        foreach (LeaseWrite write in writes)
        {
            foreach ((string network, Ipv4Address address) in write.Deletes)
                Execute("DELETE FROM leases WHERE network = $network AND address = $address", ("$network", network), ("$address", (long)address.Value));
            foreach (Lease lease in write.Upserts)
                Upsert(lease);
        }
    });

    public void WriteReservation(Reservation reservation) => Transact(() => Execute(
        "INSERT INTO reservations(network, id, address, mac, client_id, hostname) VALUES($network, $id, $address, $mac, $client_id, $hostname)",
        ("$network", reservation.Network), ("$id", reservation.Id), ("$address", (long)reservation.Address.Value),
        ("$mac", reservation.Mac is { } mac ? (long)mac.Value : DBNull.Value), ("$client_id", reservation.ClientId), ("$hostname", reservation.HostName)));

    public void DeleteReservation(string network, string id) => Transact(() =>
        Execute("DELETE FROM reservations WHERE network = $network AND id = $id", ("$network", network), ("$id", id)));

    public void DeleteNetwork(string network) => Transact(() =>
    {
        Execute("DELETE FROM leases WHERE network = $network", ("$network", network));
        Execute("DELETE FROM reservations WHERE network = $network", ("$network", network));
    });

    public void Purge(DateTimeOffset endedBefore) => Transact(() =>
        Execute("DELETE FROM leases WHERE expire < $time", ("$time", endedBefore.ToUnixTimeMilliseconds())));

    public void Dispose() => _connection.Dispose();

    /// <summary>For tests: the database may not grow beyond that many pages, and writes fail as on a full disk.</summary>
    internal void LimitPages(int pages) => Execute(string.Create(CultureInfo.InvariantCulture, $"PRAGMA max_page_count = {pages}"));

    private void Upsert(Lease lease) => Execute(
        """
        INSERT INTO leases(network, address, state, client, mac, client_id, hostname, start, expire, reserved)
        VALUES($network, $address, $state, $client, $mac, $client_id, $hostname, $start, $expire, $reserved)
        ON CONFLICT(network, address) DO UPDATE SET state = $state, client = $client, mac = $mac, client_id = $client_id,
            hostname = $hostname, start = $start, expire = $expire, reserved = $reserved
        """,
        ("$network", lease.Network), ("$address", (long)lease.Address.Value), ("$state", (int)lease.State), ("$client", lease.Client.ToString()),
        ("$mac", (long)lease.Mac.Value), ("$client_id", lease.ClientId), ("$hostname", lease.HostName),
        ("$start", lease.Start.ToUnixTimeMilliseconds()), ("$expire", lease.Expire.ToUnixTimeMilliseconds()), ("$reserved", lease.Reserved));

    private void Migrate(string path)
    {
        using SqliteCommand command = Command("PRAGMA user_version");
        long version = (long)command.ExecuteScalar()!;
        if (version > SchemaVersion)
            throw new InvalidDataException($"{path} was written by a later version of dhcp (schema {version}); this one knows up to {SchemaVersion}");
        if (version == SchemaVersion)
            return;
        using SqliteTransaction transaction = _connection.BeginTransaction();
        Execute(
            """
            CREATE TABLE leases(network TEXT NOT NULL, address INTEGER NOT NULL, state INTEGER NOT NULL, client TEXT NOT NULL, mac INTEGER NOT NULL,
                client_id TEXT NOT NULL, hostname TEXT NOT NULL, start INTEGER NOT NULL, expire INTEGER NOT NULL, reserved INTEGER NOT NULL,
                PRIMARY KEY(network, address)) STRICT, WITHOUT ROWID
            """);
        Execute(
            """
            CREATE TABLE reservations(network TEXT NOT NULL, id TEXT NOT NULL, address INTEGER NOT NULL, mac INTEGER, client_id TEXT NOT NULL,
                hostname TEXT NOT NULL, PRIMARY KEY(network, id)) STRICT, WITHOUT ROWID
            """);
        Execute($"PRAGMA user_version = {SchemaVersion}");
        transaction.Commit();
    }

    private void Transact(Action changes)
    {
        try
        {
            using SqliteTransaction transaction = _connection.BeginTransaction();
            changes();
            transaction.Commit();
        }
        catch (SqliteException exception)
        {
            throw new IOException($"the database of leases cannot be written: {exception.Message}", exception);
        }
    }

    private void Execute(string sql, params ReadOnlySpan<(string Name, object Value)> parameters)
    {
        using SqliteCommand command = Command(sql);
        foreach ((string name, object value) in parameters)
            command.Parameters.AddWithValue(name, value);
        command.ExecuteNonQuery();
    }

    private SqliteCommand Command(string sql)
    {
        SqliteCommand command = _connection.CreateCommand();
        command.CommandText = sql;
        return command;
    }
}
