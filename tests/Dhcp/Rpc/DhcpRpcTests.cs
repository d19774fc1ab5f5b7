using Google.Protobuf.WellKnownTypes;
using Grpc.Core;
using VNetMesh.Dhcp.Tests.Support;
using VNetMesh.Hosting;
using VNetMesh.V1;

namespace VNetMesh.Dhcp.Tests.Rpc;

/// <summary>The API of the real executable, beside a real switch.</summary>
public sealed class DhcpRpcTests : IDisposable
{
    private const string Parent = "networks/vmnet8";

    private readonly Lab _lab = new("--VNETMESH_DHCP:ProbeTime=00:00:00.05");

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public void Dispose() => _lab.Dispose();

    [Fact]
    public void Reservations_are_made_refused_kept_and_deleted()
    {
        string subnet = _lab.Network.Ipv4Subnet;
        string prefix = subnet[..(subnet.LastIndexOf('.') + 1)];
        Reservation made = Create("web1", "02:00:5e:10:00:01", prefix + "20", "web1");
        Assert.Equal(($"{Parent}/reservations/web1", prefix + "20", "web1"), (made.Name, made.Ipv4Address, made.Hostname));
        Create("by-id", "", prefix + "200", "", clientId: "ff01");

        (StatusCode, string) Refusal(Action call)
        {
            RpcException exception = Assert.Throws<RpcException>(call);
            return (exception.StatusCode, RpcErrors.ReasonOf(exception)!);
        }
        Assert.Equal((StatusCode.AlreadyExists, "RESERVATION_EXISTS"), Refusal(() => Create("web1", "02:00:5e:10:00:02", prefix + "21")));
        Assert.Equal((StatusCode.AlreadyExists, "RESERVATION_EXISTS"), Refusal(() => Create("web2", "02:00:5e:10:00:01", prefix + "21")));
        Assert.Equal((StatusCode.AlreadyExists, "ADDRESS_RESERVED_FOR_OTHER"), Refusal(() => Create("web2", "02:00:5e:10:00:02", prefix + "20")));
        Assert.Equal((StatusCode.InvalidArgument, "ADDRESS_OUTSIDE_SUBNET"), Refusal(() => Create("web2", "02:00:5e:10:00:02", "198.51.100.1")));
        foreach (string reserved in new[] { "0", "1", "2", "254", "255" })
            Assert.Equal((StatusCode.InvalidArgument, "ADDRESS_RESERVED"), Refusal(() => Create("web2", "02:00:5e:10:00:02", prefix + reserved)));
        Assert.Equal((StatusCode.InvalidArgument, "MAC_INVALID"), Refusal(() => Create("web2", "", prefix + "21")));
        Assert.Equal((StatusCode.InvalidArgument, "MAC_INVALID"), Refusal(() => Create("web2", "01:00:5e:10:00:02", prefix + "21")));
        Assert.Equal((StatusCode.InvalidArgument, "RESERVATION_ID_INVALID"), Refusal(() => Create("Web!", "02:00:5e:10:00:02", prefix + "21")));
        Assert.Equal((StatusCode.NotFound, "NETWORK_NOT_FOUND"), Refusal(() => Create("web2", "02:00:5e:10:00:02", prefix + "21", parent: "networks/vmnet0")));

        // It is there after kill -9, and its client gets it, as the host name too.
        _lab.KillDhcp();
        _lab.StartDhcp();
        Assert.Equal(["by-id", "web1"], Reservations().Select(reservation => reservation.Name.Split('/')[^1]));
        Lab.Wait(10, "the port is up again", () => _lab.Pool.LinkUp);
        LabGuest guest = _lab.AddGuest("one");
        guest.Exec("ip link set dev eth0 address 02:00:5e:10:00:01");
        RealClient client = guest.Udhcpc("-C");
        Lab.Wait(15, "bound", () => client.Events.Length > 0);
        Assert.Equal((prefix + "20", "web1"), (client.Address, client.Options["hostname"]));
        Assert.True(Assert.Single(_lab.Leases).Reserved);

        _lab.Dhcp.DeleteReservation(new DeleteReservationRequest { Name = made.Name }, cancellationToken: Cancellation);
        Assert.Equal((StatusCode.NotFound, "RESERVATION_NOT_FOUND"), Refusal(() => _lab.Dhcp.DeleteReservation(new DeleteReservationRequest { Name = made.Name })));
        Assert.Single(Reservations());
    }

    [Fact]
    public async Task Leases_are_watched_listed_by_page_deleted_and_void_when_the_range_moves()
    {
        using AsyncServerStreamingCall<WatchLeasesResponse> watch = _lab.Dhcp.WatchLeases(new WatchLeasesRequest { Parent = "networks/-" }, cancellationToken: Cancellation);
        Assert.True(await watch.ResponseStream.MoveNext(Cancellation));
        Assert.Empty(watch.ResponseStream.Current.Snapshot.Leases);
        RealClient[] clients = [.. new[] { "one", "two" }.Select(name => _lab.AddGuest(name).Udhcpc())];
        Lab.Wait(15, "both are bound", () => clients.All(client => client.Events.Length > 0));
        string first = clients[0].Address;
        Assert.Equal([(ChangeType.Created, LeaseState.Offered), (ChangeType.Updated, LeaseState.Bound)], [await NextAsync(watch, first), await NextAsync(watch, first)]);

        ListLeasesResponse page = _lab.Dhcp.ListLeases(new ListLeasesRequest { Parent = Parent, PageSize = 1 }, cancellationToken: Cancellation);
        ListLeasesResponse rest = _lab.Dhcp.ListLeases(new ListLeasesRequest { Parent = Parent, PageSize = 1, PageToken = page.NextPageToken }, cancellationToken: Cancellation);
        Assert.Equal(clients.Select(client => client.Address).Order(StringComparer.Ordinal), page.Leases.Concat(rest.Leases).Select(lease => lease.Ipv4Address));
        Assert.Empty(rest.NextPageToken);
        Assert.Equal("NETWORK_NOT_FOUND", RpcErrors.ReasonOf(Assert.Throws<RpcException>(() => _lab.Dhcp.ListLeases(new ListLeasesRequest { Parent = "networks/none" }, cancellationToken: Cancellation))));
        Assert.Equal("PARENT_INVALID", RpcErrors.ReasonOf(Assert.Throws<RpcException>(() => _lab.Dhcp.ListLeases(new ListLeasesRequest { Parent = "none" }, cancellationToken: Cancellation))));

        var delete = new DeleteLeaseRequest { Name = $"{Parent}/leases/{first}" };
        _lab.Dhcp.DeleteLease(delete, cancellationToken: Cancellation);
        Assert.Equal("LEASE_NOT_FOUND", RpcErrors.ReasonOf(Assert.Throws<RpcException>(() => _lab.Dhcp.DeleteLease(delete, cancellationToken: Cancellation))));
        Assert.Equal((ChangeType.Deleted, LeaseState.Bound), await NextAsync(watch, first));
        Assert.Equal(1u, _lab.Pool.Bound);

        // The range moves: the other lease is void, and a renewal is refused, so that the client begins anew within it.
        string prefix = first[..(first.LastIndexOf('.') + 1)];
        var wanted = new Network { Name = Parent, Dhcpv4 = new Dhcpv4Settings { RangeStart = prefix + "10", RangeEnd = prefix + "19" } };
        _lab.Networks.UpdateNetwork(new UpdateNetworkRequest { Network = wanted, UpdateMask = new FieldMask { Paths = { "dhcpv4.range_start", "dhcpv4.range_end" } } }, cancellationToken: Cancellation);
        Lab.Wait(5, "the pool has changed", () => _lab.Pool is { Size: 10, Bound: 0 });
        int events = clients[1].Events.Length;
        clients[1].Signal("USR1");
        Lab.Wait(15, "the client has an address of the new range", () => clients[1].Events.Length > events);
        Assert.InRange(int.Parse(clients[1].Address[prefix.Length..]), 10, 19);
        Assert.True(_lab.Pool.Messages["nak"] >= 1);

        // DHCP is switched off: the pool is gone; on again: the lease is back from the disk.
        SetEnabled(false);
        Lab.Wait(5, "the pool is gone", () => _lab.Dhcp.ListPools(new ListPoolsRequest()).Pools.All(pool => pool.Network != Parent));
        SetEnabled(true);
        Lab.Wait(10, "the pool is back", () => _lab.Dhcp.ListPools(new ListPoolsRequest()).Pools.Any(pool => pool is { Network: Parent, LinkUp: true, Bound: 1 }));
    }

    private void SetEnabled(bool enabled) => _lab.Networks.UpdateNetwork(new UpdateNetworkRequest
    {
        Network = new Network { Name = Parent, Dhcpv4 = new Dhcpv4Settings { Enabled = enabled } },
        UpdateMask = new FieldMask { Paths = { "dhcpv4.enabled" } },
    });

    private static async Task<(ChangeType, LeaseState)> NextAsync(AsyncServerStreamingCall<WatchLeasesResponse> watch, string address)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(Cancellation);
        limit.CancelAfter(TimeSpan.FromSeconds(10));
        do
            Assert.True(await watch.ResponseStream.MoveNext(limit.Token));
        while (watch.ResponseStream.Current.Change.Lease.Ipv4Address != address);
        return (watch.ResponseStream.Current.Change.Type, watch.ResponseStream.Current.Change.Lease.State);
    }

    private Google.Protobuf.Collections.RepeatedField<Reservation> Reservations() => Lab.Answer(() => _lab.Dhcp.ListReservations(new ListReservationsRequest { Parent = Parent })).Reservations;

    private Reservation Create(string id, string mac, string address, string hostname = "", string clientId = "", string parent = Parent) => _lab.Dhcp.CreateReservation(new CreateReservationRequest
    {
        Parent = parent,
        ReservationId = id,
        Reservation = new Reservation { Mac = mac, ClientId = clientId, Ipv4Address = address, Hostname = hostname },
    }).Reservation;
}
