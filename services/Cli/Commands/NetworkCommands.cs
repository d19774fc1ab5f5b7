using System.CommandLine;
using System.Globalization;
using Google.Protobuf.WellKnownTypes;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;
using VNetMesh.V1;

namespace VNetMesh.Cli.Commands;

/// <summary>network ls, show, create, update, rm.</summary>
internal static class NetworkCommands
{
    public static Command Create(Services services, Output output) => new("network", "The networks of the virtual switch")
    {
        Verbs.List("ls", "List the networks", output, cancellation => AllAsync(services, cancellation), all => WriteTable(output, all)),
        Show(services, output),
        CreateOne(services, output),
        Update(services, output),
        Remove(services),
    };

    public static Task<IReadOnlyList<Network>> AllAsync(Services services, CancellationToken cancellation) => Paging.AllAsync<Network>(async token =>
    {
        ListNetworksResponse page = await services.Networks.ListNetworksAsync(new ListNetworksRequest { PageToken = token }, deadline: Services.Soon, cancellationToken: cancellation);
        return (page.Networks, page.NextPageToken);
    });

    public static void WriteTable(Output output, IReadOnlyList<Network> networks) => output.WriteTable(
        ["network", "kind", "subnet", "host", "gateway", "dhcp", "mtu", "received", "drops"], [.. networks.Select(Row)], "No networks.");

    private static string[] Row(Network network) =>
    [
        Names.Short(network.Name),
        KindName(network.Kind),
        OrDash(network.Ipv4Subnet),
        OrDash(network.Ipv4HostAddress),
        OrDash(network.Ipv4Gateway),
        network.Dhcpv4 is { Enabled: true } dhcp ? Range(dhcp) : "off",
        network.Mtu.ToString(CultureInfo.InvariantCulture),
        Units.Bytes(network.Counters?.RxBytes ?? 0),
        Units.Count((ulong)(network.Counters?.Drops.Values.Sum(count => (decimal)count) ?? 0)),
    ];

    private static string Range(Dhcpv4Settings dhcp)
    {
        // "192.168.108.128–.253" says as much as both in full.
        string end = dhcp.RangeEnd;
        int dot = dhcp.RangeStart.LastIndexOf('.');
        return dot > 0 && end.StartsWith(dhcp.RangeStart[..(dot + 1)], StringComparison.Ordinal) ? $"{dhcp.RangeStart}–{end[dot..]}" : $"{dhcp.RangeStart}–{end}";
    }

    private static string OrDash(string text) => text.Length == 0 ? "–" : text;

    private static string KindName(NetworkKind kind) => kind == NetworkKind.Nat ? "nat" : Units.Name(kind);

    private static Command Show(Services services, Output output)
    {
        Egress? egress = null;
        Uplink? uplink = null;
        return Verbs.Show("Show one network in full", new Argument<string>("network"), output, async (name, cancellation) =>
        {
            GetNetworkResponse response = await services.Networks.GetNetworkAsync(new GetNetworkRequest { Name = Names.Network(name) }, deadline: Services.Soon, cancellationToken: cancellation);
            egress = await EgressFields.FindAsync(services, response.Network, cancellation);
            uplink = await UplinkFields.FindAsync(services, response.Network, cancellation);
            return response.Network;
        }, network => WriteFields(output, network, egress, uplink));
    }

    private static void WriteFields(Output output, Network network, Egress? egress, Uplink? uplink)
    {
        Dhcpv4Settings? dhcp = network.Dhcpv4 is { Enabled: true } ? network.Dhcpv4 : null;
        output.WriteFields(
        [
            ("name", Names.Short(network.Name)),
            ("kind", KindName(network.Kind)),
            ("subnet", network.Ipv4Subnet + (network.Ipv4SubnetAuto ? " (chosen by VNetMesh)" : "")),
            ("host address", network.Ipv4HostAddress),
            ("gateway", network.Ipv4Gateway),
            ("ipv6 prefix", network.Ipv6Prefix),
            .. EgressFields.Of(network, egress),
            .. UplinkFields.Of(network, uplink),
            ("mtu", network.Mtu.ToString(CultureInfo.InvariantCulture)),
            ("dhcp", dhcp is null ? "off" : $"{Range(dhcp)}, server {dhcp.ServerAddress}"),
            ("lease", dhcp is null ? "" : $"{Units.Time(dhcp.DefaultLease)}, at most {Units.Time(dhcp.MaxLease)}"),
            ("domain", dhcp?.Domain ?? ""),
            ("dns servers", string.Join(", ", dhcp?.DnsServers ?? [])),
            ("mac ageing", Units.Time(network.MacAgeing)),
            ("mac limits", $"{Units.Count(network.MaxMacs)} on the network, {Units.Count(network.MaxMacsPerPort)} on a port"),
            ("ports isolated", network.IsolatePorts ? "yes" : "no"),
            ("received", $"{Units.Count(network.Counters?.RxFrames ?? 0)} frames, {Units.Bytes(network.Counters?.RxBytes ?? 0)}"),
            ("sent", $"{Units.Count(network.Counters?.TxFrames ?? 0)} frames, {Units.Bytes(network.Counters?.TxBytes ?? 0)}"),
            ("drops", network.Counters is null ? "" : Units.Drops(network.Counters.Drops)),
            ("revision", Units.Count(network.Revision)),
            .. network.Conditions.Concat(egress?.Conditions ?? []).Concat(uplink?.Conditions ?? []).Select(condition => ("condition", condition)),
        ]);
    }

    private static Command CreateOne(Services services, Output output)
    {
        var command = new Command("create", "Create a network; what is not given is filled in");
        var id = new Argument<string>("network") { Description = "1 to 15 of a-z, 0-9 and '-', beginning with a letter" };
        var settings = new NetworkOptions(command, withKind: true);
        command.Add(id);
        command.SetAction(async (parsed, cancellation) =>
        {
            var network = new Network();
            settings.Apply(parsed, network);
            await UplinkFields.CheckAsync(services, network.Uplink, cancellation);
            CreateNetworkResponse response = await services.Networks.CreateNetworkAsync(new CreateNetworkRequest { NetworkId = parsed.GetRequiredValue(id), Network = network }, deadline: Services.Soon, cancellationToken: cancellation);
            WriteFields(output, response.Network, await EgressFields.AwaitAsync(services, response.Network, cancellation), await UplinkFields.AwaitAsync(services, response.Network, cancellation));
            return ExitCode.Ok;
        });
        return command;
    }

    private static Command Update(Services services, Output output)
    {
        var command = new Command("update", "Change what is given, and nothing else");
        var name = new Argument<string>("network");
        var settings = new NetworkOptions(command, withKind: false);
        command.Add(name);
        command.SetAction(async (parsed, cancellation) =>
        {
            var network = new Network { Name = Names.Network(parsed.GetRequiredValue(name)) };
            List<string> paths = settings.Apply(parsed, network);
            if (paths.Count == 0)
                throw new CliException(ExitCode.Usage, "nothing to change was given; see: vnet network update --help");
            await UplinkFields.CheckAsync(services, network.Uplink, cancellation);
            UpdateNetworkResponse response = await services.Networks.UpdateNetworkAsync(new UpdateNetworkRequest { Network = network, UpdateMask = new FieldMask { Paths = { paths } } }, deadline: Services.Soon, cancellationToken: cancellation);
            WriteFields(output, response.Network, await EgressFields.AwaitAsync(services, response.Network, cancellation), await UplinkFields.AwaitAsync(services, response.Network, cancellation));
            return ExitCode.Ok;
        });
        return command;
    }

    private static Command Remove(Services services)
    {
        var command = new Command("rm", "Remove a network");
        var name = new Argument<string>("network");
        var force = new Option<bool>("--force") { Description = "Even while guests are on it: they are removed as well" };
        command.Add(name);
        command.Add(force);
        command.SetAction(async (parsed, cancellation) =>
        {
            string network = Names.Network(parsed.GetRequiredValue(name));
            await GuestsOnNetworks.MakeWayAsync(services, network, parsed.GetValue(force), cancellation);
            await services.Networks.DeleteNetworkAsync(new DeleteNetworkRequest { Name = network, Force = parsed.GetValue(force) }, deadline: Services.Soon, cancellationToken: cancellation);
            return ExitCode.Ok;
        });
        return command;
    }
}
