using System.Diagnostics;
using System.Threading.Channels;
using Grpc.Core;
using VNetMesh.Agent.Guests;
using VNetMesh.Agent.Uplinks;
using VNetMesh.Hosting;
using VNetMesh.V1;

namespace VNetMesh.Agent.Rpc;

/// <summary>AgentService: translates, and nothing else.</summary>
public sealed class AgentRpc(Reconciler reconciler, GuestFeed feed, IHostApplicationLifetime lifetime) : AgentService.AgentServiceBase
{
    private const uint MaxWaitMs = 60_000;

    public override async Task<CreateGuestResponse> CreateGuest(CreateGuestRequest request, ServerCallContext context)
    {
        if (request.WaitMs > MaxWaitMs)
            throw RpcErrors.InvalidArgument("WAIT_OUT_OF_RANGE", $"wait_ms must be 0 to {MaxWaitMs}");
        using GuestFeed.Watch watch = feed.Subscribe();
        GuestView guest = await Translate(() => reconciler.CreateGuestAsync(Mapping.Draft(request), Activity.Current?.Context ?? default, context.CancellationToken));
        if (request.WaitMs > 0)
            guest = await WaitAsync(watch, guest, TimeSpan.FromMilliseconds(request.WaitMs), context.CancellationToken, lifetime.ApplicationStopping);
        return new CreateGuestResponse { Guest = Mapping.ToProto(guest) };
    }

    public override Task<GetGuestResponse> GetGuest(GetGuestRequest request, ServerCallContext context) =>
        feed.Current.TryGetValue(Mapping.GuestId(request.Name), out GuestView? guest)
            ? Task.FromResult(new GetGuestResponse { Guest = Mapping.ToProto(guest) })
            : throw Mapping.ToRpc(GuestException.NotFound(request.Name));

    public override Task<ListGuestsResponse> ListGuests(ListGuestsRequest request, ServerCallContext context)
    {
        (List<GuestView> page, string next) = Pages.Take(feed.Current.Values, guest => guest.Spec.Id, request.PageSize, request.PageToken);
        return Task.FromResult(new ListGuestsResponse { Guests = { page.Select(Mapping.ToProto) }, NextPageToken = next });
    }

    public override async Task<DeleteGuestResponse> DeleteGuest(DeleteGuestRequest request, ServerCallContext context)
    {
        await Translate(() => reconciler.DeleteGuestAsync(Mapping.GuestId(request.Name), context.CancellationToken));
        return new DeleteGuestResponse();
    }

    public override async Task WatchGuests(WatchGuestsRequest request, IServerStreamWriter<WatchGuestsResponse> responseStream, ServerCallContext context)
    {
        // A watch has no end of its own, and would keep the agent from stopping.
        using var end = CancellationTokenSource.CreateLinkedTokenSource(context.CancellationToken, lifetime.ApplicationStopping);
        using GuestFeed.Watch watch = feed.Subscribe();
        await responseStream.WriteAsync(new WatchGuestsResponse { Snapshot = new GuestSnapshot { Guests = { watch.Snapshot.Values.Select(Mapping.ToProto) } } }, context.CancellationToken);
        try
        {
            await foreach ((GuestEvent change, GuestView guest) in watch.Changes.ReadAllAsync(end.Token))
                await responseStream.WriteAsync(new WatchGuestsResponse { Change = new GuestChange { Type = Mapping.ToProto(change), Guest = Mapping.ToProto(guest) } }, context.CancellationToken);
        }
        catch (OperationCanceledException) when (lifetime.ApplicationStopping.IsCancellationRequested)
        {
            throw RpcErrors.Unavailable("AGENT_STOPPING", "the agent is stopping; begin the watch again when it is back");
        }
        catch (WatcherTooSlowException)
        {
            throw RpcErrors.Aborted("WATCH_TOO_SLOW", "the watch fell behind: begin it again");
        }
    }

    public override async Task<ListDevicesResponse> ListDevices(ListDevicesRequest request, ServerCallContext context) =>
        new() { Devices = { (await reconciler.ListDevicesAsync(context.CancellationToken)).Select(Mapping.ToProto) } };

    public override async Task<ListHostChangesResponse> ListHostChanges(ListHostChangesRequest request, ServerCallContext context) =>
        new() { Changes = { (await reconciler.ListChangesAsync(context.CancellationToken)).Select(Mapping.ToProto) } };

    public override async Task<ListEgressResponse> ListEgress(ListEgressRequest request, ServerCallContext context) =>
        new() { Egresses = { (await reconciler.ListEgressAsync(context.CancellationToken)).Select(Mapping.ToProto) } };

    public override async Task<ListUplinksResponse> ListUplinks(ListUplinksRequest request, ServerCallContext context) =>
        new() { Uplinks = { (await reconciler.ListUplinksAsync(context.CancellationToken)).Select(Mapping.ToProto) } };

    public override Task<CheckUplinkResponse> CheckUplink(CheckUplinkRequest request, ServerCallContext context)
    {
        if (request.Uplink.Length == 0)
            throw RpcErrors.InvalidArgument("UPLINK_INVALID", "uplink must be the name of an interface, or 'auto'");
        try
        {
            return Task.FromResult(new CheckUplinkResponse { Interface = UplinkKeeper.Check(request.Uplink).Name });
        }
        catch (UplinkException exception)
        {
            throw Mapping.ToRpc(exception);
        }
    }

    public override async Task<ReleaseAllResponse> ReleaseAll(ReleaseAllRequest request, ServerCallContext context)
    {
        (int undone, IReadOnlyList<string> failures) = await reconciler.ReleaseAllAsync(context.CancellationToken);
        return failures.Count == 0
            ? new ReleaseAllResponse { Undone = (uint)undone }
            : throw RpcErrors.Internal("UNDO_INCOMPLETE", $"{failures.Count} changes of the host could not be undone: {string.Join("; ", failures)}");
    }

    private static async Task<GuestView> WaitAsync(GuestFeed.Watch watch, GuestView guest, TimeSpan limit, CancellationToken cancellation, CancellationToken stopping)
    {
        using var timeout = CancellationTokenSource.CreateLinkedTokenSource(cancellation, stopping);
        timeout.CancelAfter(limit);
        try
        {
            while (guest.Status != GuestStatus.Ready)
            {
                (GuestEvent change, GuestView changed) = await watch.Changes.ReadAsync(timeout.Token);
                if (changed.Spec != guest.Spec)
                    continue;
                guest = changed;
                if (change == GuestEvent.Deleted)
                    throw Mapping.ToRpc(GuestException.NotFound(guest.Spec.Id));
            }
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            // Time is up: the guest as it is, with its conditions.
        }
        catch (ChannelClosedException)
        {
            // Too many changes of other guests to follow: the guest as it was last seen.
        }
        return guest;
    }

    private static async Task<T> Translate<T>(Func<Task<T>> action)
    {
        try
        {
            return await action();
        }
        catch (GuestException exception)
        {
            throw Mapping.ToRpc(exception);
        }
    }
}
