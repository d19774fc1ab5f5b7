using VNetMesh.Packets;
using VNetMesh.Switch.Forwarding;

namespace VNetMesh.Switch.Capturing;

[Flags]
public enum CaptureDirections
{
    None = 0,

    /// <summary>From a port into the switch.</summary>
    In = 1,

    /// <summary>From the switch to a port.</summary>
    Out = 2,
    Both = In | Out,
}

/// <summary>What is to be captured.</summary>
/// <param name="Network">"networks/vmnet8"</param>
/// <param name="Port">"networks/vmnet8/ports/web1"; null: all ports.</param>
/// <param name="FilterText">What the filter was made from; empty: all frames.</param>
/// <param name="SnapLength">Octets of each frame.</param>
/// <param name="CutSegments">Large segments are cut by the reader, which therefore gets them whole.</param>
/// <param name="DropsOnly">Only frames that were dropped somewhere.</param>
public sealed record CaptureOptions(string Network, string? Port, CaptureDirections Directions, BpfProgram? Filter, string FilterText, int SnapLength, bool CutSegments, bool DropsOnly);

/// <summary>Why a capture has ended.</summary>
internal enum CaptureEnd
{
    NotYet,
    Stopped,
    NetworkRemoved,
}

/// <summary>
/// One capture. The network's loop offers frames; one reader takes them; anybody may read the counters. The loop filters before it
/// copies, so that a capture of little costs little.
/// </summary>
public sealed class CaptureSession
{
    public const int MaxBytes = 8 * 1024 * 1024;
    public const int MaxFrames = 16 * 1024;

    private readonly CaptureQueue _queue = new(MaxBytes, MaxFrames);
    private readonly int _copied;

    // Written by the loop alone.
    private long _seen;
    private long _matched;
    private long _missed;
    private int _end;

    internal CaptureSession(string name, CaptureOptions options, DateTimeOffset startTime)
    {
        Name = name;
        Options = options;
        StartTime = startTime;
        _copied = options.CutSegments ? int.MaxValue : options.SnapLength;
    }

    /// <summary>"captures/1"</summary>
    public string Name { get; }

    public CaptureOptions Options { get; }

    public DateTimeOffset StartTime { get; }

    /// <summary>Frames at the ports and in the directions asked for.</summary>
    public long Seen => Volatile.Read(ref _seen);

    /// <summary>Of them: those that passed the filter.</summary>
    public long Matched => Volatile.Read(ref _matched);

    /// <summary>Of those: those for which there was no room.</summary>
    public long Missed => Volatile.Read(ref _missed);

    /// <summary>Once it says so, nothing more is offered.</summary>
    internal CaptureEnd Ended => (CaptureEnd)Volatile.Read(ref _end);

    /// <summary>Nothing more is offered; the first reason stays.</summary>
    internal void End(CaptureEnd why) => Interlocked.CompareExchange(ref _end, (int)why, (int)CaptureEnd.NotYet);

    /// <summary>The loop's side: takes a copy if it is wanted.</summary>
    /// <param name="record">May be shorter than its header.</param>
    /// <param name="time">Nanoseconds since 1970, or 0: nobody has looked at the clock for this frame.</param>
    internal void Offer(ForwardingPort port, bool isOut, ReadOnlySpan<byte> record, in FrameVerdict verdict, ref long time)
    {
        if (!IsWanted(port, isOut, verdict))
            return;
        _seen++;
        bool hasHeader = record.Length >= VirtioNetHeader.Length;
        ReadOnlySpan<byte> frame = hasHeader ? record[VirtioNetHeader.Length..] : default;
        if (Options.Filter is { } filter && !filter.Matches(frame))
            return;
        _matched++;
        if (time == 0)
            time = (DateTime.UtcNow - DateTime.UnixEpoch).Ticks * TimeSpan.NanosecondsPerTick;
        var entry = new CaptureEntry
        {
            Time = time,
            Port = port,
            IsOut = isOut,
            OriginalLength = frame.Length,
            Header = hasHeader ? VirtioNetHeader.Read(record) : default,
            Verdict = verdict,
        };
        if (!_queue.TryAdd(entry, frame[..Math.Min(frame.Length, _copied)]))
            _missed++;
    }

    /// <summary>The reader's side: the next frame, whose octets are the reader's until the next call.</summary>
    internal bool TryTake(out CaptureEntry entry, out Span<byte> octets) => _queue.TryTake(out entry, out octets);

    private bool IsWanted(ForwardingPort port, bool isOut, in FrameVerdict verdict) =>
        (Options.Directions & (isOut ? CaptureDirections.Out : CaptureDirections.In)) != 0
        && (verdict.Dropped > 0 || !Options.DropsOnly)
        // By name: a port that was removed and made anew goes on being captured.
        && (Options.Port is null || Options.Port == port.Name);
}
