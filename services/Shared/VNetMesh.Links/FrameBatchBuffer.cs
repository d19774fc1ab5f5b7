using Google.Protobuf;
using VNetMesh.Packets;
using VNetMesh.V1;

namespace VNetMesh.Links;

/// <summary>
/// Makes batches for an Attach stream out of records, again and again in the same memory: one copy of each frame, and no
/// allocation but a ByteString's few octets. For one task; a batch is spent when the next is begun.
/// </summary>
public sealed class FrameBatchBuffer
{
    /// <summary>Frames of a batch at most; the switch refuses more.</summary>
    public const int MaxFrames = 256;

    /// <summary>Octets beyond which a batch is full: messages should stay far below gRPC's limit.</summary>
    private const int EnoughOctets = 256 * 1024;

    private readonly byte[] _octets = new byte[EnoughOctets + FrameRecord.MaxFrameLength];
    private readonly List<Frame> _frames = [];
    private int _length;

    /// <summary>What was added; valid until <see cref="Clear"/>.</summary>
    public FrameBatch Batch { get; } = new();

    public bool IsEmpty => Batch.Frames.Count == 0;

    public bool IsFull => Batch.Frames.Count == MaxFrames || _length >= EnoughOctets;

    /// <summary>Begins the next batch. What was written of the last must be on its way.</summary>
    public void Clear()
    {
        Batch.Frames.Clear();
        _length = 0;
    }

    /// <param name="record">From <see cref="FrameRecord.MinLength"/> to <see cref="FrameRecord.MaxLength"/> octets; the batch must not be full.</param>
    /// <param name="trace">What it belongs to; few frames have one, and only those cost a string.</param>
    public void Add(ReadOnlySpan<byte> record, in TraceContext trace)
    {
        if (_frames.Count == Batch.Frames.Count)
            _frames.Add(new Frame());
        Frame frame = _frames[Batch.Frames.Count];
        ReadOnlySpan<byte> data = record[VirtioNetHeader.Length..];
        data.CopyTo(_octets.AsSpan(_length));
        frame.Data = UnsafeByteOperations.UnsafeWrap(_octets.AsMemory(_length, data.Length));
        frame.Offload = FrameOffloads.From(VirtioNetHeader.Read(record), frame.Offload);
        frame.Traceparent = trace.ToTraceparent();
        _length += data.Length;
        Batch.Frames.Add(frame);
    }
}

/// <summary>virtio_net_hdr, as messages have it.</summary>
public static class FrameOffloads
{
    /// <summary>False when a number does not fit its field, or the kind of segment is none that there is.</summary>
    public static bool TryRead(FrameOffload? offload, out VirtioNetHeader header)
    {
        header = new VirtioNetHeader { BufferCount = 1 };
        if (offload is null)
            return true;
        if ((offload.CsumStart | offload.CsumOffset | offload.GsoSize | offload.HdrLen) > ushort.MaxValue
            || offload.GsoType is not (VirtioNetHeader.GsoNone or VirtioNetHeader.GsoTcpv4 or VirtioNetHeader.GsoTcpv6 or VirtioNetHeader.GsoUdpL4))
            return false;
        header.Flags = offload.NeedsCsum ? VirtioNetHeader.FlagNeedsChecksum : (byte)0;
        header.GsoType = (byte)offload.GsoType;
        header.HeaderLength = (ushort)offload.HdrLen;
        header.GsoSize = (ushort)offload.GsoSize;
        header.ChecksumStart = (ushort)offload.CsumStart;
        header.ChecksumOffset = (ushort)offload.CsumOffset;
        return true;
    }

    /// <param name="header">Of a record.</param>
    /// <param name="spent">A message to be written over; null: a new one.</param>
    /// <returns>Null when nothing is left to be done to the frame.</returns>
    public static FrameOffload? From(in VirtioNetHeader header, FrameOffload? spent)
    {
        if (!header.NeedsChecksum && header.GsoKind == VirtioNetHeader.GsoNone)
            return null;
        FrameOffload offload = spent ?? new FrameOffload();
        offload.NeedsCsum = header.NeedsChecksum;
        offload.CsumStart = header.ChecksumStart;
        offload.CsumOffset = header.ChecksumOffset;
        offload.GsoType = header.GsoKind;
        offload.GsoSize = header.GsoSize;
        offload.HdrLen = header.HeaderLength;
        return offload;
    }
}
