using System.CommandLine;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;
using VNetMesh.V1;

namespace VNetMesh.Cli.Commands;

/// <summary>port ls, show; mac ls.</summary>
internal static class PortCommands
{
    public static Command Create(Services services, Output output) => new("port", "What is plugged into the networks")
    {
        List(services, output),
        Show(services, output),
    };

    public static Command Macs(Services services, Output output)
    {
        var list = new Command("ls", "List the addresses learned on a network");
        var network = new Argument<string>("network");
        Option<bool> json = RootCommands.JsonOption();
        list.Add(network);
        list.Add(json);
        list.SetAction(async (parsed, cancellation) =>
        {
            List<MacEntry> all = await Paging.AllAsync<MacEntry>(async token =>
            {
                ListMacEntriesResponse page = await services.Ports.ListMacEntriesAsync(new ListMacEntriesRequest { Parent = Names.Network(parsed.GetRequiredValue(network)), PageToken = token }, deadline: Services.Soon, cancellationToken: cancellation);
                return (page.Entries, page.NextPageToken);
            });
            if (parsed.GetValue(json))
                output.WriteJson(all);
            else
                output.WriteTable(["mac", "port", "last seen"], [.. all.Select(entry => new[] { entry.Mac, Names.Short(entry.Port), Units.Time(entry.Age) + " ago" })], "No addresses learned.");
            return ExitCode.Ok;
        });
        return new Command("mac", "Addresses that the switch has learned") { list };
    }

    public static Task<List<Port>> AllAsync(Services services, string parent, CancellationToken cancellation) => Paging.AllAsync<Port>(async token =>
    {
        ListPortsResponse page = await services.Ports.ListPortsAsync(new ListPortsRequest { Parent = parent, PageToken = token }, deadline: Services.Soon, cancellationToken: cancellation);
        return (page.Ports, page.NextPageToken);
    });

    public static void WriteTable(Output output, IReadOnlyList<Port> ports) => output.WriteTable(
        ["network", "port", "role", "by", "state", "mac", "received", "sent", "drops"], [.. ports.Select(Row)], "No ports.");

    private static string[] Row(Port port) =>
    [
        Names.NetworkOf(port.Name),
        Names.Short(port.Name),
        Units.Name(port.Role),
        Units.Name(port.Transport),
        Units.Name(port.State),
        port.Mac.Length == 0 ? "–" : port.Mac,
        Units.Bytes(port.Counters?.RxBytes ?? 0),
        Units.Bytes(port.Counters?.TxBytes ?? 0),
        Units.Count((ulong)(port.Counters?.Drops.Values.Sum(count => (decimal)count) ?? 0)),
    ];

    private static Command List(Services services, Output output)
    {
        var command = new Command("ls", "List the ports of a network, or of all");
        Argument<string?> network = RootCommands.OptionalNetwork();
        Option<bool> json = RootCommands.JsonOption();
        command.Add(network);
        command.Add(json);
        command.SetAction(async (parsed, cancellation) =>
        {
            List<Port> all = await AllAsync(services, Names.NetworkOrAll(parsed.GetValue(network)), cancellation);
            if (parsed.GetValue(json))
                output.WriteJson(all);
            else
                WriteTable(output, all);
            return ExitCode.Ok;
        });
        return command;
    }

    private static Command Show(Services services, Output output)
    {
        var command = new Command("show", "Show one port in full");
        var name = new Argument<string>("port") { Description = "NETWORK/PORT, e.g. vmnet8/web1" };
        Option<bool> json = RootCommands.JsonOption();
        command.Add(name);
        command.Add(json);
        command.SetAction(async (parsed, cancellation) =>
        {
            GetPortResponse response = await services.Ports.GetPortAsync(new GetPortRequest { Name = Names.Child(parsed.GetRequiredValue(name), "ports") }, deadline: Services.Soon, cancellationToken: cancellation);
            Port port = response.Port;
            if (parsed.GetValue(json))
            {
                output.WriteJson(port);
                return ExitCode.Ok;
            }
            output.WriteFields(
            [
                ("name", $"{Names.NetworkOf(port.Name)}/{Names.Short(port.Name)}"),
                ("role", Units.Name(port.Role)),
                ("by", Units.Name(port.Transport)),
                ("state", Units.Name(port.State)),
                ("owner", port.Owner),
                ("mac", port.Mac),
                ("offloads", Offloads(port.Offloads)),
                ("received", $"{Units.Count(port.Counters?.RxFrames ?? 0)} frames, {Units.Bytes(port.Counters?.RxBytes ?? 0)}"),
                ("sent", $"{Units.Count(port.Counters?.TxFrames ?? 0)} frames, {Units.Bytes(port.Counters?.TxBytes ?? 0)}"),
                ("drops", port.Counters is null ? "" : Units.Drops(port.Counters.Drops)),
                ("age", Units.Since(port.CreateTime)),
            ]);
            return ExitCode.Ok;
        });
        return command;
    }

    private static string Offloads(Offloads? offloads)
    {
        if (offloads is not { Checksum: true })
            return "none";
        return "checksum" + (offloads.Tso4 ? ", tso4" : "") + (offloads.Tso6 ? ", tso6" : "");
    }
}
