using System.CommandLine;
using System.Globalization;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;
using VNetMesh.V1;

namespace VNetMesh.Cli.Commands;

/// <summary>flow show; trace: what became of a flow or a guest, from what the services remember.</summary>
internal static class TraceCommands
{
    public static Command Flow(Services services, Output output) => new("flow", "One connection through the NAT, and what befell it")
    {
        Verbs.Show("Show a flow, alive or among the last that ended, as a timeline", new Argument<string>("flow") { Description = "NETWORK/NUMBER, as in vnet trace, e.g. vmnet8/12" }, output,
            async (name, cancellation) => (await services.Nat.GetFlowAsync(new GetFlowRequest { Name = Names.Child(name, "flows") }, deadline: Services.Soon, cancellationToken: cancellation)).Story,
            story => WriteStory(output, story)),
    };

    public static Command Trace(Services services, Output output)
    {
        var command = new Command("trace", "What a guest did last: DHCP exchanges and NAT flows as one timeline");
        var guest = new Argument<string>("guest") { Description = "A guest, e.g. web1" };
        var count = new Option<int>("--lines", "-n") { Description = "At most so many flows and so many DHCP messages, 1 to 500", DefaultValueFactory = _ => 20 };
        Option<bool> json = RootCommands.JsonOption();
        command.Add(guest);
        command.Add(count);
        command.Add(json);
        command.SetAction(async (parsed, cancellation) =>
        {
            if (parsed.GetValue(count) is var lines && lines is < 1 or > 500)
                throw new CliException(ExitCode.Usage, "--lines must be 1 to 500");
            Guest found = (await services.Agent.GetGuestAsync(new GetGuestRequest { Name = Names.Guest(parsed.GetRequiredValue(guest)) }, deadline: Services.Soon, cancellationToken: cancellation)).Guest;
            IReadOnlyList<ExchangeEvent> exchanges = await ExchangesAsync(services, found, lines, cancellation);
            IReadOnlyList<FlowStory> stories = await StoriesAsync(services, found, lines, cancellation);
            if (parsed.GetValue(json))
                output.Writer.WriteLine($$"""{"guest": {{Output.ToJson(found)}}, "exchanges": [{{string.Join(", ", exchanges.Select(Output.ToJson))}}], "flows": [{{string.Join(", ", stories.Select(Output.ToJson))}}]}""");
            else
                WriteTimeline(output, found, exchanges, stories);
            return ExitCode.Ok;
        });
        return command;
    }

    // A network may have no DHCP, or no NAT: then there is nothing of the kind to tell.
    private static async Task<IReadOnlyList<ExchangeEvent>> ExchangesAsync(Services services, Guest guest, int count, CancellationToken cancellation)
    {
        try
        {
            return (await services.Dhcp.ListExchangesAsync(new ListExchangesRequest { Parent = guest.Network, Mac = guest.Mac, PageSize = count }, deadline: Services.Soon, cancellationToken: cancellation)).Events;
        }
        catch (Grpc.Core.RpcException exception) when (exception.StatusCode == Grpc.Core.StatusCode.NotFound)
        {
            return [];
        }
    }

    private static async Task<IReadOnlyList<FlowStory>> StoriesAsync(Services services, Guest guest, int count, CancellationToken cancellation)
    {
        var stories = new List<FlowStory>();
        foreach (string address in guest.Ipv4Addresses.Select(address => address.Split('/')[0]))
        {
            try
            {
                ListRecentFlowsResponse response = await services.Nat.ListRecentFlowsAsync(new ListRecentFlowsRequest { Parent = guest.Network, GuestAddress = address, PageSize = count }, deadline: Services.Soon, cancellationToken: cancellation);
                stories.AddRange(response.Stories);
            }
            catch (Grpc.Core.RpcException exception) when (exception.StatusCode == Grpc.Core.StatusCode.NotFound)
            {
                return [];
            }
        }
        return stories;
    }

    private static void WriteTimeline(Output output, Guest guest, IReadOnlyList<ExchangeEvent> exchanges, IReadOnlyList<FlowStory> stories)
    {
        IEnumerable<(DateTime Time, string[] Cells)> dhcp = exchanges.Select(entry => (entry.Time.ToDateTime(), new[]
        {
            "dhcp", entry.TransactionId.ToString("x8", CultureInfo.InvariantCulture), $"{entry.Message} → {entry.Decision}",
            string.Join(": ", ((string[])[entry.Ipv4Address, entry.Reason]).Where(text => text.Length > 0)) + (entry.Cause.Length > 0 ? $" [{entry.Cause}]" : ""),
        }));
        IEnumerable<(DateTime Time, string[] Cells)> nat = stories.SelectMany(story => story.Events.Select(entry => (entry.Time.ToDateTime(), new[]
        {
            "nat", $"{Names.NetworkOf(story.Flow.Name)}/{Names.Short(story.Flow.Name)}", entry.What.Replace('_', ' '),
            entry.What == "first_frame" && entry.Detail.Length == 0 ? Ends(story.Flow) : entry.Detail,
        })));
        List<string[]> rows = [.. dhcp.Concat(nat).OrderBy(entry => entry.Time).Select(entry => (string[])[Clock(entry.Time), .. entry.Cells])];
        output.WriteTable(["time", "by", "id", "what", "detail"], rows, $"Nothing is remembered of {Names.Short(guest.Name)}: it has not asked for an address, and has not come by the NAT.");
    }

    private static void WriteStory(Output output, FlowStory story)
    {
        Flow flow = story.Flow;
        output.WriteFields(
        [
            ("flow", $"{Names.NetworkOf(flow.Name)}/{Names.Short(flow.Name)}"),
            ("what", Ends(flow)),
            ("host socket", flow.Host is null ? "" : $"{flow.Host.Address}:{flow.Host.Port.ToString(CultureInfo.InvariantCulture)}"),
            ("state", Units.Name(flow.State) + (flow.EndReason.Length > 0 ? $" ({flow.EndReason})" : "")),
            ("out, in", $"{Units.Bytes(flow.BytesToRemote)}, {Units.Bytes(flow.BytesToGuest)}"),
            ("sent again", Units.Count(flow.Retransmits)),
            ("round trip", flow.Rtt is null ? "" : $"{(flow.Rtt.ToTimeSpan().TotalMilliseconds).ToString("0.00", CultureInfo.InvariantCulture)} ms to the guest"),
            ("trace", flow.TraceId),
        ]);
        output.Writer.WriteLine();
        DateTime begun = story.Events.Count == 0 ? default : story.Events[0].Time.ToDateTime();
        output.WriteTable(["time", "after", "what", "detail"], [.. story.Events.Select(entry => new[] { Clock(entry.Time.ToDateTime()), After(entry.Time.ToDateTime() - begun), entry.What.Replace('_', ' '), entry.Detail })], "");
    }

    private static string Ends(Flow flow)
    {
        string remote = flow.DnsName.Length > 0 ? $"{flow.DnsName} ({flow.Remote.Address})" : flow.Remote.Address;
        return string.Create(CultureInfo.InvariantCulture, $"{Units.Name(flow.Protocol)} {flow.Guest.Address}:{flow.Guest.Port} {(flow.Inbound ? '←' : '→')} {remote}:{flow.Remote.Port}");
    }

    private static string Clock(DateTime time) => time.ToLocalTime().ToString("HH:mm:ss.ffffff", CultureInfo.InvariantCulture);

    private static string After(TimeSpan time) => time.TotalMilliseconds < 1000
        ? string.Create(CultureInfo.InvariantCulture, $"{time.TotalMilliseconds:0.000} ms")
        : Units.Time(time);
}
