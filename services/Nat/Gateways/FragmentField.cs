using System.Buffers.Binary;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Gateways;

/// <summary>The flags and fragment offset of an IPv4 header (RFC 791, 3.1).</summary>
internal static class FragmentField
{
    private const int FieldOffset = 6;
    private const int ChecksumOffset = 10;

    /// <summary>Marks a header as a fragment and completes its checksum again.</summary>
    /// <param name="offset">Octets; a multiple of 8.</param>
    public static void Write(Span<byte> header, int offset, bool more)
    {
        BinaryPrimitives.WriteUInt16BigEndian(header[FieldOffset..], (ushort)((offset / 8) | (more ? 0x2000 : 0)));
        BinaryPrimitives.WriteUInt16BigEndian(header[ChecksumOffset..], 0);
        BinaryPrimitives.WriteUInt16BigEndian(header[ChecksumOffset..], Checksum.Compute(header[..Ipv4Header.Length]));
    }
}
