using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.Data.Sqlite;
using VNetMesh.Packets;

namespace VNetMesh.Switch.Registry;

/// <summary>
/// The networks on disk. Every change is one transaction, and with WAL and synchronous=FULL it has reached the disk when
/// the call returns: what was acknowledged survives kill -9 and a loss of power. One thread at a time.
/// </summary>
public sealed class NetworkStore : IDisposable
{
    private const int SchemaVersion = 1;

    private readonly SqliteConnection _connection;

    /// <param name="path">The database; made when it is not there. Its directory must exist.</param>
    /// <exception cref="InvalidDataException">It was written by a later version, or is not a database of ours.</exception>
    public NetworkStore(string path)
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
            throw new InvalidDataException($"{path} cannot be read as the switch's database: {exception.Message}; move it away to begin anew", exception);
        }
        catch
        {
            _connection.Dispose();
            throw;
        }
    }

    /// <summary>The store has never held a network: the first start.</summary>
    public bool IsNew { get; private set; }

    /// <summary>The revision of the last change.</summary>
    public ulong ReadRevision() => (ulong)(long)(Scalar("SELECT revision FROM registry") ?? 0L);

    public List<NetworkDefinition> ReadNetworks()
    {
        using SqliteCommand command = _connection.CreateCommand();
        command.CommandText = "SELECT id, definition FROM networks ORDER BY id";
        using SqliteDataReader reader = command.ExecuteReader();
        var networks = new List<NetworkDefinition>();
        while (reader.Read())
        {
            StoredNetwork stored = JsonSerializer.Deserialize(reader.GetString(1), StoredNetworkContext.Default.StoredNetwork)
                ?? throw new InvalidDataException($"the stored network '{reader.GetString(0)}' is empty");
            networks.Add(stored.ToDefinition(reader.GetString(0)));
        }
        return networks;
    }

    /// <summary>Writes networks and the revision, all or nothing.</summary>
    public void Save(ulong revision, params ReadOnlySpan<NetworkDefinition> networks)
    {
        using SqliteTransaction transaction = _connection.BeginTransaction();
        foreach (NetworkDefinition network in networks)
        {
            Execute("INSERT INTO networks(id, definition) VALUES($id, $definition) ON CONFLICT(id) DO UPDATE SET definition = $definition", ("$id", network.Id), ("$definition", StoredNetwork.ToJson(network)));
        }
        Execute("UPDATE registry SET revision = $revision", ("$revision", (long)revision));
        transaction.Commit();
        IsNew = false;
    }

    public void Delete(ulong revision, string id)
    {
        using SqliteTransaction transaction = _connection.BeginTransaction();
        Execute("DELETE FROM networks WHERE id = $id", ("$id", id));
        Execute("UPDATE registry SET revision = $revision", ("$revision", (long)revision));
        transaction.Commit();
    }

    public void Dispose() => _connection.Dispose();

    private void Migrate(string path)
    {
        long version = (long)Scalar("PRAGMA user_version")!;
        if (version > SchemaVersion)
            throw new InvalidDataException($"{path} was written by a later version of the switch (schema {version}); this one knows up to {SchemaVersion}");
        if (version == 0)
        {
            using SqliteTransaction transaction = _connection.BeginTransaction();
            Execute("CREATE TABLE networks(id TEXT PRIMARY KEY, definition TEXT NOT NULL) STRICT");
            Execute("CREATE TABLE registry(revision INTEGER NOT NULL) STRICT");
            Execute("INSERT INTO registry VALUES(0)");
            Execute($"PRAGMA user_version = {SchemaVersion}");
            transaction.Commit();
        }
        // Seeds and their revision are one transaction: a crash before it leaves revision 0, and they come at the next start.
        IsNew = ReadRevision() == 0;
    }

    private void Execute(string sql, params ReadOnlySpan<(string Name, object Value)> parameters)
    {
        using SqliteCommand command = _connection.CreateCommand();
        command.CommandText = sql;
        foreach ((string name, object value) in parameters)
            command.Parameters.AddWithValue(name, value);
        command.ExecuteNonQuery();
    }

    private object? Scalar(string sql)
    {
        using SqliteCommand command = _connection.CreateCommand();
        command.CommandText = sql;
        return command.ExecuteScalar();
    }
}

/// <summary>A network's stored form. Fields may be added; none may change its meaning.</summary>
internal sealed record StoredNetwork
{
    /// <summary>Whether two networks differ in nothing but their revision and their conditions.</summary>
    public static bool AreSame(NetworkDefinition one, NetworkDefinition other) => ToJson(one with { Revision = 0 }) == ToJson(other with { Revision = 0 });

    public static string ToJson(NetworkDefinition network) => JsonSerializer.Serialize(From(network), StoredNetworkContext.Default.StoredNetwork);

    public NetworkKind Kind { get; init; }
    public string? Subnet { get; init; }
    public bool SubnetAuto { get; init; }
    public string? HostAddress { get; init; }
    public string? Gateway { get; init; }
    public NetworkEgress Egress { get; init; } = NetworkEgress.None;
    public string? Ipv6Prefix { get; init; }
    public string Uplink { get; init; } = "";
    public UplinkDriver UplinkDriver { get; init; }
    public int Mtu { get; init; }
    public double MacAgeingSeconds { get; init; }
    public int MaxMacs { get; init; }
    public int MaxMacsPerPort { get; init; }
    public bool IsolatePorts { get; init; }
    public bool DhcpEnabled { get; init; }
    public string? DhcpRangeStart { get; init; }
    public string? DhcpRangeEnd { get; init; }
    public string? DhcpServerAddress { get; init; }
    public double DhcpDefaultLeaseSeconds { get; init; }
    public double DhcpMaxLeaseSeconds { get; init; }
    public string DhcpDomain { get; init; } = "";
    public IReadOnlyList<string> DhcpDnsServers { get; init; } = [];
    public IReadOnlyList<string> DhcpRouters { get; init; } = [];
    public ulong Revision { get; init; }
    public DateTimeOffset CreateTime { get; init; }

    public static StoredNetwork From(NetworkDefinition network) => new()
    {
        Kind = network.Kind,
        Subnet = network.Subnet?.ToString(),
        SubnetAuto = network.SubnetAuto,
        HostAddress = network.HostAddress?.ToString(),
        Gateway = network.Gateway?.ToString(),
        Egress = network.Egress,
        Ipv6Prefix = network.Ipv6Prefix?.ToString(),
        Uplink = network.Uplink,
        UplinkDriver = network.UplinkDriver,
        Mtu = network.Mtu,
        MacAgeingSeconds = network.MacAgeing.TotalSeconds,
        MaxMacs = network.MaxMacs,
        MaxMacsPerPort = network.MaxMacsPerPort,
        IsolatePorts = network.IsolatePorts,
        DhcpEnabled = network.Dhcp.Enabled,
        DhcpRangeStart = network.Dhcp.RangeStart?.ToString(),
        DhcpRangeEnd = network.Dhcp.RangeEnd?.ToString(),
        DhcpServerAddress = network.Dhcp.ServerAddress?.ToString(),
        DhcpDefaultLeaseSeconds = network.Dhcp.DefaultLease.TotalSeconds,
        DhcpMaxLeaseSeconds = network.Dhcp.MaxLease.TotalSeconds,
        DhcpDomain = network.Dhcp.Domain,
        DhcpDnsServers = [.. network.Dhcp.DnsServers.Select(address => address.ToString())],
        DhcpRouters = [.. network.Dhcp.Routers.Select(address => address.ToString())],
        Revision = network.Revision,
        CreateTime = network.CreateTime,
    };

    public NetworkDefinition ToDefinition(string id) => new()
    {
        Id = id,
        Kind = Kind,
        Subnet = Subnet is null ? null : Ipv4Subnet.Parse(Subnet),
        SubnetAuto = SubnetAuto,
        HostAddress = Address(HostAddress),
        Gateway = Address(Gateway),
        Egress = Egress,
        Ipv6Prefix = Ipv6Prefix is null ? null : Packets.Ipv6Prefix.Parse(Ipv6Prefix),
        Uplink = Uplink,
        // Networks of earlier versions have none stored.
        UplinkDriver = Kind == NetworkKind.Bridged && UplinkDriver == UplinkDriver.Unspecified ? UplinkDriver.Tc : UplinkDriver,
        Mtu = Mtu,
        MacAgeing = TimeSpan.FromSeconds(MacAgeingSeconds),
        MaxMacs = MaxMacs,
        MaxMacsPerPort = MaxMacsPerPort,
        IsolatePorts = IsolatePorts,
        Revision = Revision,
        CreateTime = CreateTime,
        Dhcp = new DhcpDefinition
        {
            Enabled = DhcpEnabled,
            RangeStart = Address(DhcpRangeStart),
            RangeEnd = Address(DhcpRangeEnd),
            ServerAddress = Address(DhcpServerAddress),
            DefaultLease = TimeSpan.FromSeconds(DhcpDefaultLeaseSeconds),
            MaxLease = TimeSpan.FromSeconds(DhcpMaxLeaseSeconds),
            Domain = DhcpDomain,
            DnsServers = [.. DhcpDnsServers.Select(Ipv4Address.Parse)],
            Routers = [.. DhcpRouters.Select(Ipv4Address.Parse)],
        },
    };

    private static Ipv4Address? Address(string? text) => text is null ? null : Ipv4Address.Parse(text);
}

[JsonSourceGenerationOptions(UseStringEnumConverter = true, PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(StoredNetwork))]
internal sealed partial class StoredNetworkContext : JsonSerializerContext;
