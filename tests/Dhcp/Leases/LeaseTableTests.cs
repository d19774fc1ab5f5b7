using CsCheck;
using VNetMesh.Dhcp.Leases;
using VNetMesh.Dhcp.Protocol;
using VNetMesh.Dhcp.Tests.Support;
using VNetMesh.Packets;
using static VNetMesh.Dhcp.Tests.Support.CoreScript;

namespace VNetMesh.Dhcp.Tests.Leases;

/// <summary>Whatever clients do, in whatever order: what must hold of the table holds.</summary>
public sealed class LeaseTableTests
{
    private static readonly Gen<(int Client, int Action, int Address, int Seconds)> Step =
        Gen.Select(Gen.Int[1, 8], Gen.Int[0, 8], Gen.Int[126, 134], Gen.Int[0, 700]);

    [Fact]
    public void Invariants_hold_after_any_script() => Step.Array[0, 80].Sample(steps =>
    {
        var script = new CoreScript(settings: Settings with { RangeStart = Address(128), RangeEnd = Address(132) });
        var shown = new Dictionary<Ipv4Address, LeaseState>();
        var promised = new Dictionary<Ipv4Address, (int Client, DateTimeOffset Until)>();
        foreach ((int client, int action, int last, int seconds) in steps)
        {
            Ipv4Address address = Address(last);
            Decision? decision = action switch
            {
                0 or 1 => script.Discover(client, address),
                2 => script.Select(client, script.Core.Table.HoldOf(new ClientKey("hw:" + client))?.Address ?? address),
                3 => script.Reboot(client, address),
                4 => script.Renew(client, address),
                5 => script.Decline(client, address),
                6 => script.Release(client, script.Core.Table.LeaseOf(new ClientKey("hw:" + client))?.Address ?? address),
                _ => null,
            };
            if (decision is { Kind: DecisionKind.Ack, Lease: { } lease })
            {
                // An address that was promised to one client is never promised to another before its time.
                if (promised.TryGetValue(lease.Address, out (int Client, DateTimeOffset Until) before))
                    Assert.True(before.Client == client || before.Until <= script.Now);
                foreach (Ipv4Address other in promised.Where(entry => entry.Value.Client == client).Select(entry => entry.Key).ToArray())
                    promised.Remove(other);
                promised[lease.Address] = (client, lease.Expire);
            }
            else if (decision is { Kind: DecisionKind.Release or DecisionKind.Decline })
                promised.Remove(decision.Address);
            else if (decision is null)
                script.After(TimeSpan.FromSeconds(seconds));
            foreach ((LeaseChangeKind kind, Ipv4Address changed, LeaseState state) in script.Changes)
            {
                // The changes, applied to what was there, make what is there.
                Assert.Equal(kind == LeaseChangeKind.Created, !shown.ContainsKey(changed));
                if (kind == LeaseChangeKind.Deleted)
                    shown.Remove(changed);
                else
                    shown[changed] = state;
            }
            script.Changes.Clear();
            LeaseTable table = script.Core.Table;
            Dictionary<Ipv4Address, LeaseState> views = table.Views.ToDictionary(view => view.Address, view => view.State);
            Assert.Equal(views.OrderBy(pair => pair.Key), shown.OrderBy(pair => pair.Key));
            Assert.Equal((views.Values.Count(state => state == LeaseState.Bound), views.Values.Count(state => state == LeaseState.Offered), views.Values.Count(state => state == LeaseState.Declined)),
                (table.Bound, table.Offered, table.Declined));
            Assert.True(table.Count <= 5);
            Assert.All(table.Entries, entry => Assert.True(entry.Address >= Address(128) && entry.Address <= Address(132)));
            Assert.Equal(table.Views.Count(view => view.State == LeaseState.Bound), table.Views.Where(view => view.State == LeaseState.Bound).Select(view => view.Client).Distinct().Count());
        }
    }, iter: 600);

    [Fact]
    public void Renewals_and_repeated_offers_cost_no_memory()
    {
        var script = new CoreScript(new DhcpOptions { ProbeTime = TimeSpan.Zero });
        Ipv4Address address = script.Bind(1);
        for (int i = 0; i < 20_000; i++)
        {
            script.After(TimeSpan.FromSeconds(17));
            script.Discover(1);
            script.Renew(1, address);
        }
        Assert.True(script.Core.Table.QueuedTimes <= 68, script.Core.Table.QueuedTimes.ToString());
        Assert.Equal((1, 1), (script.Core.Table.Bound, script.Core.Table.Count));
    }
}
