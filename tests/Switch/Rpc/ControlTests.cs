using Google.Protobuf.WellKnownTypes;
using Grpc.Core;
using Grpc.Health.V1;
using VNetMesh.Hosting;
using VNetMesh.Switch.Tests.Support;
using VNetMesh.V1;

namespace VNetMesh.Switch.Tests.Rpc;

/// <summary>The registry's RPCs against the real process.</summary>
public sealed class ControlTests
{
    private const string Nat = "networks/vmnet8";

    [Fact]
    public async Task AcknowledgedChangesSurviveKillNine()
    {
        await using SwitchProcess process = await SwitchProcess.StartAsync();
        Network made = (await process.Networks.CreateNetworkAsync(new CreateNetworkRequest { NetworkId = "lab", Network = new Network { Kind = NetworkKind.HostOnly } })).Network;
        Assert.Equal(("192.168.102.0/24", true), (made.Ipv4Subnet, made.Ipv4SubnetAuto));
        Network changed = (await process.Networks.UpdateNetworkAsync(new UpdateNetworkRequest
        {
            Network = new Network { Name = Nat, Mtu = 9000, Dhcpv4 = new Dhcpv4Settings { Domain = "nat.example", RangeStart = "192.168.108.200" } },
            UpdateMask = new FieldMask { Paths = { "mtu", "dhcpv4.domain", "dhcpv4.range_start" } },
        })).Network;
        Assert.True(changed.Revision > made.Revision);
        using AsyncServerStreamingCall<WatchNetworksResponse> watch = process.Networks.WatchNetworks(new WatchNetworksRequest());
        Assert.True(await watch.ResponseStream.MoveNext(default));
        string token = watch.ResponseStream.Current.ResumeToken;
        await process.KillAsync();
        await process.LaunchAsync();
        Network again = (await process.Networks.GetNetworkAsync(new GetNetworkRequest { Name = Nat })).Network;
        (again.Counters, changed.Counters) = (null, null);
        Assert.Equal(changed, again);
        Assert.Equal(4, (await process.Networks.ListNetworksAsync(new ListNetworksRequest())).Networks.Count);
        // A token of the run before leads to a snapshot.
        using AsyncServerStreamingCall<WatchNetworksResponse> resumed = process.Networks.WatchNetworks(new WatchNetworksRequest { ResumeToken = token });
        Assert.True(await resumed.ResponseStream.MoveNext(default));
        Assert.Equal(4, resumed.ResponseStream.Current.Snapshot.Networks.Count);
    }

    [Fact]
    public async Task TheFileIsReadAtHangUpAndTermEndsEverythingSoon()
    {
        await using SwitchProcess process = await SwitchProcess.StartAsync();
        using AsyncServerStreamingCall<WatchNetworksResponse> watch = process.Networks.WatchNetworks(new WatchNetworksRequest());
        Assert.True(await watch.ResponseStream.MoveNext(default));
        using AttachClient client = await AttachClient.OpenAsync(process, new AttachHello { Network = Nat });
        await File.WriteAllTextAsync(process.ConfigurationFile, "networks:\n  declared:\n    kind: isolated\n");
        process.Signal("HUP");
        Assert.True(await watch.ResponseStream.MoveNext(default));
        Assert.Equal("networks/declared", watch.ResponseStream.Current.Change.Network.Name);

        process.Signal("TERM");
        using var limit = new CancellationTokenSource(5000);
        Assert.Equal("SWITCH_STOPPING", await ReasonAsync(() => watch.ResponseStream.MoveNext(limit.Token)));
        Assert.Equal(0, await process.ExitAsync(limit.Token));
        Assert.Empty(Directory.GetFiles(process.Paths.RunDirectory));
    }

    [Fact]
    public async Task AWatchGoesOnFromItsToken()
    {
        await using SwitchProcess process = await SwitchProcess.StartAsync();
        using AsyncServerStreamingCall<WatchNetworksResponse> watch = process.Networks.WatchNetworks(new WatchNetworksRequest());
        Assert.True(await watch.ResponseStream.MoveNext(default));
        WatchNetworksResponse snapshot = watch.ResponseStream.Current;
        Assert.Equal(["networks/vmnet0", "networks/vmnet1", Nat], snapshot.Snapshot.Networks.Select(network => network.Name));
        await process.Networks.CreateNetworkAsync(new CreateNetworkRequest { NetworkId = "one", Network = new Network { Kind = NetworkKind.Isolated } });
        Assert.True(await watch.ResponseStream.MoveNext(default));
        Assert.Equal((ChangeType.Created, "networks/one"), (watch.ResponseStream.Current.Change.Type, watch.ResponseStream.Current.Change.Network.Name));
        await process.Networks.DeleteNetworkAsync(new DeleteNetworkRequest { Name = "networks/one" });
        using AsyncServerStreamingCall<WatchNetworksResponse> resumed = process.Networks.WatchNetworks(new WatchNetworksRequest { ResumeToken = snapshot.ResumeToken });
        var types = new List<ChangeType>();
        while (types.Count < 2 && await resumed.ResponseStream.MoveNext(default))
            types.Add(resumed.ResponseStream.Current.Change.Type);
        Assert.Equal([ChangeType.Created, ChangeType.Deleted], types);
    }

    [Fact]
    public async Task PortsAreRegisteredTakenOverWatchedAndGoWithTheirNetwork()
    {
        await using SwitchProcess process = await SwitchProcess.StartAsync();
        using AsyncServerStreamingCall<WatchPortsResponse> watch = process.Ports.WatchPorts(new WatchPortsRequest { Parent = Nat });
        Assert.True(await watch.ResponseStream.MoveNext(default));
        Assert.Empty(watch.ResponseStream.Current.Snapshot.Ports);

        RegisterPortRequest request = Registration("web1");
        RegisterPortResponse first = await process.Ports.RegisterPortAsync(request);
        Assert.Equal(16, first.HandoffToken.Length);
        Assert.Equal((PortRole.Guest, PortState.Waiting, Nat + "/ports/web1"), (first.Port.Role, first.Port.State, first.Port.Name));
        RegisterPortResponse second = await process.Ports.RegisterPortAsync(request);
        Assert.NotEqual(first.HandoffToken, second.HandoffToken);
        Assert.Equal(first.Port, second.Port);
        await process.Ports.RegisterPortAsync(new RegisterPortRequest { Parent = "networks/vmnet1", PortId = "elsewhere", Port = request.Port });

        Assert.Equal("PORT_OWNED_BY_OTHER", await ReasonAsync(() => process.Ports.RegisterPortAsync(Registration("web1", owner: "other")).ResponseAsync));
        Assert.Equal("TRANSPORT_INVALID", await ReasonAsync(() => process.Ports.RegisterPortAsync(Registration("x", transport: PortTransport.Stream)).ResponseAsync));
        Assert.Equal("MAC_INVALID", await ReasonAsync(() => process.Ports.RegisterPortAsync(Registration("x", mac: "01:00:5e:00:00:01")).ResponseAsync));
        Assert.Equal("PORT_ID_INVALID", await ReasonAsync(() => process.Ports.RegisterPortAsync(Registration("-x")).ResponseAsync));
        Assert.Equal("NETWORK_IN_USE", await ReasonAsync(() => process.Networks.DeleteNetworkAsync(new DeleteNetworkRequest { Name = Nat }).ResponseAsync));
        await process.Networks.DeleteNetworkAsync(new DeleteNetworkRequest { Name = Nat, Force = true });
        Assert.Equal("PORT_NOT_FOUND", await ReasonAsync(() => process.Ports.GetPortAsync(new GetPortRequest { Name = first.Port.Name }).ResponseAsync));
        Assert.Single((await process.Ports.ListPortsAsync(new ListPortsRequest { Parent = "networks/-" })).Ports);

        var seen = new List<ChangeType>();
        while (seen.Count < 2 && await watch.ResponseStream.MoveNext(default))
            seen.Add(watch.ResponseStream.Current.Change.Type);
        Assert.Equal([ChangeType.Created, ChangeType.Deleted], seen);
    }

    [Fact]
    public async Task ErrorsHaveReasonsAndListsHavePages()
    {
        await using SwitchProcess process = await SwitchProcess.StartAsync();
        Assert.Equal("NETWORK_NOT_FOUND", await ReasonAsync(() => process.Networks.GetNetworkAsync(new GetNetworkRequest { Name = "networks/none" }).ResponseAsync));
        Assert.Equal("UPDATE_MASK_REQUIRED", await ReasonAsync(() => process.Networks.UpdateNetworkAsync(new UpdateNetworkRequest { Network = new Network { Name = Nat } }).ResponseAsync));
        Assert.Equal("UPDATE_MASK_INVALID", await ReasonAsync(() => process.Networks.UpdateNetworkAsync(new UpdateNetworkRequest { Network = new Network { Name = Nat }, UpdateMask = new FieldMask { Paths = { "revision" } } }).ResponseAsync));
        Assert.Equal("DHCP_LEASE_INVALID", await ReasonAsync(() => process.Networks.UpdateNetworkAsync(new UpdateNetworkRequest
        {
            Network = new Network { Name = Nat, Dhcpv4 = new Dhcpv4Settings { MaxLease = new Duration { Seconds = long.MaxValue, Nanos = int.MinValue } } },
            UpdateMask = new FieldMask { Paths = { "dhcpv4.max_lease" } },
        }).ResponseAsync));
        Assert.Equal("NETWORK_NOT_FOUND", await ReasonAsync(() => process.Ports.ListMacEntriesAsync(new ListMacEntriesRequest { Parent = "networks/none" }).ResponseAsync));
        var names = new List<string>();
        var request = new ListNetworksRequest { PageSize = 2 };
        do
        {
            ListNetworksResponse page = await process.Networks.ListNetworksAsync(request);
            names.AddRange(page.Networks.Select(network => network.Name));
            request.PageToken = page.NextPageToken;
        }
        while (request.PageToken.Length > 0);
        Assert.Equal(["networks/vmnet0", "networks/vmnet1", Nat], names);
        HealthCheckResponse health = await new Health.HealthClient(process.Channel).CheckAsync(new HealthCheckRequest());
        Assert.Equal(HealthCheckResponse.Types.ServingStatus.Serving, health.Status);
    }

    private static RegisterPortRequest Registration(string id, string owner = "agent", PortTransport transport = PortTransport.Tap, string mac = "02:56:4e:00:00:01") => new()
    {
        Parent = Nat,
        PortId = id,
        Port = new Port { Owner = owner, Transport = transport, Mac = mac },
    };

    private static async Task<string?> ReasonAsync(Func<Task> action) => RpcErrors.ReasonOf(await Assert.ThrowsAsync<RpcException>(action));
}
