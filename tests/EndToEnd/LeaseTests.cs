using System.Net;
using VNetMesh.EndToEnd.Tests.Harness;
using VNetMesh.V1;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>1. Real DHCP clients get addresses in range; leases survive kill -9 of dhcp, and are renewed.</summary>
public sealed class LeaseTests(SharedInstance shared) : SharedInstanceTest(shared)
{
    private DhcpService.DhcpServiceClient Dhcp => new(Instance.Channel("dhcp"));

    [Fact]
    public async Task Dhclient_and_udhcpc_get_addresses_in_range_on_vmnet8_and_vmnet1()
    {
        Require.Programs("dhclient", "busybox");
        await using TestGuest web1 = await Instance.AddGuestAsync("lease1", "vmnet8", "--no-dhcp");
        await using TestGuest web2 = await Instance.AddGuestAsync("lease2", "vmnet8", "--no-dhcp");
        await using TestGuest lab1 = await Instance.AddGuestAsync("lease3", "vmnet1", "--no-dhcp");
        await using DhcpClient first = DhcpClient.Dhclient(web1);
        await using DhcpClient second = DhcpClient.Udhcpc(web2);
        await using DhcpClient third = DhcpClient.Dhclient(lab1);
        IPAddress[] addresses = [await first.BoundAsync(), await second.BoundAsync(), await third.BoundAsync()];

        AssertInRange("192.168.108.", addresses[0]);
        AssertInRange("192.168.108.", addresses[1]);
        AssertInRange("192.168.101.", addresses[2]);
        Assert.NotEqual(addresses[0], addresses[1]);
        // Router and DNS are given on the NAT network, and none on the host-only one.
        Assert.Equal("192.168.108.2", first.Options["new_routers"]);
        Assert.Equal("192.168.108.2", first.Options["new_domain_name_servers"]);
        Assert.Equal("192.168.108.2", second.Options["router"]);
        Assert.Equal("1500", second.Options["mtu"]);
        Assert.Equal("1800", second.Options["lease"]);
        Assert.False(third.Options.ContainsKey("new_routers"));

        ListLeasesResponse leases = await Dhcp.ListLeasesAsync(new ListLeasesRequest { Parent = "networks/-" }, cancellationToken: Cancellation);
        foreach (IPAddress address in addresses)
            Assert.Single(leases.Leases, lease => lease.Ipv4Address == address.ToString() && lease.State == LeaseState.Bound);

        // On vmnet1 the other client as well: a lease by udhcpc on a host-only network.
        await using TestGuest lab2 = await Instance.AddGuestAsync("lease4", "vmnet1", "--no-dhcp");
        await using DhcpClient fourth = DhcpClient.Udhcpc(lab2);
        AssertInRange("192.168.101.", await fourth.BoundAsync());
    }

    [Fact]
    public async Task Leases_survive_kill_9_of_dhcp_and_renew()
    {
        Require.Programs("dhclient", "busybox");
        await using TestGuest web1 = await Instance.AddGuestAsync("keep1", "vmnet8", "--no-dhcp");
        await using TestGuest web2 = await Instance.AddGuestAsync("keep2", "vmnet8", "--no-dhcp");
        await using DhcpClient udhcpc = DhcpClient.Udhcpc(web1);
        await using DhcpClient dhclient = DhcpClient.Dhclient(web2);
        IPAddress kept = await udhcpc.BoundAsync();
        IPAddress rebooted = await dhclient.BoundAsync();
        Lease before = await BoundLeaseAsync(kept);

        await Instance.KillAsync("dhcp");

        // What was acknowledged was on disk: it is there again, to the same second.
        Lease after = await BoundLeaseAsync(kept);
        Assert.Equal((before.Mac, before.StartTime, before.ExpireTime), (after.Mac, after.StartTime, after.ExpireTime));

        // RENEWING: udhcpc asks again when told to.
        int events = udhcpc.Events;
        await Task.Delay(1100, Cancellation);
        NetworkNamespace.Kill(udhcpc.ProcessId, 10);
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "udhcpc renews its lease", () => udhcpc.Events > events);
        Assert.Equal("renew", udhcpc.Options["reason"]);
        Assert.Equal(kept, await web1.AddressAsync());
        Assert.True((await BoundLeaseAsync(kept)).ExpireTime.ToDateTime() > before.ExpireTime.ToDateTime(), "the lease was not prolonged");

        // INIT-REBOOT: dhclient, started again with the lease in its file, asks for the address that it had.
        await dhclient.DisposeAsync();
        await web2.RunAsync("ip", "addr", "flush", "dev", "eth0");
        await using DhcpClient again = DhcpClient.Dhclient(web2, dhclient.LeaseFile);
        Assert.Equal(rebooted, await again.BoundAsync());
        Assert.Equal("REBOOT", again.Options["reason"]);
    }

    private async Task<Lease> BoundLeaseAsync(IPAddress address)
    {
        ListLeasesResponse leases = await Dhcp.ListLeasesAsync(new ListLeasesRequest { Parent = "networks/vmnet8" }, cancellationToken: Cancellation);
        return Assert.Single(leases.Leases, lease => lease.Ipv4Address == address.ToString() && lease.State == LeaseState.Bound);
    }

    private static void AssertInRange(string prefix, IPAddress address)
    {
        Assert.StartsWith(prefix, address.ToString(), StringComparison.Ordinal);
        Assert.InRange(address.GetAddressBytes()[3], 128, 253);
    }
}
