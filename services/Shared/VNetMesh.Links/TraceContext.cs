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

    public static TraceContext Of(Activity activity) => Of(activity.TraceId, activity.SpanId, activity.Recorded);

    /// <summary>From a traceparent; default where it is empty or cannot be read.</summary>
    public static TraceContext Parse(string traceparent) =>
        traceparent.Length > 0 && ActivityContext.TryParse(traceparent, traceState: null, isRemote: true, out ActivityContext context)
            ? Of(context.TraceId, context.SpanId, (context.TraceFlags & ActivityTraceFlags.Recorded) != 0) : default;

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

    /// <summary>As a traceparent; empty where there is none.</summary>
    public string ToTraceparent() => IsPresent ? $"00-{TraceIdHigh:x16}{TraceIdLow:x16}-{SpanId:x16}-{(IsSampled ? "01" : "00")}" : "";

    /// <summary>The trace's id in hexadecimal; empty where there is none.</summary>
    public string TraceIdText => IsPresent ? ToParent().TraceId.ToHexString() : "";

    private static TraceContext Of(ActivityTraceId trace, ActivitySpanId span, bool isSampled)
    {
        Span<byte> id = stackalloc byte[IdLength];
        trace.CopyTo(id[..16]);
        span.CopyTo(id[16..]);
        return new TraceContext(BinaryPrimitives.ReadUInt64BigEndian(id), BinaryPrimitives.ReadUInt64BigEndian(id[8..]), BinaryPrimitives.ReadUInt64BigEndian(id[16..]), isSampled);
    }
}
