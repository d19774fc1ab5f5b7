using System.CommandLine;
using System.Globalization;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;
using VNetMesh.V1;

namespace VNetMesh.Cli.Commands;

/// <summary>guest add, ls, show, rm.</summary>
internal static class GuestCommands
{
    /// <summary>How long `guest add` waits for an address.</summary>
    public const uint WaitMilliseconds = 10_000;

    public static Command Create(Services services, Output output) => new("guest", "Network namespaces, containers and VMs on the networks")
    {
        Add(services, output),
        Verbs.List("ls", "List the guests", output, cancellation => AllWithAddressesAsync(services, cancellation), all => WriteTable(output, all)),
        Verbs.Show("Show one guest in full", new Argument<string>("name"), output,
            async (name, cancellation) =>
            {
                Guest guest = (await services.Agent.GetGuestAsync(new GetGuestRequest { Name = Names.Guest(name) }, deadline: Services.Soon, cancellationToken: cancellation)).Guest;
                await VmAddresses.FillAsync(services, [guest], cancellation);
                return guest;
            },
            guest => WriteFields(output, guest)),
        Remove(services),
    };

    public static async Task<Guest> AddAsync(Services services, string id, Guest guest, uint waitMilliseconds, CancellationToken cancellation)
    {
        CreateGuestResponse response = await services.Agent.CreateGuestAsync(new CreateGuestRequest { GuestId = id, Guest = guest, WaitMs = waitMilliseconds },
            deadline: DateTime.UtcNow.AddMilliseconds(waitMilliseconds + 20_000), cancellationToken: cancellation);
        return response.Guest;
    }

    public static Task<IReadOnlyList<Guest>> AllAsync(Services services, CancellationToken cancellation) => Paging.AllAsync<Guest>(async token =>
    {
        ListGuestsResponse page = await services.Agent.ListGuestsAsync(new ListGuestsRequest { PageToken = token }, deadline: Services.Soon, cancellationToken: cancellation);
        return (page.Guests, page.NextPageToken);
    });

    /// <summary>The guests, with the addresses that VMs have leased: what is in a VM, the agent does not see.</summary>
    public static async Task<IReadOnlyList<Guest>> AllWithAddressesAsync(Services services, CancellationToken cancellation)
    {
        IReadOnlyList<Guest> guests = await AllAsync(services, cancellation);
        await VmAddresses.FillAsync(services, guests, cancellation);
        return guests;
    }

    public static void WriteTable(Output output, IReadOnlyList<Guest> guests) => output.WriteTable(
        ["guest", "kind", "network", "address", "mac", "state", "namespace or socket"], [.. guests.Select(Row)], "No guests; add one with: vnet guest add web1 --network vmnet8");

    private static string[] Row(Guest guest) =>
    [
        Names.Short(guest.Name),
        guest.Kind == GuestKind.Vm ? "vm" : guest.Container.Length > 0 ? "container" : "netns",
        Names.Short(guest.Network),
        guest.Ipv4Addresses.Count == 0 ? "–" : string.Join(" ", guest.Ipv4Addresses),
        guest.Mac,
        Units.Name(guest.State),
        guest.Kind == GuestKind.Vm ? guest.VmSocket : guest.Netns,
    ];

    private static Command Add(Services services, Output output)
    {
        var command = new Command("add", "Plug a network namespace into a network; without --netns a new one, named like the guest");
        var name = new Argument<string>("name") { Description = "1 to 32 of a-z, 0-9 and '-', beginning with a letter" };
        var network = new Option<string>("--network") { Description = "The network, e.g. vmnet8", Required = true };
        var mac = new Option<string>("--mac") { Description = "MAC address; by default made from the names, the same each time", DefaultValueFactory = _ => "" };
        var netns = new Option<string>("--netns") { Description = "An existing namespace: its name, its path, or a process id (of a container, say)", DefaultValueFactory = _ => "" };
        var container = new Option<string>("--container") { Description = "A running container of Docker or Podman, by name or id; best one started with --network none", DefaultValueFactory = _ => "" };
        var device = new Option<string>("--interface") { Description = "Name of the interface in it", DefaultValueFactory = _ => "eth0" };
        var noDhcp = new Option<bool>("--no-dhcp") { Description = "Run no DHCP client in it" };
        var wait = new Option<uint>("--wait") { Description = "Seconds to wait for an address, 0 to 60", DefaultValueFactory = _ => WaitMilliseconds / 1000 };
        Option<bool> json = RootCommands.JsonOption();
        foreach (Option option in (Option[])[network, mac, netns, container, device, noDhcp, wait, json])
            command.Add(option);
        command.Add(name);
        command.SetAction(async (parsed, cancellation) =>
        {
            uint seconds = parsed.GetValue(wait);
            if (seconds > 60)
                throw new CliException(ExitCode.Usage, "--wait must be 0 to 60 seconds");
            string box = parsed.GetRequiredValue(container), space = parsed.GetRequiredValue(netns);
            if (box.Length > 0 && space.Length > 0)
                throw new CliException(ExitCode.Usage, "--container and --netns say the same thing twice: give one of them");
            if (box.Length > 0)
                space = await ContainerGuests.FindAsync(services, parsed.GetRequiredValue(name), box, cancellation);
            var guest = new Guest
            {
                Container = box,
                Network = Names.Network(parsed.GetRequiredValue(network)),
                Mac = parsed.GetRequiredValue(mac),
                Netns = space,
                Interface = parsed.GetRequiredValue(device),
                NoDhcp = parsed.GetValue(noDhcp),
            };
            Guest made = await AddAsync(services, parsed.GetRequiredValue(name), guest, seconds * 1000, cancellation);
            if (parsed.GetValue(json))
                output.WriteJson(made);
            else
                WriteFields(output, made);
            return ExitCode.Ok;
        });
        return command;
    }

    private static void WriteFields(Output output, Guest guest) => output.WriteFields(
    [
        ("guest", Names.Short(guest.Name)),
        ("network", Names.Short(guest.Network)),
        ("state", Units.Name(guest.State)),
        ("address", string.Join(" ", guest.Ipv4Addresses)),
        ("mac", guest.Mac),
        ("socket", guest.VmSocket),
        ("container", guest.Container),
        ("namespace", guest.Netns),
        ("interface", guest.Interface),
        ("dhcp client", guest.Kind == GuestKind.Vm ? "" : guest.NoDhcp ? "none" : guest.DhcpClientPid == 0 ? "not running" : "pid " + guest.DhcpClientPid.ToString(CultureInfo.InvariantCulture)),
        .. guest.Conditions.Select(condition => ("condition", condition)),
    ]);

    private static Command Remove(Services services)
    {
        var command = new Command("rm", "Take guests away, and the namespaces that were made for them");
        var names = new Argument<string[]>("name") { Arity = ArgumentArity.OneOrMore };
        command.Add(names);
        command.SetAction(async (parsed, cancellation) =>
        {
            foreach (string name in parsed.GetRequiredValue(names))
                await services.Agent.DeleteGuestAsync(new DeleteGuestRequest { Name = Names.Guest(name) }, deadline: DateTime.UtcNow.AddSeconds(30), cancellationToken: cancellation);
            return ExitCode.Ok;
        });
        return command;
    }
}
