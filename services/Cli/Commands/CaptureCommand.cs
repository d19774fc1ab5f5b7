using System.CommandLine;
using Microsoft.Win32.SafeHandles;
using VNetMesh.Cli.Capturing;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;
using VNetMesh.V1;

namespace VNetMesh.Cli.Commands;

/// <summary>capture.</summary>
internal static class CaptureCommand
{
    public static Command Create(Services services, Output output)
    {
        var command = new Command("capture", "Show the frames of a network as the switch forwards them, with what became of each");
        var network = new Argument<string>("network") { Description = "The network, e.g. vmnet8" };
        var port = new Option<string?>("--port") { Description = "Only this port, e.g. web1: what comes from it and what goes to it" };
        var direction = new Option<string?>("--direction") { Description = "in (from ports), out (to ports) or both; default: in for a network, both for a port" };
        direction.AcceptOnlyFromAmong("in", "out", "both");
        var filter = new Option<string?>("--filter", "-f") { Description = "Only frames that pass it, e.g. 'tcp port 80'; see pcap-filter(7)" };
        var drops = new Option<bool>("--drops") { Description = "Only frames that were dropped, at one port at least" };
        var file = new Option<string?>("--write", "-w") { Description = "Write pcapng to this file, or to standard output (-), instead of lines" };
        var snapLength = new Option<uint>("--snaplen", "-s") { Description = "Octets of each frame to capture; default: all" };
        var count = new Option<ulong>("--count", "-c") { Description = "End after so many frames" };
        var cut = new Option<bool>("--cut") { Description = "Cut large segments into the frames that they stand for" };
        var whole = new Option<bool>("--whole") { Description = "Show large segments as they are (the default)" };
        var json = new Option<bool>("--json") { Description = "Print each frame as a JSON object on a line of its own" };
        command.Add(network);
        foreach (Option option in new Option[] { port, direction, filter, drops, file, snapLength, count, cut, whole, json })
            command.Add(option);
        command.SetAction(async (parsed, cancellation) =>
        {
            if (parsed.GetValue(cut) && parsed.GetValue(whole))
                throw new CliException(ExitCode.Usage, "--cut and --whole exclude each other: choose one");
            if (parsed.GetValue(file) is not null && parsed.GetValue(json))
                throw new CliException(ExitCode.Usage, "--write and --json exclude each other: choose one");
            string name = Names.Network(parsed.GetRequiredValue(network));
            Network found = (await services.Networks.GetNetworkAsync(new GetNetworkRequest { Name = name }, deadline: Services.Soon, cancellationToken: cancellation)).Network;
            var request = new CaptureRequest
            {
                Network = name,
                Port = PortName(name, parsed.GetValue(port)),
                Direction = ParseDirection(parsed.GetValue(direction)),
                Filter = parsed.GetValue(filter) is { Length: > 0 } text ? FilterCompiler.Compile(text, found.Ipv4Subnet) : null,
                SnapLength = parsed.GetValue(snapLength),
                CutSegments = parsed.GetValue(cut),
                DropsOnly = parsed.GetValue(drops),
                MaxFrames = parsed.GetValue(count),
            };
            return await new CaptureRun(services.Captures, request, () => OpenSink(parsed.GetValue(file), parsed.GetValue(json), output)).RunAsync(cancellation);
        });
        return command;
    }

    private static string PortName(string network, string? port) => port switch
    {
        null or "" => "",
        _ when port.Contains('/', StringComparison.Ordinal) => Names.Child(port, "ports"),
        _ => $"{network}/ports/{port}",
    };

    private static CaptureDirection ParseDirection(string? word) => word switch
    {
        "in" => CaptureDirection.In,
        "out" => CaptureDirection.Out,
        "both" => CaptureDirection.Both,
        _ => CaptureDirection.Unspecified,
    };

    private static ICaptureSink OpenSink(string? file, bool json, Output output)
    {
        if (file is null)
        {
            TextWriter writer = output.IsTerminal ? output.Writer : new StreamWriter(StandardOutput());
            return json ? new JsonSink(writer) : new TextSink(writer);
        }
        if (file != "-")
            // What guests send is nobody's business but the user's.
            return new FileSink(new FileStream(file, new FileStreamOptions { Mode = FileMode.Create, Access = FileAccess.Write, Share = FileShare.Read, UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite }));
        if (!Console.IsOutputRedirected)
            throw new CliException(ExitCode.Usage, "pcapng is not for terminals: send it on, e.g. vnet capture vmnet8 -w - | wireshark -k -i -");
        return new FileSink(StandardOutput());
    }

    /// <summary>
    /// Of a pipe not the console's stream, which does not tell when the reader has gone; of a file that one, which writes where standard
    /// error may write too.
    /// </summary>
    private static Stream StandardOutput()
    {
        var stream = new FileStream(new SafeFileHandle(1, ownsHandle: false), FileAccess.Write, bufferSize: 0);
        return stream.CanSeek ? Console.OpenStandardOutput() : stream;
    }
}
