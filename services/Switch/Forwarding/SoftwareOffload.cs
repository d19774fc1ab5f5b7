using System.Buffers.Binary;
using VNetMesh.Links;
using VNetMesh.Packets;

namespace VNetMesh.Switch.Forwarding;

/// <summary>
/// Does in software what a link does not take: completes checksums. It works on a copy, because the record may lie in memory
/// that a ring's peer still writes to.
/// </summary>
internal sealed class SoftwareOffload
{
    private readonly byte[] _copy = new byte[FrameRecord.MaxLength];
    private int _length;

    /// <returns>False: the record's headers do not allow it.</returns>
    public bool TryBegin(ReadOnlySpan<byte> record, in VirtioNetHeader header)
    {
        if (header.GsoKind != VirtioNetHeader.GsoNone)
            return false;
        record.CopyTo(_copy);
        _length = record.Length;
        new VirtioNetHeader { BufferCount = 1 }.Write(_copy);
        Span<byte> frame = _copy.AsSpan(VirtioNetHeader.Length, _length - VirtioNetHeader.Length);
        ushort sum = Checksum.Compute(frame[header.ChecksumStart..]);
        BinaryPrimitives.WriteUInt16BigEndian(frame[(header.ChecksumStart + header.ChecksumOffset)..], sum == 0 ? (ushort)0xFFFF : sum);
        return true;
    }

    /// <summary>The next record to send, valid until the next call.</summary>
    public bool TryNext(out ReadOnlySpan<byte> record)
    {
        record = _copy.AsSpan(0, _length);
        _length = 0;
        return !record.IsEmpty;
    }
}
