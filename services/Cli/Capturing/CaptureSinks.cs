using Google.Protobuf;
using VNetMesh.Cli.Connections;
using VNetMesh.V1;

namespace VNetMesh.Cli.Capturing;

/// <summary>Where captured frames go.</summary>
internal interface ICaptureSink : IDisposable
{
    void Begin(CaptureInfo capture);

    /// <param name="missed">Frames that the capture missed since the batch before.</param>
    void Write(IReadOnlyList<CapturedFrame> frames, ulong missed);

    /// <summary>The last numbers known; called once, also when the capture was broken off.</summary>
    void End(CaptureStatistics statistics);
}

/// <summary>One line a frame, for people.</summary>
internal sealed class TextSink(TextWriter writer) : ICaptureSink
{
    private int _portWidth = 8;

    public void Begin(CaptureInfo capture)
    {
    }

    public void Write(IReadOnlyList<CapturedFrame> frames, ulong missed)
    {
        if (missed > 0)
            writer.WriteLine($"… {missed} frames missed");
        foreach (CapturedFrame frame in frames)
            writer.WriteLine(Line(frame));
        writer.Flush();
    }

    public void End(CaptureStatistics statistics)
    {
    }

    public void Dispose()
    {
        // Each batch is written at once; the writer is not ours.
    }

    private string Line(CapturedFrame frame)
    {
        string port = Names.Short(frame.Port);
        _portWidth = Math.Max(_portWidth, port.Length);
        string what = FrameDecoder.Decode(frame.Data.ToByteArray(), (int)frame.OriginalLength);
        if (frame.Offload is { GsoType: > 0 } offload)
            what += $", in pieces of {offload.GsoSize}";
        return $"{FrameText.Time(frame.TimeUnixNano)}  {port.PadRight(_portWidth)}  {(frame.Direction == CaptureDirection.Out ? "out" : "in "),-3}  {what} | {FrameText.Verdict(frame)}";
    }
}

/// <summary>One JSON object a line, in protobuf's mapping.</summary>
internal sealed class JsonSink(TextWriter writer) : ICaptureSink
{
    private static readonly JsonFormatter Json = new(JsonFormatter.Settings.Default.WithFormatDefaultValues(true));

    public void Begin(CaptureInfo capture)
    {
    }

    public void Write(IReadOnlyList<CapturedFrame> frames, ulong missed)
    {
        foreach (CapturedFrame frame in frames)
            writer.WriteLine(Json.Format(frame));
        writer.Flush();
    }

    public void End(CaptureStatistics statistics)
    {
    }

    public void Dispose()
    {
        // Each batch is written at once; the writer is not ours.
    }
}

/// <summary>pcapng, for Wireshark and its kin: an interface for each port, the verdict as a comment.</summary>
internal sealed class FileSink(Stream stream) : ICaptureSink
{
    private readonly PcapNgWriter _writer = new(new BufferedStream(stream, 256 * 1024));
    private readonly Dictionary<string, uint> _interfaces = [];
    private CaptureInfo _capture = new();

    public void Begin(CaptureInfo capture)
    {
        _capture = capture;
        _writer.WriteSection("VNetMesh vnet capture");
        // Numbers of the capture as a whole stand with its own interface: the port, or the network.
        InterfaceOf(capture.Port.Length > 0 ? capture.Port : capture.Network);
        _writer.Flush();
    }

    public void Write(IReadOnlyList<CapturedFrame> frames, ulong missed)
    {
        foreach (CapturedFrame frame in frames)
        {
            uint number = InterfaceOf(frame.Port);
            _writer.WritePacket(number, frame.TimeUnixNano, frame.Data.Span, frame.OriginalLength, frame.Direction == CaptureDirection.Out, FrameText.Comment(frame), missed);
            missed = 0;
        }
        _writer.Flush();
    }

    public void End(CaptureStatistics statistics)
    {
        long start = _capture.StartTime is { } time ? Nanoseconds(time.ToDateTime()) : 0;
        _writer.WriteStatistics(0, start, Nanoseconds(DateTime.UtcNow), statistics.Seen, statistics.Matched, statistics.Missed, "of the capture as a whole");
        _writer.Flush();
    }

    public void Dispose() => stream.Dispose();

    private static long Nanoseconds(DateTime time) => (time - DateTime.UnixEpoch).Ticks * TimeSpan.NanosecondsPerTick;

    private uint InterfaceOf(string name)
    {
        if (!_interfaces.TryGetValue(name, out uint number))
        {
            string kind = name == _capture.Network ? $"network {Names.Short(name)}" : $"port of {Names.NetworkOf(name)}";
            _interfaces[name] = number = _writer.WriteInterface(Names.Short(name), kind, _capture.Filter, _capture.SnapLength);
        }
        return number;
    }
}
