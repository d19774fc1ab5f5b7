using System.Text.Json;
using System.Text.Json.Serialization;

namespace VNetMesh.Agent.HostChanges;

/// <summary>A change as the journal has it.</summary>
/// <param name="Done">False: it was about to be made, and whether it was is not known.</param>
public sealed record JournalEntry(long Id, DateTimeOffset Time, bool Done, HostChange Change);

/// <summary>
/// Everything that the agent changed on the host and has not undone. A change is on the disk before it is made, is marked
/// when it was made, and leaves the journal when it was undone; so whenever the agent dies, its next start knows what may
/// be there. Not for two threads at a time.
/// </summary>
public sealed class ChangeJournal
{
    private readonly AgentDatabase _database;
    private readonly HostAccess _host;
    private readonly TimeProvider _time;
    private readonly SortedDictionary<long, JournalEntry> _entries = [];

    public ChangeJournal(AgentDatabase database, HostAccess host, TimeProvider time)
    {
        (_database, _host, _time) = (database, host, time);
        foreach (JournalEntry entry in _database.Query("SELECT id, time, done, change FROM host_changes ORDER BY id", row => new JournalEntry(
            row.GetInt64(0), DateTimeOffset.FromUnixTimeMilliseconds(row.GetInt64(1)), row.GetInt64(2) != 0, Deserialize(row.GetString(3)))))
            _entries.Add(entry.Id, entry);
    }

    /// <summary>In the order in which they were made.</summary>
    public IReadOnlyList<JournalEntry> Entries => [.. _entries.Values];

    /// <summary>The changes of one kind that an owner has, in the order in which they were made.</summary>
    public IEnumerable<(long Id, T Change)> Of<T>(string owner) where T : HostChange =>
        _entries.Values.Where(entry => entry.Done && entry.Change is T && entry.Change.Owner == owner).Select(entry => (entry.Id, (T)entry.Change));

    /// <summary>Writes a change down, then makes it. Where that fails, what it had done is taken back.</summary>
    /// <returns>The change as made.</returns>
    public T Perform<T>(T change) where T : HostChange
    {
        DateTimeOffset now = _time.GetUtcNow();
        long id = _database.Query("INSERT INTO host_changes (done, time, change) VALUES (0, $1, $2) RETURNING id", row => row.GetInt64(0), now.ToUnixTimeMilliseconds(), Serialize(change))[0];
        _entries[id] = new JournalEntry(id, now, false, change);
        T made;
        try
        {
            made = (T)change.Do(_host);
        }
        catch (Exception exception)
        {
            // What stood in the way is not ours to take away.
            if (exception is not (InterfaceExistsException or NetnsExistsException))
                change.Undo(_host);
            Forget(id);
            throw;
        }
        _entries[id] = new JournalEntry(id, now, true, made);
        _database.Execute("UPDATE host_changes SET done = 1, change = $1 WHERE id = $2", Serialize(made), id);
        return made;
    }

    /// <summary>Takes a change back and strikes it out.</summary>
    public void Undo(long id)
    {
        if (!_entries.TryGetValue(id, out JournalEntry? entry))
            return;
        entry.Change.Undo(_host);
        Forget(id);
    }

    /// <summary>Takes back, last first, all changes that are to be; goes on past one that fails, which stays in the journal.</summary>
    /// <returns>How many were undone, and what could not be.</returns>
    public (int Undone, IReadOnlyList<string> Failures) UndoAll(Func<JournalEntry, bool> which)
    {
        int undone = 0;
        var failures = new List<string>();
        foreach (JournalEntry entry in _entries.Values.Reverse().Where(which).ToList())
        {
            try
            {
                Undo(entry.Id);
                undone++;
            }
            catch (Exception exception)
            {
                failures.Add($"{entry.Change.Target}: {exception.Message}");
            }
        }
        return (undone, failures);
    }

    /// <summary>Strikes out what is gone without our doing.</summary>
    public void Forget(long id)
    {
        _database.Execute("DELETE FROM host_changes WHERE id = $1", id);
        _entries.Remove(id);
    }

    private static string Serialize(HostChange change) => JsonSerializer.Serialize(change, JournalFormat.Default.HostChange);

    private static HostChange Deserialize(string text) => JsonSerializer.Deserialize(text, JournalFormat.Default.HostChange) ?? throw new InvalidDataException("an empty change is in the journal");
}

// What a change only tells of itself is not stored.
[JsonSourceGenerationOptions(IgnoreReadOnlyProperties = true)]
[JsonSerializable(typeof(HostChange))]
internal sealed partial class JournalFormat : JsonSerializerContext;
