using Grpc.Core;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;
using VNetMesh.V1;

namespace VNetMesh.Cli.Commands;

/// <summary>What `vnet network show`, create and update tell of a network's way out, as the agent has it.</summary>
internal static class EgressFields
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(50);

    public static IEnumerable<(string Name, string Value)> Of(Network network, Egress? egress)
    {
        if (network.Kind != NetworkKind.HostOnly)
            yield break;
        string by = egress is { Active: true, Interfaces.Count: > 0 } ? " by " + string.Join(", ", egress.Interfaces) : "";
        yield return ("egress", Units.Name(network.Egress) + by);
        foreach (string route in egress?.Routes ?? [])
            yield return ("route for outside", route);
    }

    /// <returns>Null where there is nothing to tell, or no agent that could.</returns>
    public static async Task<Egress?> FindAsync(Services services, Network network, CancellationToken cancellation)
    {
        if (network.Kind != NetworkKind.HostOnly)
            return null;
        try
        {
            ListEgressResponse response = await services.Agent.ListEgressAsync(new ListEgressRequest(), deadline: Services.Soon, cancellationToken: cancellation);
            return response.Egresses.FirstOrDefault(egress => egress.Network == network.Name);
        }
        catch (RpcException exception) when (exception.StatusCode is StatusCode.Unavailable or StatusCode.Unimplemented or StatusCode.DeadlineExceeded)
        {
            return null;
        }
    }

    /// <summary>The same, once the agent has brought the host in line with this revision of the network.</summary>
    public static async Task<Egress?> AwaitAsync(Services services, Network network, CancellationToken cancellation)
    {
        bool leadsOut = network.Egress is NetworkEgress.Snat or NetworkEgress.Routed;
        Egress? egress = await FindAsync(services, network, cancellation);
        for (DateTime until = DateTime.UtcNow + Patience; leadsOut && DateTime.UtcNow < until; await Task.Delay(Pause, cancellation))
        {
            egress = await FindAsync(services, network, cancellation);
            if (egress is not null && egress.Revision >= network.Revision && (egress.Active || egress.Conditions.Count > 0))
                break;
        }
        return egress;
    }
}
