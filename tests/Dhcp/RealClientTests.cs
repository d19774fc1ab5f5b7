using VNetMesh.Dhcp.Tests.Support;
using VNetMesh.V1;

namespace VNetMesh.Dhcp.Tests;

/// <summary>udhcpc and dhclient against the executables, through a real switch.</summary>
public sealed class RealClientTests : IDisposable
{
    // A client may ask for a lease of seconds, so that its own timers renew within the test.
    private readonly Lab _lab = new("--VNETMESH_DHCP:ShortestLease=00:00:04");

    public void Dispose()
    {
        if (TestContext.Current.TestState?.Result == TestResult.Failed)
            TestContext.Current.TestOutputHelper?.WriteLine(_lab.Log);
        _lab.Dispose();
    }

    [Fact]
    public void Clients_bind_renew_survive_kill_9_reboot_and_release()
    {
        LabGuest one = _lab.AddGuest("one"), two = _lab.AddGuest("two");
        RealClient udhcpc = one.Udhcpc("-R");
        RealClient dhclient = two.Dhclient("send dhcp-lease-time 6;");
        Lab.Wait(15, "both are bound", () => udhcpc.Events.Length > 0 && dhclient.Events.Length > 0);
        Network network = _lab.Network;
        string prefix = network.Ipv4Subnet[..(network.Ipv4Subnet.LastIndexOf('.') + 1)];
        AssertInRange(prefix, udhcpc.Address);
        AssertInRange(prefix, dhclient.Address);
        Assert.NotEqual(udhcpc.Address, dhclient.Address);
        Assert.Equal((prefix + "2", prefix + "2", "1500", "1800", prefix + "254"),
            (udhcpc.Options["router"], udhcpc.Options["dns"], udhcpc.Options["mtu"], udhcpc.Options["lease"], udhcpc.Options["serverid"]));
        Assert.Equal((prefix + "2", "6", prefix + "255"), (dhclient.Options["new_routers"], dhclient.Options["new_dhcp_lease_time"], dhclient.Options["new_broadcast_address"]));
        Lease first = Bound(udhcpc.Address);
        Assert.Equal(one.Mac, first.Mac);
        // The server is there by ARP and by ping.
        Assert.Contains(" 0% packet loss", one.Exec($"ping -c 2 -i 0.2 -W 2 {prefix}254"), StringComparison.Ordinal);

        // RENEWING by the client's own timer, and when told to.
        DateTime lapse = Bound(dhclient.Address).ExpireTime.ToDateTime();
        Lab.Wait(10, "dhclient renews", () => dhclient.Events.Contains("RENEW"));
        Assert.True(Bound(dhclient.Address).ExpireTime.ToDateTime() > lapse);
        Renews(udhcpc, first);

        // kill -9: what was promised is there again, to the millisecond, and goes on.
        Lease before = Bound(udhcpc.Address);
        _lab.KillDhcp();
        _lab.StartDhcp();
        Lease after = Bound(udhcpc.Address);
        Assert.Equal((before.Mac, before.StartTime, before.ExpireTime), (after.Mac, after.StartTime, after.ExpireTime));
        Lab.Wait(10, "the port is up again", () => _lab.Pool.LinkUp);
        Renews(udhcpc, after);

        // The switch may die as well.
        _lab.RestartSwitch();
        Lab.Wait(10, "the port is up again", () => _lab.Pool.LinkUp);
        Renews(udhcpc, after);

        // The same address again, by DISCOVER or REBOOT as the short lease has ended or not; then INIT-REBOOT from the file.
        string kept = dhclient.Address;
        dhclient.Kill();
        RealClient again = two.Dhclient("send dhcp-lease-time 600;", dhclient.LeaseFile);
        Lab.Wait(15, "dhclient is bound again", () => again.Events.Length > 0);
        Assert.Equal(kept, again.Address);
        // dhclient runs its script before it writes the lease down.
        Lab.Wait(5, "the lease is in dhclient's file", () => File.ReadAllText(dhclient.LeaseFile).Contains("dhcp-lease-time 600"));
        again.Kill();
        RealClient rebooted = two.Dhclient("send dhcp-lease-time 600;", dhclient.LeaseFile);
        Lab.Wait(15, "dhclient reboots", () => rebooted.Events.Length > 0);
        Assert.Equal(("REBOOT", kept), (rebooted.Events[0], rebooted.Address));

        udhcpc.Signal("USR2");
        Lab.Wait(5, "the lease is released", () => _lab.Leases.Any(lease => lease.Ipv4Address == udhcpc.Address && lease.State == LeaseState.Released));
        // The same client gets the same address again.
        string old = udhcpc.Address;
        udhcpc.Kill();
        RealClient next = one.Udhcpc();
        Lab.Wait(15, "bound again", () => next.Events.Length > 0);
        Assert.Equal(old, next.Address);
    }

    [Fact]
    public void An_address_that_somebody_uses_without_a_lease_is_not_given_out()
    {
        Network network = _lab.Network;
        string prefix = network.Ipv4Subnet[..(network.Ipv4Subnet.LastIndexOf('.') + 1)];
        LabGuest squatter = _lab.AddGuest("one"), guest = _lab.AddGuest("two");
        squatter.Exec($"ip addr add {prefix}200/24 dev eth0");
        RealClient client = guest.Udhcpc("-r", prefix + "200");
        Lab.Wait(15, "bound", () => client.Events.Length > 0);
        Assert.NotEqual(prefix + "200", client.Address);
        AssertInRange(prefix, client.Address);
        Lease declined = Assert.Single(_lab.Leases, lease => lease.State == LeaseState.Declined);
        Assert.Equal((prefix + "200", squatter.Mac), (declined.Ipv4Address, declined.Mac));
        Assert.Equal(1u, _lab.Pool.Declined);
    }

    private void Renews(RealClient udhcpc, Lease before)
    {
        int events = udhcpc.Events.Length;
        Thread.Sleep(1000 - DateTime.UtcNow.Millisecond);
        udhcpc.Signal("USR1");
        Lab.Wait(10, "udhcpc renews", () => udhcpc.Events.Length > events);
        Assert.Equal("renew", udhcpc.Events[^1]);
        Lease after = Bound(udhcpc.Address);
        Assert.Equal(before.StartTime, after.StartTime);
        Assert.True(after.ExpireTime.ToDateTime() > before.ExpireTime.ToDateTime(), "the lease was not prolonged");
    }

    private Lease Bound(string address) => Assert.Single(_lab.Leases, lease => lease.Ipv4Address == address && lease.State == LeaseState.Bound);

    private static void AssertInRange(string prefix, string address)
    {
        Assert.StartsWith(prefix, address, StringComparison.Ordinal);
        Assert.InRange(int.Parse(address[prefix.Length..]), 128, 253);
    }
}
