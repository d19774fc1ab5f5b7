using System.Runtime.InteropServices;

namespace VNetMesh.Packets;

/// <summary>
/// The header in front of every frame in the fabric: struct virtio_net_hdr_v1 (virtio 1.2, 5.1.6), as
/// the kernel's TAP with IFF_VNET_HDR and a header size of 12 has it, in the machine's byte order.
/// </summary>
[StructLayout(LayoutKind.Sequential, Pack = 1, Size = Length)]
public struct VirtioNetHeader
{
    /// <summary>Octets of the header.</summary>
    public const int Length = 12;

    /// <summary>Checksum from CsumStart to the end is to be completed at CsumStart + CsumOffset.</summary>
    public const byte FlagNeedsChecksum = 1;

    /// <summary>Checksums were verified by the sender.</summary>
    public const byte FlagDataValid = 2;

    public const byte GsoNone = 0;
    public const byte GsoTcpv4 = 1;
    public const byte GsoUdp = 3;
    public const byte GsoTcpv6 = 4;
    public const byte GsoUdpL4 = 5;

    /// <summary>Or-ed into GsoType: the segment bears ECN's CWR flag.</summary>
    public const byte GsoEcn = 0x80;

    public byte Flags;
    public byte GsoType;

    /// <summary>Octets of all headers, Ethernet included; a hint.</summary>
    public ushort HeaderLength;

    /// <summary>Payload octets of each segment to be cut.</summary>
    public ushort GsoSize;

    /// <summary>Where summing begins, from the first octet of the frame.</summary>
    public ushort ChecksumStart;

    /// <summary>Where the sum goes, from ChecksumStart.</summary>
    public ushort ChecksumOffset;

    /// <summary>Buffers that the frame spans: always 1 here.</summary>
    public ushort BufferCount;

    public readonly bool NeedsChecksum => (Flags & FlagNeedsChecksum) != 0;

    public readonly byte GsoKind => (byte)(GsoType & ~GsoEcn);

    /// <summary>Reads the first 12 octets; the caller has checked that they are there.</summary>
    public static VirtioNetHeader Read(ReadOnlySpan<byte> bytes) => MemoryMarshal.Read<VirtioNetHeader>(bytes);

    public readonly void Write(Span<byte> bytes) => MemoryMarshal.Write(bytes, in this);

    /// <summary>
    /// Whether the header fits a frame of that many octets (without this header): the checksum's place
    /// lies inside, a segment size is given where segments are to be cut, the kind is known.
    /// Frames from guests must pass this before anything reads by its offsets.
    /// </summary>
    public readonly bool IsConsistentWith(int frameLength)
    {
        if (NeedsChecksum && (ChecksumStart < 14 || ChecksumStart + ChecksumOffset + 2 > frameLength))
            return false;
        return GsoKind switch
        {
            // ECN alone is no kind; the kernel refuses it as well (virtio_net_hdr_to_skb).
            GsoNone => GsoType == GsoNone,
            GsoTcpv4 or GsoTcpv6 or GsoUdpL4 => NeedsChecksum && GsoSize > 0 && frameLength > 14,
            _ => false,
        };
    }
}
