using Grpc.Core;
using VNetMesh.Cli.Commands;
using VNetMesh.Cli.Connections;
using VNetMesh.V1;

namespace VNetMesh.Cli.Apply;

/// <summary>What the services have now of what a file can declare.</summary>
internal sealed record InstanceState(IReadOnlyList<Network> Networks, IReadOnlyList<Reservation> Reservations, IReadOnlyList<PortForward> Forwards, IReadOnlyList<Guest> Guests)
{
    public static async Task<InstanceState> ReadAsync(Services services, CancellationToken cancellation) => new(
        await NetworkCommands.AllAsync(services, cancellation),
        await ReservationsAsync(services, cancellation),
        await ForwardsAsync(services, cancellation),
        // A file declares namespaces; what plugs itself in is left alone.
        [.. (await GuestCommands.AllAsync(services, cancellation)).Where(guest => guest.Kind != GuestKind.Vm)]);

    private static Task<IReadOnlyList<Reservation>> ReservationsAsync(Services services, CancellationToken cancellation) => Paging.AllAsync<Reservation>(async token =>
    {
        ListReservationsResponse page = await services.Dhcp.ListReservationsAsync(new ListReservationsRequest { Parent = Names.NetworkOrAll(null), PageToken = token }, deadline: Services.Soon, cancellationToken: cancellation);
        return (page.Reservations, page.NextPageToken);
    });

    private static Task<IReadOnlyList<PortForward>> ForwardsAsync(Services services, CancellationToken cancellation) => Paging.AllAsync<PortForward>(async token =>
    {
        ListPortForwardsResponse page = await services.Nat.ListPortForwardsAsync(new ListPortForwardsRequest { Parent = Names.NetworkOrAll(null), PageToken = token }, deadline: Services.Soon, cancellationToken: cancellation);
        return (page.PortForwards, page.NextPageToken);
    });
}

/// <summary>One step from what is to what the file says.</summary>
/// <param name="Sign">"+" made, "~" changed, "-" removed.</param>
/// <param name="What">"network lab", "reservation lab/web1", ….</param>
/// <param name="Line">Of the file; 0 for what the file does not name.</param>
/// <param name="Details">What changes, a line each.</param>
internal sealed record ApplyStep(char Sign, string What, long Line, IReadOnlyList<string> Details, Func<CancellationToken, Task> RunAsync);

/// <summary>A service refused a step before anything was changed.</summary>
internal sealed record ApplyRefusal(string What, long Line, RpcException Exception);
