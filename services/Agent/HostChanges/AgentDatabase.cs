using Microsoft.Data.Sqlite;

namespace VNetMesh.Agent.HostChanges;

/// <summary>
/// The agent's file, {state}/agent/agent.db: the journal of host changes and the guests that are wanted. What a method
/// has written is on the disk when it returns. One process at a time has it open.
/// </summary>
public sealed class AgentDatabase : IDisposable
{
    private const string Schema = """
        CREATE TABLE IF NOT EXISTS host_changes (id INTEGER PRIMARY KEY AUTOINCREMENT, done INTEGER NOT NULL, time INTEGER NOT NULL, change TEXT NOT NULL) STRICT;
        CREATE TABLE IF NOT EXISTS guests (id TEXT PRIMARY KEY, spec TEXT NOT NULL) STRICT;
        CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
        """;

    private readonly FileStream _lock;
    private readonly SqliteConnection _connection;
    private readonly Lock _gate = new();

    private AgentDatabase(FileStream @lock, SqliteConnection connection) => (_lock, _connection) = (@lock, connection);

    /// <exception cref="DatabaseInUseException">Another agent has it.</exception>
    public static AgentDatabase Open(string directory)
    {
        Directory.CreateDirectory(directory);
        FileStream @lock;
        try
        {
            // FileShare.None is flock(2), which ends with its holder however that dies.
            @lock = new FileStream(Path.Combine(directory, "lock"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException exception)
        {
            throw new DatabaseInUseException(directory, exception);
        }
        var connection = new SqliteConnection(new SqliteConnectionStringBuilder { DataSource = Path.Combine(directory, "agent.db"), Pooling = false }.ToString());
        connection.Open();
        var database = new AgentDatabase(@lock, connection);
        database.Execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;");
        database.Execute(Schema);
        return database;
    }

    /// <summary>Runs a statement with parameters $1, $2, ….</summary>
    public int Execute(string sql, params ReadOnlySpan<object> parameters)
    {
        lock (_gate)
        {
            using SqliteCommand command = Prepare(sql, parameters);
            return command.ExecuteNonQuery();
        }
    }

    /// <summary>Reads all rows of a query with parameters $1, $2, ….</summary>
    public List<T> Query<T>(string sql, Func<SqliteDataReader, T> row, params ReadOnlySpan<object> parameters)
    {
        lock (_gate)
        {
            using SqliteCommand command = Prepare(sql, parameters);
            using SqliteDataReader reader = command.ExecuteReader();
            var rows = new List<T>();
            while (reader.Read())
                rows.Add(row(reader));
            return rows;
        }
    }

    public void Dispose()
    {
        _connection.Dispose();
        _lock.Dispose();
    }

    private SqliteCommand Prepare(string sql, ReadOnlySpan<object> parameters)
    {
        SqliteCommand command = _connection.CreateCommand();
#pragma warning disable CA2100 // All statements are literals of this program; values go by parameters.
        command.CommandText = sql;
#pragma warning restore CA2100
        for (int i = 0; i < parameters.Length; i++)
            command.Parameters.AddWithValue($"${i + 1}", parameters[i]);
        return command;
    }
}

/// <summary>Another process has the agent's state open.</summary>
public sealed class DatabaseInUseException(string directory, Exception inner) : IOException($"another vnetmesh-agent has {directory} open", inner);
