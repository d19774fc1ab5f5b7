using VNetMesh.Agent.Guests;
using VNetMesh.Agent.HostChanges;
using VNetMesh.Agent.Namespaces;

namespace VNetMesh.Agent.Tests.HostChanges;

public sealed class ChangeJournalTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("agent-journal-").FullName;
    private readonly HostAccess _host = new(HostNamespaces.Find());
    private int _copies;

    public void Dispose()
    {
        _host.Namespaces.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    [Fact]
    public void A_change_is_on_disk_before_it_is_made()
    {
        using AgentDatabase database = AgentDatabase.Open(Path.Combine(_directory, "state"));
        var journal = new ChangeJournal(database, _host, TimeProvider.System);
        string path = Path.Combine(_directory, "sub", "file");
        FileChange change = FileChange.Plan("agent", path);
        IReadOnlyList<JournalEntry> onDisk = [];
        Directory.CreateDirectory(Path.Combine(_directory, "sub"));
        var watched = new FileChange("agent", path, null, new Witness(change.MadeDirectories, () => onDisk = AfterAbruptEnd()));
        journal.Perform(watched);
        JournalEntry written = Assert.Single(onDisk);
        Assert.False(written.Done);
        Assert.Equal(path, written.Change.Target);
        Assert.True(Assert.Single(AfterAbruptEnd()).Done);
    }

    [Fact]
    public void Changes_are_undone_last_first_and_leave_nothing()
    {
        string path = Path.Combine(_directory, "a", "b", "file");
        using (AgentDatabase database = AgentDatabase.Open(Path.Combine(_directory, "state")))
        {
            var journal = new ChangeJournal(database, _host, TimeProvider.System);
            journal.Perform(new DirectoryChange("agent", Path.Combine(_directory, "a")));
            journal.Perform(FileChange.Plan("agent", path));
            File.WriteAllText(path, "changed since");
        }
        using (AgentDatabase database = AgentDatabase.Open(Path.Combine(_directory, "state")))
        {
            var journal = new ChangeJournal(database, _host, TimeProvider.System);
            Assert.All(journal.Entries, entry => Assert.True(entry.Done && entry.Change.IsStillThere(_host)));
            (int undone, IReadOnlyList<string> failures) = journal.UndoAll(_ => true);
            Assert.Equal(2, undone);
            Assert.Empty(failures);
            Assert.False(Directory.Exists(Path.Combine(_directory, "a")));
            Assert.Empty(journal.Entries);
            Assert.Equal((0, 0), (journal.UndoAll(_ => true).Undone, AfterAbruptEnd().Count));
        }
    }

    [Fact]
    public void A_file_that_was_there_gets_its_content_back()
    {
        string path = Path.Combine(_directory, "resolv.conf");
        File.WriteAllText(path, "nameserver 192.0.2.53\n");
        using AgentDatabase database = AgentDatabase.Open(Path.Combine(_directory, "state"));
        var journal = new ChangeJournal(database, _host, TimeProvider.System);
        journal.Perform(FileChange.Plan("guests/web1", path));
        File.WriteAllText(path, "nameserver 192.168.108.2\n");
        journal.UndoAll(_ => true);
        Assert.Equal("nameserver 192.0.2.53\n", File.ReadAllText(path));
    }

    [Fact]
    public void A_change_that_fails_leaves_no_entry()
    {
        using AgentDatabase database = AgentDatabase.Open(Path.Combine(_directory, "state"));
        var journal = new ChangeJournal(database, _host, TimeProvider.System);
        File.WriteAllText(Path.Combine(_directory, "file"), "");
        Assert.ThrowsAny<IOException>(() => journal.Perform(new DirectoryChange("agent", Path.Combine(_directory, "file", "below"))));
        Assert.Empty(journal.Entries);
        Assert.Empty(AfterAbruptEnd());
    }

    [Fact]
    public void Every_kind_of_change_comes_back_from_the_disk_as_it_went()
    {
        HostChange[] changes =
        [
            new LinkChange("guests/web1", "/run/netns/web1", "net:[1]", "eth0", "networks/vmnet8/ports/web1", "02:56:4e:00:00:01", 1500, 7),
            new AddressChange("networks/vmnet1", "net:[1]", "vmnet1", 3, "192.168.101.1", 24),
            new NetnsChange("guests/web1", "web1", "net:[2]"),
            new SysctlChange("agent", "net:[1]", "net.ipv4.ping_group_range", "1 0", "63108 63108"),
            new Ipv6AddressChange("networks/vmnet1", "net:[1]", "vmnet1", 3, "fd00::1", 64),
            new ForwardingChange("agent", "net:[1]", "net.ipv4.conf.eth0.forwarding", "net.ipv4.conf.all.forwarding", "0"),
            new NftTableChange("agent", "net:[1]", "vnetmesh-0", "table inet vnetmesh-0 {\n}\n", "keeps strangers out"),
        ];
        foreach (HostChange change in changes)
        {
            string text = System.Text.Json.JsonSerializer.Serialize(change);
            Assert.Equal(change, System.Text.Json.JsonSerializer.Deserialize<HostChange>(text));
        }
        var process = new ProcessChange("guests/web1", "/run/netns/web1", "net:[1]", "mark", ["udhcpc", "-f"], new Dictionary<string, string> { ["A"] = "b" }, 4711, 12345);
        var read = Assert.IsType<ProcessChange>(System.Text.Json.JsonSerializer.Deserialize<HostChange>(System.Text.Json.JsonSerializer.Serialize<HostChange>(process)));
        Assert.Equal((process.Pid, process.StartTime, process.Mark), (read.Pid, read.StartTime, read.Mark));
        Assert.Equal(process.CommandLine, read.CommandLine);
        Assert.Equal("b", read.Environment["A"]);
    }

    [Fact]
    public void Two_agents_cannot_have_the_same_state()
    {
        using AgentDatabase database = AgentDatabase.Open(Path.Combine(_directory, "state"));
        Assert.Throws<DatabaseInUseException>(() => AgentDatabase.Open(Path.Combine(_directory, "state")));
    }

    [Fact]
    public void Guests_are_kept()
    {
        var guest = new GuestSpec("web1", "vmnet8", "02:56:4e:00:00:01", "/run/netns/web1", "eth0", true, false, new DateTimeOffset(2024, 2, 29, 1, 2, 3, TimeSpan.Zero));
        using (AgentDatabase database = AgentDatabase.Open(Path.Combine(_directory, "state")))
            new GuestStore(database).Save(guest);
        using (AgentDatabase database = AgentDatabase.Open(Path.Combine(_directory, "state")))
        {
            var store = new GuestStore(database);
            Assert.Equal(guest, Assert.Single(store.List()));
            store.Delete("web1");
            Assert.Empty(store.List());
        }
    }

    /// <summary>The journal as a process finds it that starts after this one was killed now: the files as they are on disk.</summary>
    private IReadOnlyList<JournalEntry> AfterAbruptEnd()
    {
        string copy = Path.Combine(_directory, $"copy{_copies++}");
        Directory.CreateDirectory(copy);
        foreach (string file in Directory.EnumerateFiles(Path.Combine(_directory, "state"), "agent.db*"))
            File.Copy(file, Path.Combine(copy, Path.GetFileName(file)));
        using AgentDatabase database = AgentDatabase.Open(copy);
        return new ChangeJournal(database, _host, TimeProvider.System).Entries;
    }

    /// <summary>A list that tells when the change reads it to act upon it; the writing of the journal enumerates it first, once.</summary>
    private sealed class Witness(IReadOnlyList<string> inner, Action onAct) : IReadOnlyList<string>
    {
        private int _enumerations;

        public int Count => inner.Count;

        public string this[int index] => inner[index];

        public IEnumerator<string> GetEnumerator()
        {
            if (++_enumerations == 2)
                onAct();
            return inner.GetEnumerator();
        }

        System.Collections.IEnumerator System.Collections.IEnumerable.GetEnumerator() => GetEnumerator();
    }
}
