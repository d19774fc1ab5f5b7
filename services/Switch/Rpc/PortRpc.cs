using System.Diagnostics;
using Google.Protobuf;
using Google.Protobuf.WellKnownTypes;
using Grpc.Core;
using VNetMesh.Hosting;
using VNetMesh.Links;
using VNetMesh.Packets;
using VNetMesh.Switch.Forwarding;
using VNetMesh.Switch.Handoff;
using VNetMesh.Switch.Registry;
using VNetMesh.V1;

namespace VNetMesh.Switch.Rpc;

/// <summary>PortService: translates, and nothing else; Attach is carried out by <see cref="AttachSession"/>.</summary>
public sealed class PortRpc(NetworkRegistry registry, PortDirectory ports, ForwardingPlane plane, HandoffTokens tokens, IHostApplicationLifetime lifetime) : PortService.PortServiceBase
{
    private const string AllNetworks = "networks/-";
    private const int MaxMacPage = 10_000;

    public override Task<ListPortsResponse> ListPorts(ListPortsRequest request, ServerCallContext context)
    {
        CheckParent(request.Parent);
        IEnumerable<PortEntry> listed = ports.List().Where(entry => IsUnder(entry.Info, request.Parent));
        (List<PortEntry> page, string next) = Pages.Take(listed, entry => entry.Info.Name, request.PageSize, request.PageToken);
        var response = new ListPortsResponse { NextPageToken = next };
        response.Ports.AddRange(page.Select(entry => entry.ToMessageWithCounters()));
        return Task.FromResult(response);
    }

    public override Task<GetPortResponse> GetPort(GetPortRequest request, ServerCallContext context) =>
        Task.FromResult(new GetPortResponse { Port = Refusals.Translate(() => ports.Get(request.Name)).ToMessageWithCounters() });

    public override Task<RegisterPortResponse> RegisterPort(RegisterPortRequest request, ServerCallContext context)
    {
        PortEntry entry = Refusals.Translate(() => ports.Register(PortMessages.ToInfo(request.Parent, request.PortId, request.Port ?? new Port())));
        entry.Forwarding.Birth = Activity.Current is { } trace ? new PortBirth(TraceContext.Of(trace), EventLoop.Now) : null;
        return Task.FromResult(new RegisterPortResponse { Port = entry.ToMessageWithCounters(), HandoffToken = ByteString.CopyFrom(tokens.Issue(entry)) });
    }

    public override Task<DeletePortResponse> DeletePort(DeletePortRequest request, ServerCallContext context) => Refusals.Translate(() =>
    {
        ports.Delete(request.Name);
        return Task.FromResult(new DeletePortResponse());
    });

    public override async Task WatchPorts(WatchPortsRequest request, IServerStreamWriter<WatchPortsResponse> responseStream, ServerCallContext context)
    {
        CheckParent(request.Parent);
        using var ending = CancellationTokenSource.CreateLinkedTokenSource(context.CancellationToken, lifetime.ApplicationStopping);
        ulong? position = null;
        try
        {
            while (true)
            {
                FeedBatch<PortInfo> batch = await ports.Feed.NextAsync(position, ending.Token);
                position = batch.Revision;
                if (batch.Snapshot is { } all)
                {
                    var snapshot = new PortSnapshot();
                    snapshot.Ports.AddRange(all.Where(port => IsUnder(port, request.Parent)).Select(port => port.ToMessage()));
                    await responseStream.WriteAsync(new WatchPortsResponse { Snapshot = snapshot }, ending.Token);
                }
                foreach (Change<PortInfo> change in batch.Changes.Where(change => IsUnder(change.Item, request.Parent)))
                {
                    var message = new PortChange { Type = (ChangeType)change.Kind, Port = change.Item.ToMessage() };
                    await responseStream.WriteAsync(new WatchPortsResponse { Change = message }, ending.Token);
                }
            }
        }
        catch (OperationCanceledException) when (lifetime.ApplicationStopping.IsCancellationRequested)
        {
            throw Refusals.Stopping();
        }
    }

    public override async Task<ListMacEntriesResponse> ListMacEntries(ListMacEntriesRequest request, ServerCallContext context)
    {
        Refusals.Translate(() => registry.Get(request.Parent));
        List<(MacAddress Address, string Port, long Age)> entries = await plane.ListMacsAsync(request.Parent);
        entries.Sort((one, other) => one.Address.CompareTo(other.Address));
        (List<(MacAddress Address, string Port, long Age)> page, string next) = Pages.Take(entries, entry => entry.Address.ToString(), request.PageSize, request.PageToken, MaxMacPage);
        var response = new ListMacEntriesResponse { NextPageToken = next };
        response.Entries.AddRange(page.Select(entry => new MacEntry
        {
            Mac = entry.Address.ToString(),
            Port = entry.Port,
            Age = Duration.FromTimeSpan(TimeSpan.FromMicroseconds(entry.Age)),
        }));
        return response;
    }

    public override async Task Attach(IAsyncStreamReader<AttachRequest> requestStream, IServerStreamWriter<AttachResponse> responseStream, ServerCallContext context)
    {
        using var ending = CancellationTokenSource.CreateLinkedTokenSource(context.CancellationToken, lifetime.ApplicationStopping);
        try
        {
            await new AttachSession(registry, ports, requestStream, responseStream).RunAsync(ending.Token);
        }
        catch (RegistryException refusal)
        {
            throw refusal.ToRpc();
        }
        catch (OperationCanceledException) when (lifetime.ApplicationStopping.IsCancellationRequested)
        {
            throw Refusals.Stopping();
        }
    }

    private void CheckParent(string parent)
    {
        if (parent != AllNetworks)
            Refusals.Translate(() => registry.Get(parent));
    }

    private static bool IsUnder(PortInfo port, string parent) => parent == AllNetworks || port.Network == parent;
}
