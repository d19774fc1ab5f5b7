using System.Diagnostics;
using VNetMesh.Agent.Guests;
using VNetMesh.Agent.Tests.Support;
using VNetMesh.V1;

namespace VNetMesh.Agent.Tests.Guests;

/// <summary>The guests' DHCP client, with the real switch and the real dhcp.</summary>
public sealed class DhcpClientTests
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_guest_is_addressed_and_stays_so_through_the_deaths_of_agent_client_and_server()
    {
        using HostLab lab = await StartAsync();
        string name = $"{lab.Prefix}-web1", resolver = $"/etc/netns/{name}/resolv.conf";
        Guest guest = await lab.AddGuestAsync("web1", wanted => wanted.NoDhcp = false, waitMs: 10_000);
        Assert.Equal(GuestState.Ready, guest.State);
        string address = Assert.Single(guest.Ipv4Addresses);
        Assert.StartsWith("192.168.108.", address, StringComparison.Ordinal);
        Assert.Contains("default via 192.168.108.2", HostLab.Ip(name, "route"), StringComparison.Ordinal);
        Assert.Contains("nameserver 192.168.108.2", await File.ReadAllTextAsync(resolver, Cancellation), StringComparison.Ordinal);
        // The kernel takes it back when the lease is over, should nobody else.
        Assert.Contains("dynamic", HostLab.Ip(name, "addr", "show", "eth0"), StringComparison.Ordinal);

        lab.Kill("Agent");
        lab.Start("Agent");
        await HostLab.UntilAsync("the client is adopted", async () => (await GetAsync(lab)).DhcpClientPid == guest.DhcpClientPid);

        lab.Kill("Dhcp");
        using (Process client = Process.GetProcessById((int)guest.DhcpClientPid))
            client.Kill();
        await HostLab.UntilAsync("another client runs", async () => (await GetAsync(lab)).DhcpClientPid is not 0 and var pid && pid != guest.DhcpClientPid);
        // Nobody answers it, and the lease still runs.
        await Task.Delay(1500, Cancellation);
        Assert.Equal([address], (await GetAsync(lab)).Ipv4Addresses);
        Assert.True(HostLab.Pings(name, "192.168.108.1"));
        lab.Start("Dhcp");

        int last = (int)(await GetAsync(lab)).DhcpClientPid;
        await lab.Agent.DeleteGuestAsync(new DeleteGuestRequest { Name = guest.Name }, cancellationToken: Cancellation);
        Assert.False(File.Exists(resolver) || Directory.Exists($"/proc/{last}") || File.Exists("/run/netns/" + name));
        Assert.Empty(Directory.EnumerateFiles(Path.Combine(lab.Scratch, "run", "agent")));
    }

    [Fact]
    public async Task A_guest_waits_for_a_server_and_is_addressed_when_it_comes()
    {
        using HostLab lab = await StartAsync();
        lab.Kill("Dhcp");
        Guest guest = await lab.AddGuestAsync("web1", wanted => wanted.NoDhcp = false, waitMs: 300);
        Assert.Equal((GuestState.Starting, 0), (guest.State, guest.Ipv4Addresses.Count));
        Assert.NotEqual(0u, guest.DhcpClientPid);
        lab.Start("Dhcp");
        await HostLab.UntilAsync("it has an address", async () => (await GetAsync(lab)).State == GuestState.Ready);
    }

    private static async Task<HostLab> StartAsync()
    {
        if (DhcpClient.FindProgram() is null)
            Assert.Skip(DhcpClient.MissingProgram);
        var lab = new HostLab();
        lab.Start("Switch");
        lab.Start("Dhcp");
        lab.Start("Agent");
        await lab.UntilAdaptersAsync();
        return lab;
    }

    private static async Task<Guest> GetAsync(HostLab lab) =>
        (await lab.Agent.GetGuestAsync(new GetGuestRequest { Name = $"guests/{lab.Prefix}-web1" }, cancellationToken: Cancellation)).Guest;
}
