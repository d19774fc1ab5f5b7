using System.Diagnostics;
using Microsoft.Extensions.Logging.Abstractions;
using VNetMesh.Dhcp.Leases;
using VNetMesh.Dhcp.Protocol;
using static VNetMesh.Dhcp.Tests.Support.CoreScript;

namespace VNetMesh.Dhcp.Tests.Leases;

public sealed class LeaseStoreTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("vnmd").FullName;

    private string Database => Path.Combine(_directory, "leases.db");

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    private static Lease LeaseAt(int last, LeaseState state = LeaseState.Bound, string network = "networks/test") => new()
    {
        Network = network,
        Address = Address(last),
        State = state,
        Client = new ClientKey("id:" + last),
        Mac = Mac(last),
        ClientId = "ff01",
        HostName = "web1",
        Start = DateTimeOffset.FromUnixTimeMilliseconds(1_800_000_000_123),
        Expire = DateTimeOffset.FromUnixTimeMilliseconds(1_800_001_800_123),
        Reserved = last % 2 == 0,
    };

    private static LeaseWrite Put(params Lease[] leases) => new(leases, []);

    [Fact]
    public void What_was_written_is_read_by_the_next()
    {
        var reservation = new Reservation { Network = "networks/test", Id = "a", Address = Address(9), Mac = Mac(1), ClientId = "ff", HostName = "h" };
        var other = new Reservation { Network = "networks/test", Id = "b", Address = Address(8), ClientId = "ee" };
        using (var store = new LeaseStore(Database))
        {
            store.Write([Put(LeaseAt(1), LeaseAt(2)), Put(LeaseAt(1, LeaseState.Released)), new LeaseWrite([LeaseAt(3, network: "networks/other")], [("networks/test", Address(2))])]);
            store.WriteReservation(reservation);
            store.WriteReservation(other);
        }
        using (var store = new LeaseStore(Database))
        {
            Assert.Equal([LeaseAt(3, network: "networks/other"), LeaseAt(1, LeaseState.Released)], store.ReadLeases(null));
            Assert.Equal([LeaseAt(1, LeaseState.Released)], store.ReadLeases("networks/test"));
            Assert.Equal([reservation, other], store.ReadReservations(null));
            store.DeleteReservation("networks/test", "a");
            Assert.Equal([other], store.ReadReservations("networks/test"));
            store.DeleteNetwork("networks/other");
            Assert.Equal([LeaseAt(1, LeaseState.Released)], store.ReadLeases(null));
            store.Write([Put(LeaseAt(3))]);
            store.Purge(LeaseAt(1).Expire);
            Assert.Equal(2, store.ReadLeases(null).Count);
            store.Purge(LeaseAt(1).Expire.AddMilliseconds(1));
            Assert.Empty(store.ReadLeases(null));
        }
    }

    [Fact]
    public void A_copy_taken_without_closing_holds_all_that_was_committed()
    {
        string copy = Path.Combine(_directory, "copy.db");
        using (var store = new LeaseStore(Database))
        {
            store.Write([Put(LeaseAt(1))]);
            store.Write([Put(LeaseAt(2))]);
            // As a disk after a loss of power: the files as they are, and nobody to tidy up.
            File.Copy(Database, copy);
            File.Copy(Database + "-wal", copy + "-wal");
        }
        using var after = new LeaseStore(copy);
        Assert.Equal([LeaseAt(1), LeaseAt(2)], after.ReadLeases(null));
    }

    [Fact]
    public void A_torn_end_of_the_log_loses_no_earlier_commit()
    {
        string copy = Path.Combine(_directory, "copy.db");
        using (var store = new LeaseStore(Database))
        {
            store.Write([Put(LeaseAt(1))]);
            long committed = new FileInfo(Database + "-wal").Length;
            store.Write([Put(LeaseAt(2))]);
            File.Copy(Database, copy);
            byte[] log = File.ReadAllBytes(Database + "-wal");
            File.WriteAllBytes(copy + "-wal", log[..(int)((committed + log.Length) / 2)]);
        }
        using var after = new LeaseStore(copy);
        Assert.Equal([LeaseAt(1)], after.ReadLeases(null));
    }

    [Fact]
    public async Task A_full_disk_fails_the_write_and_only_that()
    {
        using var store = new LeaseStore(Database);
        store.Write([Put(LeaseAt(1))]);
        store.LimitPages(6);
        using var writer = new StoreWriter(store, NullLogger.Instance);
        var failed = new TaskCompletionSource<IOException?>();
        Lease[] many = [.. Enumerable.Range(2, 240).Select(last => LeaseAt(last) with { HostName = new string('h', 200) })];
        Assert.True(writer.TryWrite(Put(many), failed.SetResult));
        IOException? failure = await failed.Task;
        Assert.Contains("full", failure?.Message, StringComparison.Ordinal);
        await writer.RunAsync(opened => Assert.Equal([LeaseAt(1)], opened.ReadLeases(null)));
        await Assert.ThrowsAsync<IOException>(() => writer.RunAsync(opened => opened.Write([Put(many)])));
        await writer.RunAsync(opened => opened.LimitPagesOf(100_000));
        var written = new TaskCompletionSource<IOException?>();
        Assert.True(writer.TryWrite(Put(many), written.SetResult));
        Assert.Null(await written.Task);
    }

    [Fact]
    public async Task What_comes_together_is_written_together_and_in_order()
    {
        var store = new SlowStore();
        using (var writer = new StoreWriter(store, NullLogger.Instance))
        {
            var last = new TaskCompletionSource<IOException?>();
            for (int i = 1; i <= 100; i++)
                Assert.True(writer.TryWrite(Put(LeaseAt(i)), i == 100 ? last.SetResult : null));
            Assert.Null(await last.Task);
        }
        Assert.Equal(Enumerable.Range(1, 100).Select(Address), store.Batches.SelectMany(batch => batch).SelectMany(write => write.Upserts).Select(lease => lease.Address));
        Assert.True(store.Batches.Count <= 5, $"{store.Batches.Count} commits");
    }

    [Fact]
    public void A_full_queue_refuses()
    {
        var store = new SlowStore { Gate = new ManualResetEventSlim() };
        using var writer = new StoreWriter(store, NullLogger.Instance);
        int taken = Enumerable.Range(0, 6000).Count(i => writer.TryWrite(Put(LeaseAt(1)), null));
        Assert.InRange(taken, 4096, 4096 + 513);
        store.Gate.Set();
    }

    [Fact]
    public void Foreign_and_later_databases_are_refused()
    {
        File.WriteAllText(Database, new string('x', 5000));
        Assert.Throws<InvalidDataException>(() => new LeaseStore(Database));
        File.Delete(Database);
        using (var connection = new Microsoft.Data.Sqlite.SqliteConnection($"Data Source={Database};Pooling=False"))
        {
            connection.Open();
            using Microsoft.Data.Sqlite.SqliteCommand command = connection.CreateCommand();
            command.CommandText = "PRAGMA user_version = 99";
            command.ExecuteNonQuery();
        }
        Assert.Contains("later version", Assert.Throws<InvalidDataException>(() => new LeaseStore(Database)).Message, StringComparison.Ordinal);
    }

    private sealed class SlowStore : ILeaseStore
    {
        public List<LeaseWrite[]> Batches { get; } = [];
        public ManualResetEventSlim Gate { get; init; } = new(true);

        public void Write(IReadOnlyList<LeaseWrite> writes)
        {
            Gate.Wait(TimeSpan.FromSeconds(10));
            Thread.Sleep(20);
            Batches.Add([.. writes]);
        }

        public List<Lease> ReadLeases(string? network) => [];

        public List<Reservation> ReadReservations(string? network) => [];

        public void WriteReservation(Reservation reservation) => throw new UnreachableException();

        public void DeleteReservation(string network, string id) => throw new UnreachableException();

        public void DeleteNetwork(string network) => throw new UnreachableException();

        public void Purge(DateTimeOffset endedBefore) => throw new UnreachableException();

        public void Dispose()
        {
        }
    }
}

internal static class LeaseStoreExtensions
{
    public static void LimitPagesOf(this ILeaseStore store, int pages) => ((LeaseStore)store).LimitPages(pages);
}
