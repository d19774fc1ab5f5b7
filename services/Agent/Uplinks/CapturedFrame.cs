using System.Buffers.Binary;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Uplinks;

/// <summary>
/// What libpcap does not say of a frame: that its checksum is still partial (it never was on a wire: a veth's, or the host's
/// own), or that it is several segments in one (the NIC's receive offload, or the host's own before they were cut). Both are seen
/// by the frame, and told in a virtio_net_hdr, so that whoever needs it cut or completed does that.
/// </summary>
internal static class CapturedFrame
{
    private const byte MoreFragmentsOrOffset = 0x3F;

    /// <param name="frame">Changed in place where it is large: its checksum becomes partial.</param>
    /// <param name="mtu">Of the NIC: what an IP packet may have.</param>
    /// <returns>False: it is too large for the NIC, and no TCP segment, of which the cut is known.</returns>
    public static bool Describe(Span<byte> frame, int mtu, out VirtioNetHeader header)
    {
        header = new VirtioNetHeader { BufferCount = 1 };
        bool isLarge = frame.Length > EthernetView.HeaderLength + TagLength(frame) + mtu;
        if (!TryFindTransport(frame, out Transport found) || found.Protocol is not (IpProtocol.Tcp or IpProtocol.Udp))
            return !isLarge;
        bool isTcp = found.Protocol == IpProtocol.Tcp;
        int field = isTcp ? 16 : 6;
        Span<byte> transport = frame[found.Offset..];
        if (transport.Length < (isTcp ? 20 : 8) || found.Length > transport.Length)
            return !isLarge;
        ushort partial = Checksum.Fold(found.PseudoHeader);
        if (!isLarge)
        {
            // A whole checksum may be the same by chance: completed again, it comes out as it was.
            if (BinaryPrimitives.ReadUInt16BigEndian(transport[field..]) == partial && found.Length == transport.Length)
                AskForChecksum(ref header, found.Offset, field);
            return true;
        }
        int headers = isTcp ? (transport[12] >> 4) * 4 : 0;
        int size = mtu - (found.Offset - found.IpOffset) - headers;
        if (!isTcp || headers < 20 || size <= 0 || found.Length != transport.Length)
            return false;
        BinaryPrimitives.WriteUInt16BigEndian(transport[field..], partial);
        AskForChecksum(ref header, found.Offset, field);
        header.GsoType = found.IsIpv4 ? VirtioNetHeader.GsoTcpv4 : VirtioNetHeader.GsoTcpv6;
        header.GsoSize = (ushort)size;
        header.HeaderLength = (ushort)(found.Offset + headers);
        return true;
    }

    private static void AskForChecksum(ref VirtioNetHeader header, int start, int field)
    {
        header.Flags = VirtioNetHeader.FlagNeedsChecksum;
        header.ChecksumStart = (ushort)start;
        header.ChecksumOffset = (ushort)field;
    }

    private static int TagLength(ReadOnlySpan<byte> frame) =>
        frame.Length >= 18 && BinaryPrimitives.ReadUInt16BigEndian(frame[12..]) is EtherType.Vlan or EtherType.ProviderVlan ? 4 : 0;

    /// <summary>Finds TCP or UDP right behind an IP header, in a packet that is no fragment.</summary>
    private static bool TryFindTransport(ReadOnlySpan<byte> frame, out Transport found)
    {
        found = default;
        if (frame.Length < EthernetView.HeaderLength)
            return false;
        int ip = EthernetView.HeaderLength + TagLength(frame);
        ReadOnlySpan<byte> packet = frame[ip..];
        switch (BinaryPrimitives.ReadUInt16BigEndian(frame[(ip - 2)..]))
        {
            case EtherType.Ipv4 when packet.Length >= 20 && (packet[6] & MoreFragmentsOrOffset) == 0 && packet[7] == 0:
                int headerLength = (packet[0] & 0x0F) * 4, total = BinaryPrimitives.ReadUInt16BigEndian(packet[2..]);
                if (headerLength < 20 || headerLength > packet.Length || total < headerLength || total > packet.Length)
                    return false;
                found = new Transport(ip, ip + headerLength, total - headerLength, packet[9], IsIpv4: true,
                    Checksum.PseudoHeader(Ipv4Address.Read(packet[12..]), Ipv4Address.Read(packet[16..]), packet[9], total - headerLength));
                return true;
            case EtherType.Ipv6 when packet.Length >= 40:
                int length = BinaryPrimitives.ReadUInt16BigEndian(packet[4..]);
                if (length > packet.Length - 40)
                    return false;
                found = new Transport(ip, ip + 40, length, packet[6], IsIpv4: false, Checksum.PseudoHeaderV6(packet[8..24], packet[24..40], packet[6], length));
                return true;
            default:
                return false;
        }
    }

    private readonly record struct Transport(int IpOffset, int Offset, int Length, byte Protocol, bool IsIpv4, ulong PseudoHeader);
}
