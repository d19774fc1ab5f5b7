using System.CommandLine;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;
using VNetMesh.V1;

namespace VNetMesh.Cli.Commands;

/// <summary>lease ls, rm; reservation ls, add, rm.</summary>
internal static class DhcpCommands
{
    public static Command Leases(Services services, Output output) => new("lease", "Addresses that DHCP has given out")
    {
        Verbs.ListOf("ls", "List the leases of a network, or of all", output, (parent, cancellation) => AllAsync(services, parent, cancellation), all => WriteTable(output, all)),
        Verbs.Remove("Forget a lease, so that its address can be given out again", new Argument<string>("lease") { Description = "NETWORK/ADDRESS, e.g. vmnet8/192.168.108.128" },
            async (name, cancellation) => await services.Dhcp.DeleteLeaseAsync(new DeleteLeaseRequest { Name = Names.Child(name, "leases") }, deadline: Services.Soon, cancellationToken: cancellation)),
    };

    public static Command Reservations(Services services, Output output) => new("reservation", "Addresses that DHCP keeps for a guest")
    {
        Verbs.ListOf("ls", "List the reservations of a network, or of all", output, (parent, cancellation) => AllReservationsAsync(services, parent, cancellation), all => WriteTable(output, all)),
        AddReservation(services),
        Verbs.Remove("Remove a reservation", new Argument<string>("reservation") { Description = "NETWORK/NAME" },
            async (name, cancellation) => await services.Dhcp.DeleteReservationAsync(new DeleteReservationRequest { Name = Names.Child(name, "reservations") }, deadline: Services.Soon, cancellationToken: cancellation)),
    };

    public static Task<IReadOnlyList<Lease>> AllAsync(Services services, string parent, CancellationToken cancellation) => Paging.AllAsync<Lease>(async token =>
    {
        ListLeasesResponse page = await services.Dhcp.ListLeasesAsync(new ListLeasesRequest { Parent = parent, PageToken = token }, deadline: Services.Soon, cancellationToken: cancellation);
        return (page.Leases, page.NextPageToken);
    });

    public static void WriteTable(Output output, IReadOnlyList<Lease> leases) => output.WriteTable(
        ["network", "address", "mac", "hostname", "state", "expires"],
        [.. leases.Select(lease => new[] { Names.NetworkOf(lease.Name), lease.Ipv4Address, lease.Mac, lease.Hostname.Length == 0 ? "–" : lease.Hostname, Units.Name(lease.State) + (lease.Reserved ? ", reserved" : ""), Units.Until(lease.ExpireTime) })],
        "No leases.");

    public static Task<IReadOnlyList<Reservation>> AllReservationsAsync(Services services, string parent, CancellationToken cancellation) => Paging.AllAsync<Reservation>(async token =>
    {
        ListReservationsResponse page = await services.Dhcp.ListReservationsAsync(new ListReservationsRequest { Parent = parent, PageToken = token }, deadline: Services.Soon, cancellationToken: cancellation);
        return (page.Reservations, page.NextPageToken);
    });

    private static void WriteTable(Output output, IReadOnlyList<Reservation> reservations) => output.WriteTable(
        ["network", "reservation", "address", "mac", "client id", "hostname"], [.. reservations.Select(ReservationRow)], "No reservations.");

    private static string[] ReservationRow(Reservation reservation) =>
        [Names.NetworkOf(reservation.Name), Names.Short(reservation.Name), reservation.Ipv4Address, Dash(reservation.Mac), Dash(reservation.ClientId), Dash(reservation.Hostname)];

    private static string Dash(string text) => text.Length == 0 ? "–" : text;

    private static Command AddReservation(Services services)
    {
        var command = new Command("add", "Keep an address for a guest");
        var name = new Argument<string>("reservation") { Description = "NETWORK/NAME, e.g. vmnet8/web1" };
        var address = new Option<string>("--address") { Description = "IPv4 address inside the network's subnet", Required = true };
        var mac = new Option<string>("--mac") { Description = "The guest's MAC address", DefaultValueFactory = _ => "" };
        var clientId = new Option<string>("--client-id") { Description = "The guest's DHCP client id, hexadecimal", DefaultValueFactory = _ => "" };
        var hostname = new Option<string>("--hostname") { Description = "Host name that DHCP tells it", DefaultValueFactory = _ => "" };
        command.Add(name);
        foreach (Option option in (Option[])[address, mac, clientId, hostname])
            command.Add(option);
        command.SetAction(async (parsed, cancellation) =>
        {
            string full = Names.Child(parsed.GetRequiredValue(name), "reservations");
            var reservation = new Reservation { Ipv4Address = parsed.GetRequiredValue(address), Mac = parsed.GetRequiredValue(mac), ClientId = parsed.GetRequiredValue(clientId), Hostname = parsed.GetRequiredValue(hostname) };
            await services.Dhcp.CreateReservationAsync(new CreateReservationRequest { Parent = "networks/" + Names.NetworkOf(full), ReservationId = Names.Short(full), Reservation = reservation }, deadline: Services.Soon, cancellationToken: cancellation);
            return ExitCode.Ok;
        });
        return command;
    }
}
