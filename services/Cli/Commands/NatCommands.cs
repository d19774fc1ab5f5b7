using System.CommandLine;
using System.Globalization;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;
using VNetMesh.V1;

namespace VNetMesh.Cli.Commands;

/// <summary>nat flows, gateways, forward ls, add, rm.</summary>
internal static class NatCommands
{
    public static Command Create(Services services, Output output) => new("nat", "Connections through the NAT, and ports forwarded to guests")
    {
        Verbs.ListOf("flows", "List the flows that are alive", output, (parent, cancellation) => AllFlowsAsync(services, parent, cancellation), all => WriteTable(output, all)),
        Verbs.List<Gateway>("gateways", "List the gateways: flows, limits, drops, resolvers", output,
            async cancellation => (await services.Nat.ListGatewaysAsync(new ListGatewaysRequest(), deadline: Services.Soon, cancellationToken: cancellation)).Gateways, all => WriteTable(output, all)),
        new Command("forward", "Ports of the host that lead to a guest")
        {
            Verbs.ListOf("ls", "List the forwards of a network, or of all", output, (parent, cancellation) => AllForwardsAsync(services, parent, cancellation), all => WriteTable(output, all)),
            AddForward(services),
            Verbs.Remove("Remove a forward", new Argument<string>("forward") { Description = "NETWORK/NAME" },
                async (name, cancellation) => await services.Nat.DeletePortForwardAsync(new DeletePortForwardRequest { Name = Names.Child(name, "forwards") }, deadline: Services.Soon, cancellationToken: cancellation)),
        },
    };

    public static Task<IReadOnlyList<Flow>> AllFlowsAsync(Services services, string parent, CancellationToken cancellation) => Paging.AllAsync<Flow>(async token =>
    {
        ListFlowsResponse page = await services.Nat.ListFlowsAsync(new ListFlowsRequest { Parent = parent, PageToken = token }, deadline: Services.Soon, cancellationToken: cancellation);
        return (page.Flows, page.NextPageToken);
    });

    public static void WriteTable(Output output, IReadOnlyList<Flow> flows) => output.WriteTable(
        ["network", "protocol", "guest", "", "remote", "host socket", "state", "out", "in", "age"], [.. flows.Select(Row)], "No flows.");

    private static string[] Row(Flow flow) =>
    [
        Names.NetworkOf(flow.Name),
        Units.Name(flow.Protocol),
        Address(flow.Guest),
        flow.Inbound ? "←" : "→",
        Address(flow.Remote),
        Address(flow.Host),
        Units.Name(flow.State),
        Units.Bytes(flow.BytesToRemote),
        Units.Bytes(flow.BytesToGuest),
        Units.Since(flow.StartTime),
    ];

    private static string Address(Endpoint? endpoint) =>
        endpoint is null || endpoint.Address.Length == 0 ? "–" : endpoint.Address + ":" + endpoint.Port.ToString(CultureInfo.InvariantCulture);

    private static void WriteTable(Output output, IReadOnlyList<Gateway> gateways) => output.WriteTable(
        ["network", "gateway", "link", "tcp", "udp", "icmp", "limit", "resolvers", "drops"], [.. gateways.Select(GatewayRow)], "No NAT networks.");

    private static string[] GatewayRow(Gateway gateway) =>
    [
        Names.Short(gateway.Network), gateway.Ipv4Address, gateway.LinkUp ? "up" : "down",
        Units.Count(gateway.TcpFlows), Units.Count(gateway.UdpFlows), Units.Count(gateway.IcmpFlows), Units.Count(gateway.MaxFlows),
        gateway.DnsServers.Count == 0 ? "none" : string.Join(" ", gateway.DnsServers), Units.Drops(gateway.Drops),
    ];

    public static Task<IReadOnlyList<PortForward>> AllForwardsAsync(Services services, string parent, CancellationToken cancellation) => Paging.AllAsync<PortForward>(async token =>
    {
        ListPortForwardsResponse page = await services.Nat.ListPortForwardsAsync(new ListPortForwardsRequest { Parent = parent, PageToken = token }, deadline: Services.Soon, cancellationToken: cancellation);
        return (page.PortForwards, page.NextPageToken);
    });

    private static void WriteTable(Output output, IReadOnlyList<PortForward> forwards) => output.WriteTable(
        ["network", "forward", "protocol", "listens on", "guest", "state"], [.. forwards.Select(ForwardRow)], "No forwards.");

    private static string[] ForwardRow(PortForward forward) =>
    [
        Names.NetworkOf(forward.Name), Names.Short(forward.Name), Units.Name(forward.Protocol), Address(forward.Listen), Address(forward.Guest),
        forward.Listening ? "listening" : forward.Condition,
    ];

    private static Command AddForward(Services services)
    {
        var command = new Command("add", "Lead a port of the host to a guest");
        var name = new Argument<string>("forward") { Description = "NETWORK/NAME, e.g. vmnet8/web" };
        var listen = new Option<string>("--listen") { Description = "[ADDRESS:]PORT on the host; without an address only the host itself (127.0.0.1)", Required = true };
        var guest = new Option<string>("--guest") { Description = "ADDRESS:PORT of the guest", Required = true };
        var udp = new Option<bool>("--udp") { Description = "UDP instead of TCP" };
        command.Add(name);
        foreach (Option option in (Option[])[listen, guest, udp])
            command.Add(option);
        command.SetAction(async (parsed, cancellation) =>
        {
            string full = Names.Child(parsed.GetRequiredValue(name), "forwards");
            var forward = new PortForward
            {
                Protocol = parsed.GetValue(udp) ? Protocol.Udp : Protocol.Tcp,
                Listen = ParseEndpoint(parsed.GetRequiredValue(listen), addressRequired: false),
                Guest = ParseEndpoint(parsed.GetRequiredValue(guest), addressRequired: true),
            };
            await services.Nat.CreatePortForwardAsync(new CreatePortForwardRequest { Parent = "networks/" + Names.NetworkOf(full), ForwardId = Names.Short(full), PortForward = forward }, deadline: Services.Soon, cancellationToken: cancellation);
            return ExitCode.Ok;
        });
        return command;
    }

    private static Endpoint ParseEndpoint(string text, bool addressRequired)
    {
        int colon = text.LastIndexOf(':');
        if (!ushort.TryParse(text[(colon + 1)..], NumberStyles.None, CultureInfo.InvariantCulture, out ushort port) || port == 0 || (addressRequired && colon <= 0))
            throw new CliException(ExitCode.Usage, $"'{text}' is not {(addressRequired ? "ADDRESS:PORT" : "[ADDRESS:]PORT")} with a port of 1 to 65535");
        return new Endpoint { Address = colon > 0 ? text[..colon] : "", Port = port };
    }
}
