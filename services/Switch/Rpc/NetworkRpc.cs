using System.Globalization;
using Grpc.Core;
using VNetMesh.Hosting;
using VNetMesh.Switch.Forwarding;
using VNetMesh.Switch.Registry;
using VNetMesh.V1;
using TrafficCounters = VNetMesh.V1.TrafficCounters;

namespace VNetMesh.Switch.Rpc;

/// <summary>NetworkService: translates, and nothing else.</summary>
public sealed class NetworkRpc(NetworkRegistry registry, PortDirectory ports, ForwardingPlane plane, IHostApplicationLifetime lifetime) : NetworkService.NetworkServiceBase
{
    /// <summary>Names this run in resume tokens: revisions before a restart may have been of changes that are not in the history.</summary>
    private static readonly string Run = Guid.NewGuid().ToString("N")[..12];

    public override Task<ListNetworksResponse> ListNetworks(ListNetworksRequest request, ServerCallContext context)
    {
        (List<NetworkDefinition> page, string next) = Pages.Take(registry.List(), network => network.Id, request.PageSize, request.PageToken);
        var response = new ListNetworksResponse { NextPageToken = next };
        response.Networks.AddRange(page.Select(Tell));
        return Task.FromResult(response);
    }

    public override Task<GetNetworkResponse> GetNetwork(GetNetworkRequest request, ServerCallContext context)
    {
        NetworkDefinition network = Refusals.Translate(() => registry.Get(request.Name));
        return Task.FromResult(new GetNetworkResponse { Network = Tell(network) });
    }

    public override Task<CreateNetworkResponse> CreateNetwork(CreateNetworkRequest request, ServerCallContext context)
    {
        NetworkDraft draft = NetworkMessages.ToDraft(request.NetworkId, request.Network ?? new Network());
        NetworkDefinition network = Refusals.Translate(() => registry.Create(draft, request.ValidateOnly));
        return Task.FromResult(new CreateNetworkResponse { Network = Tell(network) });
    }

    public override Task<UpdateNetworkResponse> UpdateNetwork(UpdateNetworkRequest request, ServerCallContext context)
    {
        Network wanted = request.Network ?? new Network();
        if (request.UpdateMask is null || request.UpdateMask.Paths.Count == 0)
            throw RpcErrors.InvalidArgument("UPDATE_MASK_REQUIRED", "update_mask must name the fields to change");
        var setters = new List<Func<NetworkDraft, NetworkDraft>>();
        foreach (string path in request.UpdateMask.Paths)
        {
            setters.Add(NetworkMessages.Setter(path, wanted)
                ?? throw RpcErrors.InvalidArgument("UPDATE_MASK_INVALID", $"'{path}' is not a field that can be changed", ("path", path)));
        }
        NetworkDefinition network = Refusals.Translate(() => registry.Update(wanted.Name, wanted.Revision, request.UpdateMask.Paths.ToHashSet(),
            draft => setters.Aggregate(draft, (result, set) => set(result)), request.ValidateOnly));
        return Task.FromResult(new UpdateNetworkResponse { Network = Tell(network) });
    }

    public override Task<DeleteNetworkResponse> DeleteNetwork(DeleteNetworkRequest request, ServerCallContext context) => Refusals.Translate(() =>
    {
        registry.Delete(request.Name, request.Force, ports.GuestPortsOn);
        return Task.FromResult(new DeleteNetworkResponse());
    });

    public override async Task WatchNetworks(WatchNetworksRequest request, IServerStreamWriter<WatchNetworksResponse> responseStream, ServerCallContext context)
    {
        using var ending = CancellationTokenSource.CreateLinkedTokenSource(context.CancellationToken, lifetime.ApplicationStopping);
        ulong? position = ReadToken(request.ResumeToken);
        try
        {
            while (true)
            {
                FeedBatch<NetworkDefinition> batch = await registry.Feed.NextAsync(position, ending.Token);
                position = batch.Revision;
                if (batch.Snapshot is { } networks)
                {
                    var snapshot = new NetworkSnapshot();
                    snapshot.Networks.AddRange(networks.Select(network => network.ToMessage()));
                    await responseStream.WriteAsync(new WatchNetworksResponse { Snapshot = snapshot, ResumeToken = Token(batch.Revision) }, ending.Token);
                }
                foreach (Change<NetworkDefinition> change in batch.Changes)
                {
                    var message = new NetworkChange { Type = (ChangeType)change.Kind, Network = change.Item.ToMessage() };
                    await responseStream.WriteAsync(new WatchNetworksResponse { Change = message, ResumeToken = Token(change.Revision) }, ending.Token);
                }
            }
        }
        catch (OperationCanceledException) when (lifetime.ApplicationStopping.IsCancellationRequested)
        {
            throw Refusals.Stopping();
        }
    }

    private static string Token(ulong revision) => $"{Run}.{revision.ToString(CultureInfo.InvariantCulture)}";

    private static ulong? ReadToken(string token) =>
        token.StartsWith(Run + ".", StringComparison.Ordinal) && ulong.TryParse(token.AsSpan(Run.Length + 1), NumberStyles.None, CultureInfo.InvariantCulture, out ulong revision) ? revision : null;

    /// <summary>A network with what only the data path knows of it.</summary>
    private Network Tell(NetworkDefinition network)
    {
        Network message = network.ToMessage(CountersOf(network));
        foreach (AddressConflict conflict in plane.TryFind(network.Name)?.Addresses.Conflicts ?? [])
            message.Conditions.Add($"{conflict.Address} is the address of two stations, {conflict.Mac} ({IdOf(conflict.Port)}) and {conflict.OtherMac} ({IdOf(conflict.OtherPort)}): give one of them another");
        return message;
    }

    private static string IdOf(string port) => port[(port.LastIndexOf('/') + 1)..];

    private TrafficCounters? CountersOf(NetworkDefinition network) => plane.TryFind(network.Name)?.Counters is { } counters ? counters.ToMessage(counters.Drops) : null;
}
