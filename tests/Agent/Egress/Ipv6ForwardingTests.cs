using Microsoft.Extensions.Logging.Abstractions;
using VNetMesh.Agent.Devices;
using VNetMesh.Agent.Egress;
using VNetMesh.Agent.HostChanges;
using VNetMesh.Agent.Namespaces;
using VNetMesh.Agent.Tests.Support;
using VNetMesh.Hosting;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Tests.Egress;

/// <summary>Kernels without force_forwarding: the host as a whole must forward, and is as it was afterwards.</summary>
public sealed class Ipv6ForwardingTests
{
    private static readonly NetworkSpec Network = new("vmnet1", Ipv4Subnet.Parse("192.168.101.0/24"), false, Ipv4Address.Parse("192.168.101.1"), false, 1500, 1)
    {
        Egress = EgressMode.Snat,
        Ipv6Prefix = Ipv6Prefix.Parse("fd00:1:2:3::/64"),
    };

    [Fact]
    public void An_uplink_goes_on_taking_advertisements_and_all_is_as_it_was_in_the_end()
    {
        using var lab = new HostLab();
        // vmnet1 as its adapter, up0 as an uplink, and on0 that somebody made a router of.
        foreach (string link in (string[])["vmnet1", "up0", "on0"])
        {
            HostLab.Ip(lab.Host, "link", "add", link, "type", "veth", "peer", "name", link + "p");
            HostLab.Ip(lab.Host, "link", "set", link, "up");
        }
        HostLab.WithNetlink(lab.Host, _ =>
        {
            SysctlChange.Write("net.ipv6.conf.on0.forwarding", "1");
            SysctlChange.Write("net.ipv6.conf.on0.accept_ra", "0");
            string before = Settings();
            using AgentDatabase database = AgentDatabase.Open(Path.Combine(lab.Scratch, "journal"));
            using HostNamespaces namespaces = HostNamespaces.Find();
            var host = new HostAccess(namespaces);
            var journal = new ChangeJournal(database, host, TimeProvider.System);
            var keeper = new EgressKeeper(journal, host, new RuntimePaths(lab.Scratch, lab.Scratch), TimeProvider.System, NullLogger<EgressKeeper>.Instance) { ForcesNothing = true };

            keeper.Reconcile([Network], new HashSet<string> { "vmnet1" });
            Assert.True(Assert.Single(keeper.Statuses).IsActive);
            Assert.Equal(("1", "2", "0"), (SysctlChange.Read(Ipv6ForwardingChange.All), SysctlChange.Read("net.ipv6.conf.up0.accept_ra"), SysctlChange.Read("net.ipv6.conf.on0.accept_ra")));
            int changes = journal.Entries.Count;
            keeper.Reconcile([Network], new HashSet<string> { "vmnet1" });
            Assert.Equal(changes, journal.Entries.Count);

            keeper.Reconcile([Network with { Egress = EgressMode.None }], new HashSet<string> { "vmnet1" });
            Assert.Equal(before, Settings());
            Assert.Empty(journal.Entries);
            return true;
        });
    }

    [Fact]
    public void What_somebody_turned_on_meanwhile_stays_on()
    {
        using var lab = new HostLab();
        HostLab.Ip(lab.Host, "link", "add", "up0", "type", "veth", "peer", "name", "up0p");
        HostLab.WithNetlink(lab.Host, _ =>
        {
            var change = new ForwardingChange("agent", HostNamespaces.OwnIdentity(), "net.ipv4.conf.up0.forwarding", HostFacts.AllIpv4, SysctlChange.Read(HostFacts.AllIpv4));
            change.Do(null!);
            SysctlChange.Write("net.ipv4.ip_forward", "1");
            change.Undo(null!);
            Assert.Equal("1", SysctlChange.Read(change.Name));
            SysctlChange.Write("net.ipv4.ip_forward", "0");
            change.Do(null!);
            change.Undo(null!);
            Assert.Equal("0", SysctlChange.Read(change.Name));
            return true;
        });
    }

    /// <summary>Of all but our own adapter, which goes with its network.</summary>
    private static string Settings() => string.Join('\n', Directory.EnumerateDirectories("/proc/sys/net/ipv6/conf").Where(path => !path.EndsWith("vmnet1", StringComparison.Ordinal)).Order(StringComparer.Ordinal)
        .Select(path => $"{Path.GetFileName(path)}: {File.ReadAllText(path + "/forwarding").Trim()} {File.ReadAllText(path + "/accept_ra").Trim()}"));
}
