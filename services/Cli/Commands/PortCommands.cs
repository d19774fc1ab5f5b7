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
        Verbs.ListOf("ls", "List the ports of a network, or of all", output, (parent, cancellation) => AllAsync(services, parent, cancellation), all => WriteTable(output, all)),
        Verbs.Show("Show one port in full", new Argument<string>("port") { Description = "NETWORK/PORT, e.g. vmnet8/web1" }, output,
            async (name, cancellation) => (await services.Ports.GetPortAsync(new GetPortRequest { Name = Names.Child(name, "ports") }, deadline: Services.Soon, cancellationToken: cancellation)).Port,
            port => WriteFields(output, port)),
    };

    public static Command Macs(Services services, Output output) => new("mac", "Addresses that the switch has learned")
    {
        Verbs.ListOf("ls", "List the addresses learned on a network", output, (parent, cancellation) => AllMacsAsync(services, parent, cancellation), all => WriteTable(output, all), networkRequired: true),
    };

    private static Task<IReadOnlyList<MacEntry>> AllMacsAsync(Services services, string parent, CancellationToken cancellation) => Paging.AllAsync<MacEntry>(async token =>
    {
        ListMacEntriesResponse page = await services.Ports.ListMacEntriesAsync(new ListMacEntriesRequest { Parent = parent, PageToken = token }, deadline: Services.Soon, cancellationToken: cancellation);
        return (page.Entries, page.NextPageToken);
    });

    private static void WriteTable(Output output, IReadOnlyList<MacEntry> entries) => output.WriteTable(
        ["mac", "port", "last seen"], [.. entries.Select(entry => new[] { entry.Mac, Names.Short(entry.Port), Units.Time(entry.Age) + " ago" })], "No addresses learned.");

    public static Task<IReadOnlyList<Port>> AllAsync(Services services, string parent, CancellationToken cancellation) => Paging.AllAsync<Port>(async token =>
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

    private static void WriteFields(Output output, Port port) => output.WriteFields(
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

    private static string Offloads(Offloads? offloads)
    {
        if (offloads is not { Checksum: true })
            return "none";
        return "checksum" + (offloads.Tso4 ? ", tso4" : "") + (offloads.Tso6 ? ", tso6" : "") + (offloads.Uso ? ", uso" : "");
    }
}
