using VNetMesh.Packets;
using VNetMesh.Switch.Forwarding;

namespace VNetMesh.Switch.Capturing;

/// <summary>What became of a frame.</summary>
internal struct FrameVerdict
{
    /// <summary>Ports that it was sent to.</summary>
    public int Sent;

    /// <summary>The first of them.</summary>
    public ForwardingPort? SentTo;

    /// <summary>To every port, because its destination is a group or not known.</summary>
    public bool IsFlooded;

    /// <summary>Drops: at ports that it should have gone to, or one where it came from.</summary>
    public int Dropped;

    /// <summary>Cause and place of the first drop.</summary>
    public DropCause Cause;
    public ForwardingPort? DroppedAt;

    /// <summary>Forwarded, but its source was not learned.</summary>
    public bool IsNotLearned;
}

/// <summary>A frame in a capture, without its octets.</summary>
internal struct CaptureEntry
{
    /// <summary>Nanoseconds since 1970, UTC.</summary>
    public long Time;
    public ForwardingPort Port;

    /// <summary>From the switch to the port; otherwise from the port into the switch.</summary>
    public bool IsOut;

    /// <summary>Octets of the whole frame.</summary>
    public int OriginalLength;
    public VirtioNetHeader Header;
    public FrameVerdict Verdict;

    // Where the octets are; the queue's own.
    internal int Offset;
    internal int Length;
    internal long End;
}

/// <summary>
/// A bounded queue of captured frames from a forwarding thread to the one that reads the capture, without locks and, once made, without
/// allocation. What does not fit is not taken: the producer never waits. Nobody is woken either; the consumer looks
/// from time to time.
/// </summary>
/// <param name="maxBytes">Octets of frames that wait at most.</param>
/// <param name="maxFrames">Frames that wait at most.</param>
internal sealed class CaptureQueue(int maxBytes, int maxFrames)
{
    private readonly byte[] _octets = GC.AllocateUninitializedArray<byte>(maxBytes);
    private readonly CaptureEntry[] _entries = new CaptureEntry[maxFrames];

    // Counts that only ever grow. The producer's:
    private long _added;
    private long _written;

    // The consumer's:
    private long _taken;
    private long _released;
    private long _endOfLast;

    /// <summary>Takes a copy of a frame. Producer's side.</summary>
    /// <returns>False: there is no room.</returns>
    public bool TryAdd(CaptureEntry entry, ReadOnlySpan<byte> octets)
    {
        if (_added - Volatile.Read(ref _taken) >= maxFrames)
            return false;
        int offset = (int)(_written % maxBytes);
        // A frame never wraps: where it would, what is left at the end is skipped.
        int skipped = octets.Length > maxBytes - offset ? maxBytes - offset : 0;
        long end = _written + skipped + octets.Length;
        if (end - Volatile.Read(ref _released) > maxBytes)
            return false;
        entry.Offset = skipped > 0 ? 0 : offset;
        entry.Length = octets.Length;
        entry.End = _written = end;
        octets.CopyTo(_octets.AsSpan(entry.Offset));
        _entries[_added % maxFrames] = entry;
        Volatile.Write(ref _added, _added + 1);
        return true;
    }

    /// <summary>The next frame; its octets are the consumer's until the next call. Consumer's side.</summary>
    public bool TryTake(out CaptureEntry entry, out Span<byte> octets)
    {
        Volatile.Write(ref _released, _endOfLast);
        if (_taken == Volatile.Read(ref _added))
        {
            entry = default;
            octets = default;
            return false;
        }
        ref CaptureEntry next = ref _entries[_taken % maxFrames];
        entry = next;
        // A port that was removed is not kept alive by a capture.
        next = default;
        octets = _octets.AsSpan(entry.Offset, entry.Length);
        _endOfLast = entry.End;
        Volatile.Write(ref _taken, _taken + 1);
        return true;
    }
}
