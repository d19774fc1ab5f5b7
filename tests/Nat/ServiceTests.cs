using Grpc.Core;
using VNetMesh.Hosting;
using VNetMesh.Nat.Tests.Support;
using VNetMesh.V1;

namespace VNetMesh.Nat.Tests;

/// <summary>The service as it runs: its executable, the switch's, a ring between them, and its API.</summary>
public sealed class ServiceTests : IDisposable
{
    private readonly NamespaceLab _lab = new();
    private readonly Services _services;

    public ServiceTests()
    {
        try
        {
            _services = new Services(_lab);
        }
        catch
        {
            _lab.Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        _services.Dispose();
        _lab.Dispose();
    }

    private (int Code, string Output) Guest(string command) => NamespaceLab.In(_lab.Guest(), command);

    private static string? ReasonOf(Action call) => RpcErrors.ReasonOf(Assert.Throws<RpcException>(call));

    [Fact]
    public void A_guest_fetches_through_switch_and_nat_and_again_after_either_was_killed()
    {
        _lab.Start(_lab.Wan, $"python3 -m http.server 8080 --bind {NamespaceLab.WanAddress} --directory /etc");
        string fetch = $"curl -sS -m 5 -o /dev/null -w %{{http_code}} http://{NamespaceLab.WanAddress}:8080/passwd";
        Assert.True(TestNat.Within(10, () => Guest(fetch).Output == "200"), Guest(fetch).Output);

        _services.SwitchProcess.Kill();
        _services.SwitchProcess.WaitForExit();
        _services.StartSwitch();
        _services.HandOver();
        Assert.True(TestNat.Within(5, () => Guest(fetch).Output == "200"), Guest(fetch).Output);

        _services.NatProcess.Kill();
        _services.NatProcess.WaitForExit();
        _services.StartNat();
        Assert.True(TestNat.Within(10, () => Guest(fetch).Output == "200"), Guest(fetch).Output);
    }

    [Fact]
    public async Task Flows_are_listed_watched_and_deleted()
    {
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        _lab.Start(_lab.Wan, "python3 -c 'import socket,time\nl=socket.create_server((\"0.0.0.0\",9005))\nc=[l.accept() for i in range(3)]\ntime.sleep(60)'");
        NamespaceLab.WaitForListener(_lab.Wan, 9005);
        using AsyncServerStreamingCall<WatchFlowsResponse> watch = _services.Nat.WatchFlows(new WatchFlowsRequest { Parent = "networks/-" }, cancellationToken: cancellation);
        Assert.True(await watch.ResponseStream.MoveNext(cancellation));
        Assert.Empty(watch.ResponseStream.Current.Snapshot.Flows);
        _lab.Start(_lab.Guest(), $"python3 -c 'import socket,time\nc=[socket.create_connection((\"{NamespaceLab.WanAddress}\",9005)) for i in range(3)]\ntime.sleep(60)'");
        Assert.True(TestNat.Within(5, () => _services.Nat.ListFlows(new ListFlowsRequest { Parent = "networks/vmnet8" }, cancellationToken: cancellation).Flows.Count(flow => flow.State == FlowState.Established) == 3));

        ListFlowsResponse page = _services.Nat.ListFlows(new ListFlowsRequest { Parent = "networks/-", PageSize = 2 }, cancellationToken: cancellation);
        Assert.Equal(2, page.Flows.Count);
        ListFlowsResponse rest = _services.Nat.ListFlows(new ListFlowsRequest { Parent = "networks/-", PageSize = 2, PageToken = page.NextPageToken }, cancellationToken: cancellation);
        Assert.Single(rest.Flows);
        Assert.Empty(rest.NextPageToken);
        V1.Flow first = page.Flows[0];
        Assert.Equal((NamespaceLab.WanAddress, 9005u), (first.Remote.Address, first.Remote.Port));
        Assert.Equal(NamespaceLab.HostAddress, first.Host.Address);
        Assert.NotNull(first.Rtt);

        _services.Nat.DeleteFlow(new DeleteFlowRequest { Name = first.Name }, cancellationToken: cancellation);
        Assert.Equal("FLOW_NOT_FOUND", ReasonOf(() => _services.Nat.DeleteFlow(new DeleteFlowRequest { Name = first.Name }, cancellationToken: cancellation)));
        var seen = new List<(ChangeType, FlowState)>();
        while (await watch.ResponseStream.MoveNext(cancellation))
        {
            V1.FlowChange change = watch.ResponseStream.Current.Change;
            if (change.Flow.Name != first.Name)
                continue;
            seen.Add((change.Type, change.Flow.State));
            if (change.Type == ChangeType.Deleted)
                break;
        }
        Assert.Equal([(ChangeType.Created, FlowState.Dialing), (ChangeType.Updated, FlowState.Handshake), (ChangeType.Updated, FlowState.Established), (ChangeType.Deleted, FlowState.Closed)], seen);
        Assert.Equal("deleted", watch.ResponseStream.Current.Change.Flow.EndReason);
        Assert.Matches("""vnetmesh_nat_flows\S*\{[^}]*network_transport="tcp"[^}]*\} 2""", _services.Metrics());
    }

    [Fact]
    public void Forwards_are_made_refused_and_taken_away()
    {
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        CreatePortForwardRequest Make(string id, Protocol protocol, string listen, uint port, string guest, string parent = "networks/vmnet8") => new()
        {
            Parent = parent,
            ForwardId = id,
            PortForward = new PortForward { Protocol = protocol, Listen = new Endpoint { Address = listen, Port = port }, Guest = new Endpoint { Address = guest, Port = 80 } },
        };
        string guest = _services.Gateway[.._services.Gateway.LastIndexOf('.')] + ".10";
        PortForward made = _services.Nat.CreatePortForward(Make("web", Protocol.Tcp, "", 8088, guest), cancellationToken: cancellation).PortForward;
        Assert.True(made.Listening);
        Assert.Equal(("networks/vmnet8/forwards/web", "127.0.0.1"), (made.Name, made.Listen.Address));
        Assert.Equal("FORWARD_EXISTS", ReasonOf(() => _services.Nat.CreatePortForward(Make("web", Protocol.Tcp, "", 8089, guest), cancellationToken: cancellation)));
        Assert.Equal("LISTEN_REFUSED", ReasonOf(() => _services.Nat.CreatePortForward(Make("web2", Protocol.Tcp, "", 8088, guest), cancellationToken: cancellation)));
        Assert.Equal("LISTEN_REFUSED", ReasonOf(() => _services.Nat.CreatePortForward(Make("web2", Protocol.Tcp, "198.51.100.1", 8089, guest), cancellationToken: cancellation)));
        Assert.Equal("FORWARD_ID_INVALID", ReasonOf(() => _services.Nat.CreatePortForward(Make("Web!", Protocol.Tcp, "", 8089, guest), cancellationToken: cancellation)));
        Assert.Equal("PROTOCOL_REQUIRED", ReasonOf(() => _services.Nat.CreatePortForward(Make("x", Protocol.Icmp, "", 8089, guest), cancellationToken: cancellation)));
        Assert.Equal("PORT_OUT_OF_RANGE", ReasonOf(() => _services.Nat.CreatePortForward(Make("x", Protocol.Udp, "", 65536, guest), cancellationToken: cancellation)));
        Assert.Equal("ADDRESS_INVALID", ReasonOf(() => _services.Nat.CreatePortForward(Make("x", Protocol.Udp, "here", 8089, guest), cancellationToken: cancellation)));
        Assert.Equal("ADDRESS_OUTSIDE_SUBNET", ReasonOf(() => _services.Nat.CreatePortForward(Make("x", Protocol.Udp, "", 8089, "10.9.9.9"), cancellationToken: cancellation)));
        Assert.Equal("ADDRESS_OUTSIDE_SUBNET", ReasonOf(() => _services.Nat.CreatePortForward(Make("x", Protocol.Udp, "", 8089, _services.Gateway), cancellationToken: cancellation)));
        Assert.Equal("NETWORK_NOT_FOUND", ReasonOf(() => _services.Nat.CreatePortForward(Make("x", Protocol.Udp, "", 8089, guest, "networks/vmnet1"), cancellationToken: cancellation)));

        // It is there again after kill -9, and listens.
        _services.NatProcess.Kill();
        _services.NatProcess.WaitForExit();
        _services.StartNat();
        Assert.True(TestNat.Within(10, () => Services.Answer(() => _services.Nat.ListPortForwards(new ListPortForwardsRequest { Parent = "networks/-" }, cancellationToken: cancellation)).PortForwards is [{ Listening: true }]));
        _services.Nat.DeletePortForward(new DeletePortForwardRequest { Name = made.Name }, cancellationToken: cancellation);
        Assert.Equal("FORWARD_NOT_FOUND", ReasonOf(() => _services.Nat.DeletePortForward(new DeletePortForwardRequest { Name = made.Name }, cancellationToken: cancellation)));
        Assert.Empty(_services.Nat.ListPortForwards(new ListPortForwardsRequest { Parent = "networks/-" }, cancellationToken: cancellation).PortForwards);
    }
}
