using System.CommandLine;
using System.Globalization;
using Grpc.Core;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;
using VNetMesh.V1;

namespace VNetMesh.Cli.Commands;

/// <summary>vm args, run, ls, rm.</summary>
internal static class VmCommands
{
    private const uint UsualMtu = 1500;

    public static Command Create(Services services, Output output) => new("vm", "VMs on the networks")
    {
        Args(services, output),
        VmRun.Create(services),
        Verbs.List("ls", "List the VMs", output, async cancellation => (IReadOnlyList<Guest>)[.. (await GuestCommands.AllWithAddressesAsync(services, cancellation)).Where(guest => guest.Kind == GuestKind.Vm)],
            all => GuestCommands.WriteTable(output, all)),
        Verbs.Remove("Take a VM's port away", new Argument<string>("name"), (name, cancellation) => RemoveAsync(services, name, cancellation)),
    };

    /// <summary>What QEMU is to be told: a netdev, and a device with the VM's address.</summary>
    /// <param name="tap">The descriptor that QEMU has of the VM's TAP; null: it is to use the VM's socket.</param>
    public static string[] Arguments(Guest guest, uint mtu, string model, int? tap = null)
    {
        string id = Names.Short(guest.Name);
        // Of QEMU's options a comma ends the value, unless it is doubled.
        string path = guest.VmSocket.Replace(",", ",,", StringComparison.Ordinal);
        string netdev = tap is { } descriptor
            ? string.Create(CultureInfo.InvariantCulture, $"tap,id={id},fd={descriptor},vhost=off")
            : guest.VmLink == VmLink.Datagram
            ? $"dgram,id={id},local.type=unix,local.path={path}.peer,remote.type=unix,remote.path={path}"
            : $"stream,id={id},server=off,addr.type=unix,addr.path={path}";
        string size = mtu == UsualMtu || !model.StartsWith("virtio-", StringComparison.Ordinal) ? "" : string.Create(CultureInfo.InvariantCulture, $",host_mtu={mtu}");
        return ["-netdev", netdev, "-device", $"{model},netdev={id},mac={guest.Mac}{size}"];
    }

    public static Option<string> NetworkOption() => new("--network") { Description = "The network, e.g. vmnet8", Required = true };

    public static Option<string> MacOption() => new("--mac") { Description = "MAC address; by default made from the names, the same each time", DefaultValueFactory = _ => "" };

    public static Option<string> ModelOption() => new("--model") { Description = "QEMU's device, e.g. e1000", DefaultValueFactory = _ => "virtio-net-pci" };

    /// <summary>Of a network.</summary>
    public static async Task<uint> MtuAsync(Services services, string network, CancellationToken cancellation) =>
        (await services.Networks.GetNetworkAsync(new GetNetworkRequest { Name = network }, deadline: Services.Soon, cancellationToken: cancellation)).Network.Mtu;

    private static Command Args(Services services, Output output)
    {
        var command = new Command("args", "Make a VM's port, if it is not there, and print the arguments that plug QEMU (7.2 or later) into it");
        var name = new Argument<string>("name") { Description = "1 to 32 of a-z, 0-9 and '-', beginning with a letter" };
        Option<string> network = NetworkOption(), mac = MacOption(), model = ModelOption();
        var link = new Option<string>("--link") { Description = "stream (-netdev stream), or dgram (-netdev dgram)", DefaultValueFactory = _ => "stream" };
        link.AcceptOnlyFromAmong("stream", "dgram");
        command.Add(name);
        foreach (Option option in (Option[])[network, mac, model, link])
            command.Add(option);
        command.SetAction(async (parsed, cancellation) =>
        {
            string id = parsed.GetRequiredValue(name), wanted = Names.Network(parsed.GetRequiredValue(network));
            Guest guest = await EnsureAsync(services, id, wanted, parsed.GetRequiredValue(mac), parsed.GetRequiredValue(link) == "dgram" ? VmLink.Datagram : VmLink.Stream, cancellation);
            if (guest.VmLink == VmLink.Tap)
                throw new CliException(ExitCode.AlreadyExists, $"the VM '{id}' was made for 'vnet vm run': go on with that, or remove it with 'vnet vm rm {id}'");
            output.Writer.WriteLine(string.Join(' ', Arguments(guest, await MtuAsync(services, wanted, cancellation), parsed.GetRequiredValue(model))));
            return ExitCode.Ok;
        });
        return command;
    }

    /// <summary>The VM of that name, made where it is not there; how the frames of one that is there travel, stays as it is.</summary>
    public static async Task<Guest> EnsureAsync(Services services, string id, string network, string mac, VmLink link, CancellationToken cancellation)
    {
        Guest guest;
        try
        {
            return await GuestCommands.AddAsync(services, id, new Guest { Kind = GuestKind.Vm, VmLink = link, Network = network, Mac = mac }, 0, cancellation);
        }
        catch (RpcException exception) when (exception.StatusCode == StatusCode.AlreadyExists)
        {
            guest = await GetAsync(services, id, cancellation);
        }
        if (guest.Kind != GuestKind.Vm)
            throw new CliException(ExitCode.AlreadyExists, $"there is a guest '{id}' that is no VM: choose another name");
        if (guest.Network != network || (mac.Length > 0 && !string.Equals(guest.Mac, mac, StringComparison.OrdinalIgnoreCase)))
            throw new CliException(ExitCode.AlreadyExists, $"the VM '{id}' is on {Names.Short(guest.Network)} with {guest.Mac} already: remove it with 'vnet vm rm {id}', or choose another name");
        return guest;
    }

    private static async Task RemoveAsync(Services services, string id, CancellationToken cancellation)
    {
        if ((await GetAsync(services, id, cancellation)).Kind != GuestKind.Vm)
            throw new CliException(ExitCode.NotFound, $"'{id}' is no VM: see 'vnet vm ls', and 'vnet guest rm' for other guests");
        await services.Agent.DeleteGuestAsync(new DeleteGuestRequest { Name = Names.Guest(id) }, deadline: DateTime.UtcNow.AddSeconds(30), cancellationToken: cancellation);
    }

    private static async Task<Guest> GetAsync(Services services, string id, CancellationToken cancellation) =>
        (await services.Agent.GetGuestAsync(new GetGuestRequest { Name = Names.Guest(id) }, deadline: Services.Soon, cancellationToken: cancellation)).Guest;
}
