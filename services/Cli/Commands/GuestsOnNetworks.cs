using Grpc.Core;
using VNetMesh.Cli.Connections;
using VNetMesh.V1;

namespace VNetMesh.Cli.Commands;

/// <summary>Guests that stand in the way of a network's removal.</summary>
internal static class GuestsOnNetworks
{
    /// <summary>
    /// Removes the guests of a network where that is forced: a guest without its network is of no use to anybody. Where the
    /// agent is away the switch alone decides.
    /// </summary>
    /// <exception cref="CliException">Guests are on it, and it is not forced.</exception>
    public static async Task MakeWayAsync(Services services, string network, bool force, CancellationToken cancellation)
    {
        List<Guest> guests;
        try
        {
            guests = [.. (await GuestCommands.AllAsync(services, cancellation)).Where(guest => guest.Network == network)];
        }
        catch (RpcException exception) when (exception.StatusCode == StatusCode.Unavailable)
        {
            return;
        }
        if (guests.Count > 0 && !force)
            throw new CliException(ExitCode.Refused, $"{network} has guests: {string.Join(", ", guests.Select(guest => Names.Short(guest.Name)))}; remove them with 'vnet guest rm', or all at once with --force [NETWORK_IN_USE]");
        foreach (Guest guest in guests)
            await services.Agent.DeleteGuestAsync(new DeleteGuestRequest { Name = guest.Name }, deadline: DateTime.UtcNow.AddSeconds(30), cancellationToken: cancellation);
    }
}
