using System.Diagnostics;
using Grpc.Core;
using VNetMesh.Agent.Guests;
using VNetMesh.Agent.HostChanges;
using VNetMesh.Agent.Namespaces;
using VNetMesh.Agent.Tests.Support;
using VNetMesh.Hosting;
using VNetMesh.V1;

namespace VNetMesh.Agent.Tests;

/// <summary>The agent as it is run, with the real switch, in a namespace that plays the host.</summary>
public sealed class AgentProcessTests
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task The_host_has_its_adapters_and_release_takes_them_away()
    {
        using HostLab lab = await StartAsync();
        Assert.Contains("inet 192.168.101.1/24", HostLab.Ip(lab.Host, "addr", "show", "vmnet1"), StringComparison.Ordinal);
        Assert.Contains("inet 192.168.108.1/24", HostLab.Ip(lab.Host, "addr", "show", "vmnet8"), StringComparison.Ordinal);
        Assert.Equal("63108 63108", PingGroupRange(lab));
        var changes = (await lab.Agent.ListHostChangesAsync(new ListHostChangesRequest(), cancellationToken: Cancellation)).Changes;
        Assert.Equal(5, changes.Count);
        Assert.Equal("1 0", Assert.Single(changes, change => change.Kind == HostChangeKind.Sysctl).Before);

        Assert.Equal(5u, (await lab.Agent.ReleaseAllAsync(new ReleaseAllRequest(), cancellationToken: Cancellation)).Undone);
        Assert.Equal(0, HostLab.IndexOf(lab.Host, "vmnet1") + HostLab.IndexOf(lab.Host, "vmnet8"));
        Assert.Equal("1 0", PingGroupRange(lab));
        Assert.Equal("AGENT_RELEASED", await ReasonAsync(() => lab.AddGuestAsync("web1")));
        Assert.Empty((await lab.Ports.ListPortsAsync(new ListPortsRequest { Parent = "networks/-" }, cancellationToken: Cancellation)).Ports);
    }

    [Fact]
    public async Task Adapters_follow_their_networks()
    {
        using HostLab lab = await StartAsync();
        await lab.Networks.CreateNetworkAsync(new CreateNetworkRequest { NetworkId = "lab", Network = new Network { Kind = NetworkKind.HostOnly, Ipv4Subnet = "10.55.0.0/24", Mtu = 1400 } }, cancellationToken: Cancellation);
        await HostLab.UntilAsync("lab is there", () => Task.FromResult(Show(lab, "lab").Contains("inet 10.55.0.1/24", StringComparison.Ordinal)));
        Assert.Contains("mtu 1400", Show(lab, "lab"), StringComparison.Ordinal);
        int index = HostLab.IndexOf(lab.Host, "lab");

        await lab.Networks.UpdateNetworkAsync(new UpdateNetworkRequest { Network = new Network { Name = "networks/lab", Ipv4Subnet = "10.66.0.0/16", Mtu = 1300 }, UpdateMask = new() { Paths = { "ipv4_subnet", "mtu" } } }, cancellationToken: Cancellation);
        await HostLab.UntilAsync("lab is re-addressed", () => Task.FromResult(Show(lab, "lab").Contains("inet 10.66.0.1/16", StringComparison.Ordinal)));
        Assert.Contains("mtu 1300", Show(lab, "lab"), StringComparison.Ordinal);
        Assert.DoesNotContain("10.55", Show(lab, "lab"), StringComparison.Ordinal);
        Assert.Equal(index, HostLab.IndexOf(lab.Host, "lab"));

        await lab.Networks.DeleteNetworkAsync(new DeleteNetworkRequest { Name = "networks/lab", Force = true }, cancellationToken: Cancellation);
        await HostLab.UntilAsync("lab is gone", () => Task.FromResult(HostLab.IndexOf(lab.Host, "lab") == 0));
    }

    [Fact]
    public async Task Somebody_elses_device_of_that_name_is_left_alone()
    {
        using var lab = new HostLab();
        HostLab.Ip(lab.Host, "link", "add", "vmnet1", "type", "veth", "peer", "name", "lan1");
        int foreign = HostLab.IndexOf(lab.Host, "vmnet1");
        lab.Start("Switch");
        lab.Start("Agent");
        await HostLab.UntilAsync("the device bears a condition", async () =>
            (await lab.Agent.ListDevicesAsync(new ListDevicesRequest(), cancellationToken: Cancellation)).Devices.Any(device => device.Interface == "vmnet1" && device.Condition.Contains("did not make", StringComparison.Ordinal)));
        Assert.Equal(0, await ReleaseAsync(lab));
        Assert.Equal(foreign, HostLab.IndexOf(lab.Host, "vmnet1"));
        Assert.Equal(0, HostLab.IndexOf(lab.Host, "vmnet8"));
    }

    [Fact]
    public async Task A_subnet_that_the_host_routes_is_replaced_by_the_next_free_one()
    {
        using var lab = new HostLab();
        HostLab.Ip(lab.Host, "link", "add", "lan0", "type", "veth", "peer", "name", "lan1");
        HostLab.Ip(lab.Host, "addr", "add", "192.168.108.77/24", "dev", "lan0");
        HostLab.Ip(lab.Host, "link", "set", "lan0", "up");
        HostLab.Ip(lab.Host, "route", "add", "192.168.109.0/24", "dev", "lan0");
        lab.Start("Switch");
        lab.Start("Agent");
        await lab.UntilAdaptersAsync();
        Network vmnet8 = (await lab.Networks.GetNetworkAsync(new GetNetworkRequest { Name = "networks/vmnet8" }, cancellationToken: Cancellation)).Network;
        Assert.Equal(("192.168.110.0/24", "192.168.110.1", true), (vmnet8.Ipv4Subnet, vmnet8.Ipv4HostAddress, vmnet8.Ipv4SubnetAuto));
        Assert.Contains("inet 192.168.110.1/24", Show(lab, "vmnet8"), StringComparison.Ordinal);

        // One that the user chose is his: it is said, and not changed.
        await lab.Networks.CreateNetworkAsync(new CreateNetworkRequest { NetworkId = "mine", Network = new Network { Kind = NetworkKind.HostOnly, Ipv4Subnet = "192.168.109.0/24" } }, cancellationToken: Cancellation);
        await HostLab.UntilAsync("the device bears a condition", async () =>
            (await lab.Agent.ListDevicesAsync(new ListDevicesRequest(), cancellationToken: Cancellation)).Devices.Any(device => device.Interface == "mine" && device.Condition.Contains("192.168.109.0/24", StringComparison.Ordinal)));
        Assert.DoesNotContain("inet ", Show(lab, "mine"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Two_guests_ping_each_other_through_every_death_and_keep_their_devices()
    {
        using HostLab lab = await StartAsync();
        string web1 = $"{lab.Prefix}-web1", web2 = $"{lab.Prefix}-web2";
        Guest made = await lab.AddGuestAsync("web1", waitMs: 5000);
        Assert.Equal((GuestState.Ready, "/run/netns/" + web1, true), (made.State, made.Netns, made.NetnsCreated));
        await lab.AddGuestAsync("web2", waitMs: 5000);
        HostLab.Ip(web1, "addr", "add", "192.168.108.11/24", "dev", "eth0");
        HostLab.Ip(web2, "addr", "add", "192.168.108.12/24", "dev", "eth0");
        Assert.True(HostLab.Pings(web1, "192.168.108.12"));
        Assert.True(HostLab.Pings(web1, "192.168.108.1"));
        (int, int, int) devices = Indices();

        lab.Kill("Agent");
        Assert.True(HostLab.Pings(web1, "192.168.108.12")); // the switch goes on without it
        lab.Start("Agent");
        await lab.UntilAdaptersAsync();
        await AssertWorksAsync();

        lab.Kill("Switch"); // of the agent that adopted its devices and holds queues that were set aside
        lab.Start("Switch");
        await AssertWorksAsync();

        lab.Kill("Switch");
        lab.Kill("Agent");
        lab.Start("Agent");
        lab.Start("Switch");
        await AssertWorksAsync();

        lab.Kill("Agent");
        Assert.Equal(0, lab.ReleaseByHand());
        Assert.False(File.Exists("/run/netns/" + web1) || File.Exists("/run/netns/" + web2));
        Assert.DoesNotContain("vmnet", HostLab.Ip(lab.Host, "link", "show"), StringComparison.Ordinal);

        (int, int, int) Indices() => (HostLab.IndexOf(web1, "eth0"), HostLab.IndexOf(web2, "eth0"), HostLab.IndexOf(lab.Host, "vmnet8"));

        async Task AssertWorksAsync()
        {
            await HostLab.UntilAsync("guests ping again", () => Task.FromResult(HostLab.Pings(web1, "192.168.108.12") && HostLab.Pings(web1, "192.168.108.1")));
            Assert.Equal(devices, Indices());
        }
    }

    [Fact]
    public async Task What_belongs_to_no_guest_after_a_crash_is_undone()
    {
        using HostLab lab = await StartAsync();
        await lab.AddGuestAsync("web1");
        lab.Kill("Agent");
        // The agent as it would have died between forgetting a guest and undoing it.
        using (var database = AgentDatabase.Open(Path.Combine(lab.Scratch, "state", "agent")))
            new GuestStore(database).Delete($"{lab.Prefix}-web1");
        lab.Start("Agent");
        await HostLab.UntilAsync("the namespace is gone", () => Task.FromResult(!File.Exists($"/run/netns/{lab.Prefix}-web1")));
        await HostLab.UntilAsync("the port is gone", async () => (await lab.Ports.ListPortsAsync(new ListPortsRequest { Parent = "networks/vmnet8" }, cancellationToken: Cancellation)).Ports.All(port => port.Owner != "agent" || port.Role == PortRole.Host));
    }

    [Fact]
    public async Task A_namespace_of_others_is_used_and_not_removed()
    {
        using HostLab lab = await StartAsync();
        string box = lab.AddNamespace("box");
        Guest byName = await lab.AddGuestAsync("c1", guest => (guest.Netns, guest.Interface) = (box, "vn0"), 5000);
        Assert.Equal((GuestState.Ready, false), (byName.State, byName.NetnsCreated));
        using Process sleeper = Process.Start("nsenter", [$"--net=/run/netns/{box}", "--", "sleep", "100"]);
        try
        {
            await HostLab.UntilAsync("it is in there", () => Task.FromResult(new FileInfo($"/proc/{sleeper.Id}/ns/net").LinkTarget != new FileInfo("/proc/self/ns/net").LinkTarget));
            Guest byPid = await lab.AddGuestAsync("c2", guest => (guest.Netns, guest.Interface) = (sleeper.Id.ToString(), "vn1"), 5000);
            Assert.Equal($"/proc/{sleeper.Id}/ns/net", byPid.Netns);
            Assert.NotEqual(0, HostLab.IndexOf(box, "vn1"));
            Assert.Equal("INTERFACE_EXISTS", await ReasonAsync(() => lab.AddGuestAsync("c3", guest => (guest.Netns, guest.Interface) = (box, "vn0"))));
        }
        finally
        {
            sleeper.Kill();
        }
        await HostLab.UntilAsync("the process's end is noticed", async () => (await GetAsync(lab, "c2")) is { State: GuestState.Degraded, Conditions.Count: 1 });
        await lab.Agent.DeleteGuestAsync(new DeleteGuestRequest { Name = byName.Name }, cancellationToken: Cancellation);
        Assert.Equal(0, HostLab.IndexOf(box, "vn0") + HostLab.IndexOf(box, "vn1"));
        Assert.True(File.Exists("/run/netns/" + box));
    }

    [Fact]
    public async Task A_namespace_that_vanished_is_noticed_and_its_device_let_go()
    {
        using HostLab lab = await StartAsync();
        Guest guest = await lab.AddGuestAsync("web1", waitMs: 5000);
        Command.Run("ip", "netns", "delete", $"{lab.Prefix}-web1");
        await HostLab.UntilAsync("it is noticed", async () => (await GetAsync(lab, "web1")).State == GuestState.Degraded, seconds: 3);
        Assert.Contains("removed", Assert.Single((await GetAsync(lab, "web1")).Conditions), StringComparison.Ordinal);
        Assert.DoesNotContain((await lab.Agent.ListDevicesAsync(new ListDevicesRequest(), cancellationToken: Cancellation)).Devices, device => device.Kind == DeviceKind.GuestTap);
        await lab.Agent.DeleteGuestAsync(new DeleteGuestRequest { Name = guest.Name }, cancellationToken: Cancellation);
        Assert.Equal(GuestState.Ready, (await lab.AddGuestAsync("web1", waitMs: 5000)).State);
    }

    [Fact]
    public async Task What_cannot_be_had_is_refused_with_a_reason_and_leaves_nothing()
    {
        using HostLab lab = await StartAsync();
        string box = lab.AddNamespace("box");
        await lab.AddGuestAsync("web1");
        Assert.Equal("GUEST_EXISTS", await ReasonAsync(() => lab.AddGuestAsync("web1")));
        Assert.Equal("NETNS_EXISTS", await ReasonAsync(() => lab.AddGuestAsync("box")));
        Assert.Equal("NETNS_NOT_FOUND", await ReasonAsync(() => lab.AddGuestAsync("web2", guest => guest.Netns = "/run/netns/" + lab.Prefix + "-none")));
        Assert.Equal("NETNS_NOT_FOUND", await ReasonAsync(() => lab.AddGuestAsync("web2", guest => guest.Netns = "/etc/hostname")));
        string fifo = Path.Combine(lab.Scratch, "fifo");
        Command.Run("mkfifo", fifo);
        Assert.Equal("NETNS_NOT_FOUND", await ReasonAsync(() => lab.AddGuestAsync("web2", guest => guest.Netns = fifo)));
        Assert.Equal("NETNS_INVALID", await ReasonAsync(() => lab.AddGuestAsync("web2", guest => guest.Netns = lab.Host)));
        Assert.Equal("NETWORK_NOT_FOUND", await ReasonAsync(() => lab.AddGuestAsync("web2", guest => guest.Network = "networks/none")));
        Assert.Equal("GUEST_NOT_FOUND", await ReasonAsync(async () => await lab.Agent.DeleteGuestAsync(new DeleteGuestRequest { Name = "guests/none" }, cancellationToken: Cancellation)));
        Assert.True(File.Exists("/run/netns/" + box));
        Assert.Single((await lab.Agent.ListGuestsAsync(new ListGuestsRequest(), cancellationToken: Cancellation)).Guests);
        Assert.All((await lab.Agent.ListHostChangesAsync(new ListHostChangesRequest(), cancellationToken: Cancellation)).Changes,
            change => Assert.Contains(change.Owner, (string[])["agent", "networks/vmnet1", "networks/vmnet8", $"guests/{lab.Prefix}-web1"]));
        lab.Kill("Switch");
        // One that is asked for in the moment before is made, and waits for the switch.
        int attempt = 2;
        await HostLab.UntilAsync("the switch is missed", async () => await ReasonAsync(() => lab.AddGuestAsync($"web{attempt++}")) == "SWITCH_UNAVAILABLE");
    }

    [Fact]
    public async Task A_stopped_agent_ends_its_watches_and_leaves_all_devices()
    {
        using HostLab lab = await StartAsync();
        using AsyncServerStreamingCall<WatchGuestsResponse> watch = lab.Agent.WatchGuests(new WatchGuestsRequest(), cancellationToken: Cancellation);
        Assert.True(await watch.ResponseStream.MoveNext(Cancellation));
        Assert.Empty(watch.ResponseStream.Current.Snapshot.Guests);
        Guest guest = await lab.AddGuestAsync("web1", waitMs: 5000);
        Assert.True(await watch.ResponseStream.MoveNext(Cancellation));
        Assert.Equal((ChangeType.Created, guest.Name), (watch.ResponseStream.Current.Change.Type, watch.ResponseStream.Current.Change.Guest.Name));

        int before = HostLab.IndexOf($"{lab.Prefix}-web1", "eth0");
        Assert.True(lab.Stop("Agent", TimeSpan.FromSeconds(5)));
        Assert.Equal("AGENT_STOPPING", await ReasonAsync(async () =>
        {
            while (await watch.ResponseStream.MoveNext(Cancellation))
            {
                // Changes that came before the end.
            }
            return true;
        }));
        Assert.Equal(before, HostLab.IndexOf($"{lab.Prefix}-web1", "eth0"));
        Assert.NotEqual(0, HostLab.IndexOf(lab.Host, "vmnet8"));
        Assert.DoesNotContain("NO-CARRIER", HostLab.Ip($"{lab.Prefix}-web1", "link", "show", "eth0"), StringComparison.Ordinal); // the switch has it still
    }

    private static async Task<HostLab> StartAsync()
    {
        var lab = new HostLab();
        try
        {
            lab.Start("Switch");
            lab.Start("Agent");
            await lab.UntilAdaptersAsync();
            return lab;
        }
        catch
        {
            lab.Dispose();
            throw;
        }
    }

    private static async Task<int> ReleaseAsync(HostLab lab)
    {
        lab.Kill("Agent");
        await Task.Yield();
        return lab.ReleaseByHand();
    }

    private static async Task<Guest> GetAsync(HostLab lab, string id) =>
        (await lab.Agent.GetGuestAsync(new GetGuestRequest { Name = $"guests/{lab.Prefix}-{id}" }, cancellationToken: Cancellation)).Guest;

    private static async Task<string?> ReasonAsync<T>(Func<Task<T>> call)
    {
        try
        {
            await call();
            return null;
        }
        catch (RpcException exception)
        {
            return RpcErrors.ReasonOf(exception) ?? exception.Status.Detail;
        }
    }

    private static string Show(HostLab lab, string link)
    {
        try
        {
            return HostLab.Ip(lab.Host, "addr", "show", link);
        }
        catch (CommandException)
        {
            return "";
        }
    }

    private static string PingGroupRange(HostLab lab) => HostLab.WithNetlink(lab.Host, _ => SysctlChange.Read("net.ipv4.ping_group_range"));
}
