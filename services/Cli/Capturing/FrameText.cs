using System.Globalization;
using VNetMesh.Cli.Connections;
using VNetMesh.V1;

namespace VNetMesh.Cli.Capturing;

/// <summary>What the switch did with a frame, in words.</summary>
internal static class FrameText
{
    /// <summary>"to gateway", "to all (3 ports)", "dropped: isolated", "to all (2 ports); dropped at web2: queue_full".</summary>
    public static string Verdict(CapturedFrame frame)
    {
        FrameVerdict verdict = frame.Verdict ?? new FrameVerdict();
        string text = frame.Direction == CaptureDirection.Out ? verdict.Sent > 0 ? "sent" : "" : Sent(verdict);
        if (verdict.Dropped > 0)
            text += (text.Length > 0 ? "; " : "") + Dropped(frame, verdict);
        return text + (verdict.NotLearned ? "; source not learned: mac_table_full" : "");
    }

    /// <summary>For a file: direction, port, verdict, and what there is to know of a large segment.</summary>
    public static string Comment(CapturedFrame frame)
    {
        string way = frame.Direction == CaptureDirection.Out ? "to" : "from";
        string text = $"{way} {Names.Short(frame.Port)}: {Verdict(frame)}";
        if (frame.Offload is { GsoType: > 0 } offload)
            text += $"; large segment, to be cut into pieces of {offload.GsoSize} octets of payload";
        else if (frame.Segment > 0)
            text += $"; piece {frame.Segment} of a large segment";
        if (frame.Offload is { NeedsCsum: true })
            text += frame.Data.Length == frame.OriginalLength ? "; the checksum was partial and is completed here" : "; the checksum is partial";
        return text;
    }

    /// <summary>Time of day, UTC, in microseconds.</summary>
    public static string Time(long unixNano) => DateTime.UnixEpoch.AddTicks(unixNano / 100).ToString("HH:mm:ss.ffffff", CultureInfo.InvariantCulture);

    private static string Sent(FrameVerdict verdict) => verdict switch
    {
        { Flooded: true, Sent: 0, Dropped: 0 } => "to nobody: there is no other port",
        { Flooded: true, Sent: 1 } => "to all (1 port)",
        { Flooded: true, Sent: > 0 } => $"to all ({verdict.Sent} ports)",
        { Sent: > 0 } => "to " + Names.Short(verdict.SentTo),
        _ => "",
    };

    private static string Dropped(CapturedFrame frame, FrameVerdict verdict)
    {
        string place = verdict.DropPort == frame.Port ? "" : " at " + Names.Short(verdict.DropPort);
        string more = verdict.Dropped > 1 ? $" and at {verdict.Dropped - 1} more" : "";
        return $"dropped{place}: {verdict.DropCause}{more}";
    }
}
