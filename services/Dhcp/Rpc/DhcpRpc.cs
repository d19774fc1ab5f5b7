using System.Text.RegularExpressions;
using Grpc.Core;
using VNetMesh.Dhcp.Leases;
using VNetMesh.Dhcp.Observability;
using VNetMesh.Dhcp.Serving;
using VNetMesh.Hosting;
using VNetMesh.Packets;
using VNetMesh.V1;
using Lease = VNetMesh.Dhcp.Leases.Lease;
using Reservation = VNetMesh.Dhcp.Leases.Reservation;

namespace VNetMesh.Dhcp.Rpc;

/// <summary>DhcpService: translates, and asks the directory.</summary>
internal sealed partial class DhcpRpc(ServerDirectory directory, IHostApplicationLifetime lifetime) : DhcpService.DhcpServiceBase
{
    private const string AllNetworks = "networks/-";
    private const int MaxExchanges = 500;
    private const int DefaultExchanges = 50;

    public override async Task<ListLeasesResponse> ListLeases(ListLeasesRequest request, ServerCallContext context)
    {
        List<Lease> leases = await directory.ListLeasesAsync(await ReadParentAsync(request.Parent));
        (List<Lease> page, string next) = Pages.Take(leases, KeyOf, request.PageSize, request.PageToken);
        var response = new ListLeasesResponse { NextPageToken = next };
        response.Leases.AddRange(page.Select(DhcpTranslation.ToMessage));
        return response;
    }

    public override async Task<DeleteLeaseResponse> DeleteLease(DeleteLeaseRequest request, ServerCallContext context)
    {
        Match name = LeaseName().Match(request.Name);
        bool found = name.Success && Ipv4Address.TryParse(name.Groups[2].ValueSpan, out Ipv4Address address)
            && await OnDiskAsync(directory.DeleteLeaseAsync(name.Groups[1].Value, address));
        return found ? new DeleteLeaseResponse() : throw RpcErrors.NotFound("LEASE_NOT_FOUND", $"there is no lease '{request.Name}'; see the list of leases", ("name", request.Name));
    }

    public override async Task WatchLeases(WatchLeasesRequest request, IServerStreamWriter<WatchLeasesResponse> responseStream, ServerCallContext context)
    {
        string? network = await ReadParentAsync(request.Parent);
        using var ending = CancellationTokenSource.CreateLinkedTokenSource(context.CancellationToken, lifetime.ApplicationStopping);
        (LeaseWatch watch, List<Lease> snapshot) = await directory.WatchAsync(network);
        using (watch)
        {
            try
            {
                await WriteSnapshotAsync(responseStream, snapshot, ending.Token);
                while (await watch.Changes.WaitToReadAsync(ending.Token))
                {
                    while (!watch.HasLagged && watch.Changes.TryRead(out (LeaseChangeKind Kind, Lease Lease) change))
                    {
                        var message = new LeaseChange { Type = (ChangeType)change.Kind, Lease = DhcpTranslation.ToMessage(change.Lease) };
                        await responseStream.WriteAsync(new WatchLeasesResponse { Change = message }, ending.Token);
                    }
                    // A client that reads too slowly has a gap in its changes: it gets all anew.
                    if (watch.HasLagged)
                        await WriteSnapshotAsync(responseStream, await directory.SnapshotAsync(watch, network), ending.Token);
                }
            }
            catch (OperationCanceledException) when (lifetime.ApplicationStopping.IsCancellationRequested)
            {
                throw RpcErrors.Unavailable("STOPPING", "dhcp is stopping; watch again when it is back");
            }
        }
    }

    public override async Task<ListReservationsResponse> ListReservations(ListReservationsRequest request, ServerCallContext context)
    {
        List<Reservation> reservations = await directory.ListReservationsAsync(await ReadParentAsync(request.Parent));
        (List<Reservation> page, string next) = Pages.Take(reservations, reservation => $"{reservation.Network}/{reservation.Id}", request.PageSize, request.PageToken);
        var response = new ListReservationsResponse { NextPageToken = next };
        response.Reservations.AddRange(page.Select(DhcpTranslation.ToMessage));
        return response;
    }

    public override async Task<CreateReservationResponse> CreateReservation(CreateReservationRequest request, ServerCallContext context)
    {
        Reservation wanted = ReservationRequests.Read(request);
        try
        {
            Reservation created = await OnDiskAsync(directory.CreateReservationAsync(wanted)) ?? throw NetworkNotFound(request.Parent);
            return new CreateReservationResponse { Reservation = DhcpTranslation.ToMessage(created) };
        }
        catch (ReservationRefusedException refusal)
        {
            throw ReservationRequests.ToError(refusal, wanted);
        }
    }

    public override async Task<DeleteReservationResponse> DeleteReservation(DeleteReservationRequest request, ServerCallContext context)
    {
        Match name = ReservationName().Match(request.Name);
        bool found = name.Success && await OnDiskAsync(directory.DeleteReservationAsync(name.Groups[1].Value, name.Groups[2].Value));
        return found ? new DeleteReservationResponse() : throw RpcErrors.NotFound("RESERVATION_NOT_FOUND", $"there is no reservation '{request.Name}'; see the list of reservations", ("name", request.Name));
    }

    public override async Task<ListPoolsResponse> ListPools(ListPoolsRequest request, ServerCallContext context)
    {
        var response = new ListPoolsResponse();
        response.Pools.AddRange((await directory.ListPoolsAsync()).Select(DhcpTranslation.ToMessage));
        return response;
    }

    public override async Task<ListExchangesResponse> ListExchanges(ListExchangesRequest request, ServerCallContext context)
    {
        string? network = await ReadParentAsync(request.Parent);
        if (request.PageSize is < 0 or > MaxExchanges)
            throw RpcErrors.InvalidArgument("PAGE_SIZE_OUT_OF_RANGE", $"page_size must be 0 to {MaxExchanges}");
        MacAddress? mac = request.Mac.Length == 0 ? null
            : MacAddress.TryParse(request.Mac, out MacAddress parsed) ? parsed
            : throw RpcErrors.InvalidArgument("MAC_INVALID", $"'{request.Mac}' is no MAC address such as 02:00:5e:10:00:01", ("mac", request.Mac));
        List<ExchangeEntry> entries = await directory.ListExchangesAsync(network, mac, request.PageSize == 0 ? DefaultExchanges : request.PageSize);
        return new ListExchangesResponse { Events = { entries.Select(DhcpTranslation.ToMessage) } };
    }

    /// <returns>The network; null for all.</returns>
    private async Task<string?> ReadParentAsync(string parent)
    {
        if (parent == AllNetworks)
            return null;
        if (!NetworkName().IsMatch(parent))
            throw RpcErrors.InvalidArgument("PARENT_INVALID", $"parent must be 'networks/{{id}}' or '{AllNetworks}', not '{parent}'", ("parent", parent));
        return await directory.KnowsAsync(parent) ? parent : throw NetworkNotFound(parent);
    }

    private static async Task WriteSnapshotAsync(IServerStreamWriter<WatchLeasesResponse> stream, List<Lease> leases, CancellationToken cancellation)
    {
        var snapshot = new LeaseSnapshot();
        snapshot.Leases.AddRange(leases.Select(DhcpTranslation.ToMessage));
        await stream.WriteAsync(new WatchLeasesResponse { Snapshot = snapshot }, cancellation);
    }

    private static async Task<T> OnDiskAsync<T>(Task<T> task)
    {
        try
        {
            return await task;
        }
        catch (IOException exception)
        {
            throw RpcErrors.Unavailable("STORE_FAILED", $"nothing was changed: {exception.Message}; look at the disk of dhcp's state directory");
        }
    }

    /// <summary>In the order of the numbers, as the list is.</summary>
    private static string KeyOf(Lease lease) => $"{lease.Network}/{lease.Address.Value:x8}";

    private static RpcException NetworkNotFound(string network) =>
        RpcErrors.NotFound("NETWORK_NOT_FOUND", $"there is no network '{network}' that dhcp serves; see the list of networks, and whether its dhcpv4 is enabled", ("network", network));

    [GeneratedRegex(@"\Anetworks/[a-z0-9-]{1,15}\z")]
    private static partial Regex NetworkName();

    [GeneratedRegex(@"\A(networks/[a-z0-9-]{1,15})/leases/([0-9.]{7,15})\z")]
    private static partial Regex LeaseName();

    [GeneratedRegex(@"\A(networks/[a-z0-9-]{1,15})/reservations/([a-z0-9-]{1,63})\z")]
    private static partial Regex ReservationName();
}
