using System.Buffers.Binary;

namespace VNetMesh.Packets.Offload;

/// <summary>
/// Completes a partial checksum (virtio 1.2, 5.1.6.1): the field holds the sum of the pseudo header; added is all from
/// ChecksumStart to the end of the frame.
/// </summary>
public static class ChecksumCompletion
{
    /// <param name="frame">Without the virtio_net_hdr; changed in place.</param>
    /// <param name="header">Offsets from a peer: checked here.</param>
    /// <returns><see cref="OffloadFault.None"/> when the checksum is complete now, or was before.</returns>
    public static OffloadFault Complete(Span<byte> frame, in VirtioNetHeader header)
    {
        if (!header.NeedsChecksum)
            return OffloadFault.None;
        int start = header.ChecksumStart, field = start + header.ChecksumOffset;
        if (start < EthernetView.HeaderLength || field + 2 > frame.Length)
            return OffloadFault.ChecksumPlaceInvalid;
        ushort checksum = Checksum.Compute(frame[start..]);
        // All ones is the same number as zero, and zero would tell a UDP receiver that there is no checksum (RFC 768).
        BinaryPrimitives.WriteUInt16BigEndian(frame[field..], checksum == 0 ? (ushort)0xFFFF : checksum);
        return OffloadFault.None;
    }
}
