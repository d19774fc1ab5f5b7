using System.Runtime.InteropServices;
using Google.Protobuf;
using VNetMesh.Links;
using VNetMesh.Packets;
using VNetMesh.V1;

namespace VNetMesh.Switch.Rpc;

/// <summary>Frames between records of the fabric and messages of an Attach stream.</summary>
internal static class FrameMessages
{
    /// <param name="record">At least <see cref="FrameRecord.MinLength"/> octets.</param>
    public static Frame ToMessage(ReadOnlySpan<byte> record)
    {
        VirtioNetHeader header = VirtioNetHeader.Read(record);
        return new Frame { Data = ByteString.CopyFrom(record[VirtioNetHeader.Length..]), Offload = ToOffload(header) };
    }

    /// <summary>Null where the header says nothing.</summary>
    public static FrameOffload? ToOffload(in VirtioNetHeader header) => !header.NeedsChecksum && header.GsoKind == VirtioNetHeader.GsoNone ? null : new FrameOffload
    {
        NeedsCsum = header.NeedsChecksum,
        CsumStart = header.ChecksumStart,
        CsumOffset = header.ChecksumOffset,
        GsoType = header.GsoKind,
        GsoSize = header.GsoSize,
        HdrLen = header.HeaderLength,
    };

    /// <summary>Writes a client's frame as a record. Whether header and frame fit each other, the data path checks.</summary>
    /// <param name="record">Room for <see cref="FrameRecord.MaxLength"/> octets.</param>
    /// <returns>The record's length; 0 when the frame is too large; −1 when a number of the header does not fit its field.</returns>
    public static int Write(Frame frame, Span<byte> record)
    {
        ReadOnlySpan<byte> data = frame.Data.Span;
        if (data.Length > FrameRecord.MaxFrameLength)
            return 0;
        var header = new VirtioNetHeader { BufferCount = 1 };
        if (frame.Offload is { } offload)
        {
            if (offload.CsumStart > ushort.MaxValue || offload.CsumOffset > ushort.MaxValue || offload.GsoType > byte.MaxValue
                || offload.GsoSize > ushort.MaxValue || offload.HdrLen > ushort.MaxValue)
                return -1;
            header.Flags = offload.NeedsCsum ? VirtioNetHeader.FlagNeedsChecksum : (byte)0;
            header.ChecksumStart = (ushort)offload.CsumStart;
            header.ChecksumOffset = (ushort)offload.CsumOffset;
            header.GsoType = (byte)offload.GsoType;
            header.GsoSize = (ushort)offload.GsoSize;
            header.HeaderLength = (ushort)offload.HdrLen;
        }
        MemoryMarshal.Write(record, in header);
        data.CopyTo(record[VirtioNetHeader.Length..]);
        return VirtioNetHeader.Length + data.Length;
    }
}
