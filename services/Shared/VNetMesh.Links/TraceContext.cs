using System.Buffers.Binary;
using System.Diagnostics;

namespace VNetMesh.Links;

/// <summary>
/// The trace that a frame belongs to (W3C Trace Context, 3.2): 16 octets of trace id, 8 of span id, and whether the sender
/// records it. Default: none. It crosses processes, so it is what another process says: a hint, never a right.
/// </summary>
public readonly record struct TraceContext(ulong TraceIdHigh, ulong TraceIdLow, ulong SpanId, bool IsSampled)
{
    private const int IdLength = 24;

    public bool IsPresent => SpanId != 0 && (TraceIdHigh | TraceIdLow) != 0;

    public static TraceContext Of(Activity activity)
    {
        Span<byte> id = stackalloc byte[IdLength];
        activity.TraceId.CopyTo(id[..16]);
        activity.SpanId.CopyTo(id[16..]);
        return new TraceContext(BinaryPrimitives.ReadUInt64BigEndian(id), BinaryPrimitives.ReadUInt64BigEndian(id[8..]), BinaryPrimitives.ReadUInt64BigEndian(id[16..]), activity.Recorded);
    }

    /// <summary>As the parent of a span; default where there is none.</summary>
    public ActivityContext ToParent()
    {
        if (!IsPresent)
            return default;
        Span<byte> id = stackalloc byte[IdLength];
        BinaryPrimitives.WriteUInt64BigEndian(id, TraceIdHigh);
        BinaryPrimitives.WriteUInt64BigEndian(id[8..], TraceIdLow);
        BinaryPrimitives.WriteUInt64BigEndian(id[16..], SpanId);
        return new ActivityContext(ActivityTraceId.CreateFromBytes(id[..16]), ActivitySpanId.CreateFromBytes(id[16..]), IsSampled ? ActivityTraceFlags.Recorded : ActivityTraceFlags.None, isRemote: true);
    }

    /// <summary>The trace's id in hexadecimal; empty where there is none.</summary>
    public string TraceIdText => IsPresent ? ToParent().TraceId.ToHexString() : "";
}
