using Google.Protobuf;
using Google.Protobuf.WellKnownTypes;
using VNetMesh.Links;
using VNetMesh.Packets;
using VNetMesh.Packets.Offload;
using VNetMesh.Switch.Capturing;
using VNetMesh.Switch.Forwarding;
using VNetMesh.Switch.Registry;
using VNetMesh.V1;
using BpfInstruction = VNetMesh.Switch.Capturing.BpfInstruction;
using FrameVerdict = VNetMesh.Switch.Capturing.FrameVerdict;

namespace VNetMesh.Switch.Rpc;

/// <summary>Captures between their records and their messages.</summary>
internal static class CaptureMessages
{
    /// <exception cref="RegistryException">FILTER_INVALID, DIRECTION_INVALID.</exception>
    public static CaptureOptions ToOptions(CaptureRequest request) => new(
        request.Network,
        request.Port.Length == 0 ? null : request.Port,
        ToDirections(request.Direction),
        request.Filter is null ? null : ToProgram(request.Filter),
        request.Filter?.Text ?? "",
        (int)Math.Min(request.SnapLength, int.MaxValue),
        request.CutSegments,
        request.DropsOnly);

    public static V1.CaptureInfo ToMessage(this CaptureSession session) => new()
    {
        Name = session.Name,
        Network = session.Options.Network,
        Port = session.Options.Port ?? "",
        Direction = (CaptureDirection)session.Options.Directions,
        Filter = session.Options.FilterText,
        SnapLength = (uint)session.Options.SnapLength,
        CutSegments = session.Options.CutSegments,
        DropsOnly = session.Options.DropsOnly,
        StartTime = Timestamp.FromDateTimeOffset(session.StartTime),
        Statistics = session.ToStatistics(),
    };

    /// <summary>The counters. Each is read once; what came between the readings never makes one larger than the one before it.</summary>
    public static CaptureStatistics ToStatistics(this CaptureSession session)
    {
        long missed = session.Missed, matched = session.Matched, seen = session.Seen;
        return new CaptureStatistics { Seen = (ulong)seen, Matched = (ulong)matched, Missed = (ulong)missed };
    }

    /// <summary>Adds a frame, or the frames that a large segment stands for.</summary>
    /// <param name="octets">May be changed here.</param>
    /// <returns>Octets added.</returns>
    public static int AddFrame(CaptureBatch batch, CaptureOptions options, in CaptureEntry entry, Span<byte> octets)
    {
        bool isWhole = octets.Length == entry.OriginalLength;
        if (options.CutSegments && isWhole && entry.Header.GsoKind != VirtioNetHeader.GsoNone
            && Segmenter.Begin(octets, entry.Header, out SegmentCursor cursor) == OffloadFault.None)
            return AddSegments(batch, options, entry, cursor);
        if (isWhole)
            _ = ChecksumCompletion.Complete(octets, entry.Header);
        CapturedFrame frame = ToFrame(entry, octets[..Math.Min(octets.Length, options.SnapLength)], entry.OriginalLength);
        frame.Offload = FrameOffloads.From(entry.Header, null);
        batch.Frames.Add(frame);
        return frame.Data.Length;
    }

    private static int AddSegments(CaptureBatch batch, CaptureOptions options, in CaptureEntry entry, SegmentCursor cursor)
    {
        byte[] room = new byte[cursor.LongestLength];
        int added = 0;
        for (uint number = 1; cursor.NextLength > 0; number++)
        {
            int length = cursor.WriteNext(room);
            CapturedFrame frame = ToFrame(entry, room.AsSpan(0, Math.Min(length, options.SnapLength)), length);
            frame.Segment = number;
            batch.Frames.Add(frame);
            added += frame.Data.Length;
        }
        return added;
    }

    private static CapturedFrame ToFrame(in CaptureEntry entry, ReadOnlySpan<byte> data, int originalLength) => new()
    {
        TimeUnixNano = entry.Time,
        Port = entry.Port.Name,
        Direction = entry.IsOut ? CaptureDirection.Out : CaptureDirection.In,
        Data = ByteString.CopyFrom(data),
        OriginalLength = (uint)originalLength,
        Verdict = ToMessage(entry.Verdict),
    };

    private static V1.FrameVerdict ToMessage(in FrameVerdict verdict) => new()
    {
        Sent = (uint)verdict.Sent,
        SentTo = verdict.SentTo?.Name ?? "",
        Flooded = verdict.IsFlooded,
        Dropped = (uint)verdict.Dropped,
        DropCause = verdict.Dropped > 0 ? DropCauses.NameOf(verdict.Cause) : "",
        DropPort = verdict.DroppedAt?.Name ?? "",
        NotLearned = verdict.IsNotLearned,
    };

    private static CaptureDirections ToDirections(CaptureDirection direction) => direction switch
    {
        CaptureDirection.Unspecified => CaptureDirections.None,
        CaptureDirection.In => CaptureDirections.In,
        CaptureDirection.Out => CaptureDirections.Out,
        CaptureDirection.Both => CaptureDirections.Both,
        _ => throw Refuse.Invalid("DIRECTION_INVALID", "the direction must be in, out or both", ("field", "direction")),
    };

    private static BpfProgram ToProgram(CaptureFilter filter)
    {
        if (filter.Text.Length > Captures.MaxFilterText || filter.Text.Any(char.IsControl))
            throw Invalid($"its text must be at most {Captures.MaxFilterText} printable characters");
        var instructions = new BpfInstruction[Math.Min(filter.Instructions.Count, BpfProgram.MaxLength + 1)];
        for (int i = 0; i < instructions.Length; i++)
        {
            V1.BpfInstruction one = filter.Instructions[i];
            if (one.Code > ushort.MaxValue || one.Jt > byte.MaxValue || one.Jf > byte.MaxValue)
                throw Invalid($"instruction {i} has a number that is too large for its field");
            instructions[i] = new BpfInstruction((ushort)one.Code, (byte)one.Jt, (byte)one.Jf, one.K);
        }
        return BpfProgram.TryCreate(instructions, out string fault) ?? throw Invalid(fault);
    }

    private static RegistryException Invalid(string how) => Refuse.Invalid("FILTER_INVALID", $"the filter cannot be used: {how}", ("field", "filter"));
}
