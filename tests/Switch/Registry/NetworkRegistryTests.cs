using Microsoft.Extensions.Logging.Abstractions;
using VNetMesh.Declarations;
using VNetMesh.Switch.Registry;

namespace VNetMesh.Switch.Tests.Registry;

public sealed class NetworkRegistryTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("vnms").FullName;

    private string DatabasePath => Path.Combine(_directory, "registry.db");

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    [Fact]
    public void ANewDatabaseHasTheThreeNetworks()
    {
        using NetworkRegistry registry = Open();
        Assert.Equal(["vmnet0 Bridged  False", "vmnet1 HostOnly 192.168.101.0/24 True", "vmnet8 Nat 192.168.108.0/24 True"],
            registry.List().Select(network => $"{network.Id} {network.Kind} {network.Subnet} {network.SubnetAuto}"));
        NetworkDefinition nat = registry.Get("networks/vmnet8");
        Assert.Equal("192.168.108.1 192.168.108.2 192.168.108.128 192.168.108.253 192.168.108.254",
            string.Join(' ', nat.HostAddress, nat.Gateway, nat.Dhcp.RangeStart, nat.Dhcp.RangeEnd, nat.Dhcp.ServerAddress));
    }

    [Fact]
    public void ChangesSurviveAnAbruptEnd()
    {
        NetworkRegistry registry = Open();
        NetworkDefinition made = registry.Create(new NetworkDraft { Id = "lab", Kind = NetworkKind.HostOnly, MacAgeing = TimeSpan.FromSeconds(77), Dhcp = new DhcpDraft { Domain = "lab.example", DnsServers = ["10.0.0.53"] } });
        registry.Delete("networks/vmnet0", force: false, _ => []);
        NetworkDefinition changed = registry.Update("networks/vmnet1", 0, Set("mtu", "isolate_ports"), draft => draft with { Mtu = 9000, IsolatePorts = true });

        // What is on disk at this moment, without any closing: what a kill leaves behind.
        string copy = Directory.CreateDirectory(Path.Combine(_directory, "copy")).FullName;
        foreach (string suffix in new[] { "", "-wal" })
            File.Copy(DatabasePath + suffix, Path.Combine(copy, "registry.db" + suffix));
        registry.Dispose();
        using NetworkRegistry again = Open(Path.Combine(copy, "registry.db"));
        Assert.Equal(["lab", "vmnet1", "vmnet8"], again.List().Select(network => network.Id));
        Assert.True(StoredEqual(made, again.Get("networks/lab")));
        Assert.True(StoredEqual(changed, again.Get("networks/vmnet1")));
        Assert.True(again.Create(new NetworkDraft { Id = "next", Kind = NetworkKind.Isolated }).Revision > changed.Revision);
    }

    [Fact]
    public void DeletedSeedsDoNotComeBack()
    {
        using (NetworkRegistry registry = Open())
        {
            foreach (string id in new[] { "vmnet0", "vmnet1", "vmnet8" })
                registry.Delete("networks/" + id, force: false, _ => []);
        }
        using NetworkRegistry again = Open();
        Assert.Empty(again.List());
    }

    [Fact]
    public void RefusalsOfTheRegistry()
    {
        using NetworkRegistry registry = Open();
        Assert.Equal("NETWORK_NOT_FOUND", Reason(() => registry.Get("networks/none")));
        Assert.Equal("NETWORK_NOT_FOUND", Reason(() => registry.Get("vmnet8")));
        Assert.Equal("NETWORK_EXISTS", Reason(() => registry.Create(new NetworkDraft { Id = "vmnet8", Kind = NetworkKind.Nat })));
        Assert.Equal("NETWORK_IN_USE", Reason(() => registry.Delete("networks/vmnet8", force: false, _ => ["web1", "web2"])));
        Assert.Equal("KIND_IMMUTABLE", Reason(() => registry.Update("networks/vmnet8", 0, Set("kind"), draft => draft with { Kind = NetworkKind.HostOnly })));
        ulong revision = registry.Get("networks/vmnet8").Revision;
        Assert.Equal("REVISION_MISMATCH", Reason(() => registry.Update("networks/vmnet8", revision + 1, Set("mtu"), draft => draft with { Mtu = 1400 })));
        registry.Update("networks/vmnet8", revision, Set("mtu"), draft => draft with { Mtu = 1400 });
        Assert.Equal("REVISION_MISMATCH", Reason(() => registry.Update("networks/vmnet8", revision, Set("mtu"), draft => draft with { Mtu = 1300 })));
        registry.Delete("networks/vmnet8", force: true, _ => ["web1", "web2"]);
        for (int i = 0; i < NetworkPlanner.MaxNetworks - 2; i++)
            registry.Create(new NetworkDraft { Id = "n" + i, Kind = NetworkKind.Isolated });
        Assert.Equal("TOO_MANY_NETWORKS", Reason(() => registry.Create(new NetworkDraft { Id = "more", Kind = NetworkKind.Isolated })));
    }

    [Fact]
    public void AnUpdateThatChangesNothingIsNoChange()
    {
        using NetworkRegistry registry = Open();
        NetworkDefinition before = registry.Get("networks/vmnet8");
        Assert.Equal(before.Revision, registry.Update("networks/vmnet8", 0, Set("mtu"), draft => draft with { Mtu = 1500 }).Revision);
        Assert.Equal(before.Revision, registry.Feed.Revision);
    }

    [Fact]
    public void AnotherSubnetTakesTheAddressesAlong()
    {
        using NetworkRegistry registry = Open();
        NetworkDefinition given = registry.Update("networks/vmnet8", 0, Set("ipv4_subnet"), draft => draft with { Subnet = "10.8.0.0/24" });
        Assert.False(given.SubnetAuto);
        Assert.Equal("10.8.0.1 10.8.0.2 10.8.0.128 10.8.0.253 10.8.0.254 10.8.0.2 10.8.0.2",
            string.Join(' ', given.HostAddress, given.Gateway, given.Dhcp.RangeStart, given.Dhcp.RangeEnd, given.Dhcp.ServerAddress, given.Dhcp.DnsServers[0], given.Dhcp.Routers[0]));
        NetworkDefinition next = registry.Update("networks/vmnet1", 0, Set("ipv4_subnet"), draft => draft with { Subnet = "" });
        Assert.Equal(("192.168.102.0/24", true), (next.Subnet.ToString(), next.SubnetAuto));
        Assert.Equal("192.168.103.0/24", registry.Update("networks/vmnet1", 0, Set("ipv4_subnet"), draft => draft with { Subnet = "" }).Subnet.ToString());
        Assert.True(registry.Update("networks/vmnet1", 0, Set("ipv4_subnet", "ipv4_subnet_auto"), draft => draft with { Subnet = "10.9.0.0/24", SubnetAuto = true }).SubnetAuto);
        Assert.Equal("ADDRESS_OUTSIDE_SUBNET", Reason(() => registry.Update("networks/vmnet8", 0, Set("ipv4_subnet", "ipv4_gateway"), draft => draft with { Subnet = "10.7.0.0/24", Gateway = "10.8.0.9" })));
        Assert.Equal("10.8.0.9", registry.Update("networks/vmnet8", 0, Set("ipv4_gateway"), draft => draft with { Gateway = "10.8.0.9" }).Dhcp.Routers[0].ToString());
    }

    [Fact]
    public async Task TheFeedGoesOnFromWhereAWatcherWas()
    {
        using NetworkRegistry registry = Open();
        FeedBatch<NetworkDefinition> first = await registry.Feed.NextAsync(null, default);
        Assert.Equal(3, first.Snapshot!.Count);
        Task<FeedBatch<NetworkDefinition>> waiting = registry.Feed.NextAsync(first.Revision, default);
        Assert.False(waiting.IsCompleted);
        registry.Create(new NetworkDraft { Id = "lab", Kind = NetworkKind.Isolated });
        registry.Delete("networks/lab", false, _ => []);
        FeedBatch<NetworkDefinition> next = await waiting;
        FeedBatch<NetworkDefinition> both = await registry.Feed.NextAsync(first.Revision, default);
        Assert.Null(next.Snapshot);
        Assert.Equal([ChangeKind.Created, ChangeKind.Deleted], both.Changes.Select(change => change.Kind));
        Assert.Null((await registry.Feed.NextAsync(both.Changes[0].Revision, default)).Snapshot);
        Assert.NotNull((await registry.Feed.NextAsync(both.Revision + 5, default)).Snapshot);
    }

    [Fact]
    public async Task AWatcherThatFellBehindGetsASnapshot()
    {
        var gate = new Lock();
        var feed = new ChangeFeed<int>(gate, () => [42], history: 3);
        for (ulong i = 1; i <= 5; i++)
        {
            lock (gate)
                feed.Publish(ChangeKind.Updated, (int)i, i);
        }
        Assert.Equal([42], (await feed.NextAsync(1, default)).Snapshot!);
        Assert.Equal([3, 4, 5], (await feed.NextAsync(2, default)).Changes.Select(change => change.Item));
    }

    [Fact]
    public void AFileThatIsNoDatabaseIsSaidToBeNone()
    {
        File.WriteAllText(DatabasePath, new string('x', 5000));
        Assert.Contains("move it away", Assert.Throws<InvalidDataException>(() => new NetworkStore(DatabasePath)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void DeclaredNetworksAreMadeAndChangedAndMistakesAreSaid()
    {
        using NetworkRegistry registry = Open();
        var reconciler = new DeclarationReconciler(registry, NullLogger<DeclarationReconciler>.Instance);
        string file = Path.Combine(_directory, "vnetmesh.yaml");
        File.WriteAllText(file, "networks:\n  lab:\n    kind: host-only\n    ipv4_subnet: 10.20.0.0/24\n    mac_ageing: 10m\n    dhcpv4: { enabled: true, dns_servers: [10.20.0.1] }\n  vmnet8:\n    mtu: 9000\n  vmnet1:\n    ipv4_subnet: 10.20.0.0/16\n");
        reconciler.Reconcile(file);
        NetworkDefinition lab = registry.Get("networks/lab");
        Assert.Equal((600, "10.20.0.1"), ((int)lab.MacAgeing.TotalSeconds, lab.Dhcp.DnsServers[0].ToString()));
        Assert.Equal(9000, registry.Get("networks/vmnet8").Mtu);
        Assert.Contains("SUBNET_OVERLAPS", Assert.Single(registry.Get("networks/vmnet1").Conditions), StringComparison.Ordinal);
        Assert.Equal("192.168.101.0/24", registry.Get("networks/vmnet1").Subnet.ToString());

        ulong revision = registry.Feed.Revision;
        reconciler.Reconcile(file);
        Assert.Equal(revision, registry.Feed.Revision);

        File.WriteAllText(file, "networks:\n  lab:\n    mtu: [1\n");
        reconciler.Reconcile(file);
        Assert.All(registry.List(), network => Assert.Contains("line", Assert.Single(network.Conditions), StringComparison.Ordinal));
        Assert.Equal(4, registry.List().Count);
        File.Delete(file);
        reconciler.Reconcile(file);
        Assert.All(registry.List(), network => Assert.Empty(network.Conditions));
    }

    [Theory]
    [InlineData("networks:\n  a:\n    mtuu: 3", "line 3", "mtuu")]
    [InlineData("networks:\n  a:\n    mtu: x", "line 3", "number")]
    [InlineData("networks:\n  a:\n    kind: vlan", "line 3", "kind")]
    [InlineData("networks:\n  a:\n    dhcpv4:\n      lease: 3", "line 4", "lease")]
    [InlineData("networks:\n  a:\n    mac_ageing: 3w", "line 3", "time")]
    [InlineData("nets: {}", "line 1", "nets")]
    [InlineData("- a", "line 1", "mapping")]
    [InlineData("networks: {a: {mtu: 1, mtu: 2}}", "line 1", "")]
    public void AMistakeInTheFileIsNamedWithItsLine(string yaml, string line, string what)
    {
        string message = Assert.Throws<DeclarationException>(() => NetworkDeclarations.Parse(yaml)).Message;
        Assert.StartsWith(line, message, StringComparison.Ordinal);
        Assert.Contains(what, message, StringComparison.Ordinal);
    }

    private NetworkRegistry Open(string? path = null) => new(new NetworkStore(path ?? DatabasePath), TimeProvider.System, NullLogger<NetworkRegistry>.Instance);

    private static HashSet<string> Set(params string[] fields) => [.. fields];

    private static string Reason(Action action) => Assert.Throws<RegistryException>(action).Reason;

    private static bool StoredEqual(NetworkDefinition one, NetworkDefinition other) => StoredNetwork.ToJson(one) == StoredNetwork.ToJson(other);
}
