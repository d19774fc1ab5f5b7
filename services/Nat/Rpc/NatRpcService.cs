using System.Globalization;
using System.Text.RegularExpressions;
using Grpc.Core;
using VNetMesh.Hosting;
using VNetMesh.Nat.Flows;
using VNetMesh.Nat.Forwards;
using VNetMesh.Nat.Gateways;
using VNetMesh.Packets;
using VNetMesh.V1;

namespace VNetMesh.Nat.Rpc;

/// <summary>NatService: translates, and asks the engine.</summary>
internal sealed partial class NatRpcService(NatEngine engine) : NatService.NatServiceBase
{
    private const string AllNetworks = "networks/-";
    private const int MaxPage = 1000;
    private const int MaxRecent = 500;
    private const int DefaultRecent = 50;

    public override async Task<ListFlowsResponse> ListFlows(ListFlowsRequest request, ServerCallContext context)
    {
        CheckParent(request.Parent);
        int size = PageSize(request.PageSize);
        (string afterNetwork, long afterNumber) = ReadToken(request.PageToken);
        // Networks in the order of their names, each network's flows oldest first.
        List<List<Flows.FlowSnapshot>> lists = await engine.AskAllAsync(gateway =>
        {
            int order = string.CompareOrdinal(gateway.Settings.Network, afterNetwork);
            return order < 0 || (request.Parent != AllNetworks && request.Parent != gateway.Settings.Network)
                ? []
                : gateway.Flows.List(order == 0 ? afterNumber : 0, size + 1, Links.EventLoop.Now);
        });
        List<Flows.FlowSnapshot> flows = [.. lists.SelectMany(list => list).Take(size + 1)];
        var response = new ListFlowsResponse();
        if (flows.Count > size)
        {
            flows.RemoveAt(size);
            response.NextPageToken = string.Create(CultureInfo.InvariantCulture, $"{flows[^1].Network}/{flows[^1].Number}");
        }
        response.Flows.AddRange(flows.Select(NatTranslation.ToProto));
        return response;
    }

    public override async Task<GetFlowResponse> GetFlow(GetFlowRequest request, ServerCallContext context)
    {
        FlowRecord? record = TryReadFlowName(request.Name, out string network, out long number)
            ? await engine.AskAsync(network, gateway => gateway.Flows.Describe(number, Links.EventLoop.Now))
            : null;
        return new GetFlowResponse { Story = NatTranslation.ToProto(record ?? throw FlowNotFound(request.Name)) };
    }

    public override async Task<ListRecentFlowsResponse> ListRecentFlows(ListRecentFlowsRequest request, ServerCallContext context)
    {
        CheckParent(request.Parent);
        if (request.PageSize is < 0 or > MaxRecent)
            throw RpcErrors.InvalidArgument("PAGE_SIZE_OUT_OF_RANGE", $"page_size must be 0 to {MaxRecent}");
        int size = request.PageSize == 0 ? DefaultRecent : request.PageSize;
        Ipv4Address? guest = request.GuestAddress.Length == 0 ? null
            : Ipv4Address.TryParse(request.GuestAddress, out Ipv4Address parsed) ? parsed
            : throw RpcErrors.InvalidArgument("ADDRESS_INVALID", $"'{request.GuestAddress}' is no IPv4 address", ("address", request.GuestAddress));
        List<List<FlowRecord>> lists = await engine.AskAllAsync(gateway =>
            request.Parent == AllNetworks || request.Parent == gateway.Settings.Network ? gateway.Flows.Recent(guest, size, Links.EventLoop.Now) : []);
        return new ListRecentFlowsResponse
        {
            Stories = { lists.SelectMany(list => list).OrderByDescending(record => record.Flow.StartTime).Take(size).Select(NatTranslation.ToProto) },
        };
    }

    public override async Task<DeleteFlowResponse> DeleteFlow(DeleteFlowRequest request, ServerCallContext context)
    {
        bool found = TryReadFlowName(request.Name, out string network, out long number)
            && await engine.AskAsync(network, gateway =>
            {
                if (gateway.Flows.Find(number) is not { } flow)
                    return false;
                flow.End("deleted");
                return true;
            });
        return found ? new DeleteFlowResponse() : throw FlowNotFound(request.Name);
    }

    public override async Task WatchFlows(WatchFlowsRequest request, IServerStreamWriter<WatchFlowsResponse> responseStream, ServerCallContext context)
    {
        CheckParent(request.Parent);
        // The watch begins before the snapshot is taken; a change that is in both is told twice rather than not at all.
        using FlowWatch watch = engine.Hub.Watch(request.Parent == AllNetworks ? null : request.Parent);
        List<List<Flows.FlowSnapshot>> lists = await engine.AskAllAsync(gateway =>
            request.Parent == AllNetworks || request.Parent == gateway.Settings.Network ? gateway.Flows.List(0, int.MaxValue, Links.EventLoop.Now) : []);
        var snapshot = new V1.FlowSnapshot();
        snapshot.Flows.AddRange(lists.SelectMany(list => list).Select(NatTranslation.ToProto));
        await responseStream.WriteAsync(new WatchFlowsResponse { Snapshot = snapshot }, context.CancellationToken);
        await foreach (Flows.FlowChange change in watch.Changes.ReadAllAsync(context.CancellationToken))
        {
            await responseStream.WriteAsync(new WatchFlowsResponse
            {
                Change = new V1.FlowChange { Type = NatTranslation.ToProto(change.Kind), Flow = NatTranslation.ToProto(change.Flow) },
                Missed = watch.TakeMissed(),
            }, context.CancellationToken);
        }
    }

    public override async Task<ListPortForwardsResponse> ListPortForwards(ListPortForwardsRequest request, ServerCallContext context)
    {
        CheckParent(request.Parent);
        List<ForwardStatus> all = await engine.ForwardsAsync();
        IEnumerable<PortForward> forwards = all.Where(status => request.Parent == AllNetworks || status.Rule.Network == request.Parent)
            .Select(NatTranslation.ToProto).OrderBy(forward => forward.Name, StringComparer.Ordinal);
        (List<PortForward> page, string next) = Pages.Take(forwards, forward => forward.Name, request.PageSize, request.PageToken);
        return new ListPortForwardsResponse { PortForwards = { page }, NextPageToken = next };
    }

    public override async Task<CreatePortForwardResponse> CreatePortForward(CreatePortForwardRequest request, ServerCallContext context)
    {
        GatewaySettings settings = engine.SettingsOf(request.Parent)
            ?? throw RpcErrors.NotFound("NETWORK_NOT_FOUND", $"nat serves no network '{request.Parent}'; forwards need a NAT network", ("network", request.Parent));
        ForwardRule rule = ForwardRequests.Read(request, settings);
        try
        {
            ForwardStatus status = await engine.AddForwardAsync(rule)
                ?? throw RpcErrors.NotFound("NETWORK_NOT_FOUND", $"nat serves no network '{request.Parent}'", ("network", request.Parent));
            return new CreatePortForwardResponse { PortForward = NatTranslation.ToProto(status) };
        }
        catch (ListenRefusedException exception)
        {
            throw RpcErrors.FailedPrecondition("LISTEN_REFUSED", exception.Message, ("address", rule.ListenAddress.ToString()), ("port", rule.ListenPort.ToString(CultureInfo.InvariantCulture)));
        }
        catch (InvalidOperationException)
        {
            throw RpcErrors.AlreadyExists("FORWARD_EXISTS", $"there is a forward '{rule.Id}' on {rule.Network}; choose another id, or delete it first", ("id", rule.Id));
        }
    }

    public override async Task<DeletePortForwardResponse> DeletePortForward(DeletePortForwardRequest request, ServerCallContext context)
    {
        Match name = ForwardName().Match(request.Name);
        return name.Success && await engine.RemoveForwardAsync(name.Groups[1].Value, name.Groups[2].Value)
            ? new DeletePortForwardResponse()
            : throw RpcErrors.NotFound("FORWARD_NOT_FOUND", $"there is no forward '{request.Name}'", ("name", request.Name));
    }

    public override async Task<ListGatewaysResponse> ListGateways(ListGatewaysRequest request, ServerCallContext context)
    {
        List<string> resolvers = await engine.ResolversAsync();
        List<V1.Gateway> gateways = await engine.AskAllAsync(gateway => NatTranslation.ToProto(gateway, engine.Limits, resolvers));
        return new ListGatewaysResponse { Gateways = { gateways } };
    }

    private void CheckParent(string parent)
    {
        if (parent != AllNetworks && !engine.Serves(parent))
            throw RpcErrors.NotFound("NETWORK_NOT_FOUND", $"nat serves no network '{parent}'; name a NAT network, or '{AllNetworks}' for all", ("network", parent));
    }

    private static bool TryReadFlowName(string name, out string network, out long number)
    {
        Match match = FlowName().Match(name);
        (network, number) = (match.Groups[1].Value, 0);
        return match.Success && long.TryParse(match.Groups[2].ValueSpan, NumberStyles.None, CultureInfo.InvariantCulture, out number);
    }

    private static RpcException FlowNotFound(string name) =>
        RpcErrors.NotFound("FLOW_NOT_FOUND", $"there is no flow '{name}'; it may have ended: see the list of flows", ("name", name));

    private static int PageSize(int size) => size switch
    {
        < 0 => throw RpcErrors.InvalidArgument("PAGE_SIZE_OUT_OF_RANGE", $"page_size must be 0 to {MaxPage}"),
        0 => MaxPage,
        _ => Math.Min(size, MaxPage),
    };

    private static (string Network, long Number) ReadToken(string token)
    {
        int slash = token.LastIndexOf('/');
        return token.Length == 0 ? ("", 0)
            : slash > 0 && long.TryParse(token.AsSpan(slash + 1), NumberStyles.None, CultureInfo.InvariantCulture, out long number) ? (token[..slash], number)
            : throw RpcErrors.InvalidArgument("PAGE_TOKEN_INVALID", "page_token is not one that this list gave");
    }

    [GeneratedRegex("^(networks/[^/]+)/flows/([0-9]{1,18})$")]
    private static partial Regex FlowName();

    [GeneratedRegex("^(networks/[^/]+)/forwards/([^/]+)$")]
    private static partial Regex ForwardName();
}
