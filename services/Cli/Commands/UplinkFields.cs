using Grpc.Core;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;
using VNetMesh.V1;

namespace VNetMesh.Cli.Commands;

/// <summary>What `vnet network show`, create and update tell of a bridged network's NIC, as the agent has it.</summary>
internal static class UplinkFields
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(50);

    public static IEnumerable<(string Name, string Value)> Of(Network network, Uplink? uplink)
    {
        if (network.Kind != NetworkKind.Bridged)
            yield break;
        string chosen = network.Uplink == "auto" && uplink is { Interface.Length: > 0 } ? $" ({uplink.Interface})" : "";
        string how = network.Uplink.Length == 0 ? "none" : $"{network.Uplink}{chosen} by {Units.Name(network.UplinkDriver)}";
        yield return ("uplink", how + (network.Uplink.Length > 0 && uplink is { Active: false } ? ", not connected" : ""));
        if (uplink is { Drops.Count: > 0 })
            yield return ("uplink drops", Units.Drops(uplink.Drops));
    }

    /// <summary>Asks the agent whether the NIC can be used; where no agent answers, the registry's word is enough.</summary>
    public static async Task CheckAsync(Services services, string uplink, CancellationToken cancellation)
    {
        if (uplink.Length == 0)
            return;
        try
        {
            await services.Agent.CheckUplinkAsync(new CheckUplinkRequest { Uplink = uplink }, deadline: Services.Soon, cancellationToken: cancellation);
        }
        catch (RpcException exception) when (IsAway(exception))
        {
            // It will tell by the network's conditions.
        }
    }

    /// <returns>Null where there is nothing to tell, or no agent that could.</returns>
    public static async Task<Uplink?> FindAsync(Services services, Network network, CancellationToken cancellation)
    {
        if (network.Kind != NetworkKind.Bridged || network.Uplink.Length == 0)
            return null;
        try
        {
            ListUplinksResponse response = await services.Agent.ListUplinksAsync(new ListUplinksRequest(), deadline: Services.Soon, cancellationToken: cancellation);
            return response.Uplinks.FirstOrDefault(uplink => uplink.Network == network.Name);
        }
        catch (RpcException exception) when (IsAway(exception))
        {
            return null;
        }
    }

    /// <summary>The same, once the agent has brought the host in line with this revision of the network.</summary>
    public static async Task<Uplink?> AwaitAsync(Services services, Network network, CancellationToken cancellation)
    {
        Uplink? uplink = await FindAsync(services, network, cancellation);
        for (DateTime until = DateTime.UtcNow + Patience; network.Uplink.Length > 0 && DateTime.UtcNow < until; await Task.Delay(Pause, cancellation))
        {
            uplink = await FindAsync(services, network, cancellation);
            if (uplink is not null && uplink.Revision >= network.Revision && (uplink.Active || uplink.Conditions.Count > 0))
                break;
        }
        return uplink;
    }

    private static bool IsAway(RpcException exception) => exception.StatusCode is StatusCode.Unavailable or StatusCode.Unimplemented or StatusCode.DeadlineExceeded;
}
