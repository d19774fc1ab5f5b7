using System.Buffers.Binary;

namespace VNetMesh.Packets;

/// <summary>
/// ARP for IPv4 over Ethernet (RFC 826): an accepted meaning, and how it is written.
/// <code>
///  0       2       4    5    6       8           14          18          24          28
/// | htype | ptype |hlen|plen| oper  | sender MAC | sender IP | target MAC | target IP |
/// </code>
/// </summary>
public readonly record struct ArpPacket(ushort Operation, MacAddress SenderMac, Ipv4Address SenderIp, MacAddress TargetMac, Ipv4Address TargetIp)
{
    /// <summary>Octets of the packet, without the Ethernet header.</summary>
    public const int Length = 28;

    public const ushort Request = 1;
    public const ushort Reply = 2;

    private const ulong EthernetIpv4Prefix = 0x0001_0800_0604; // htype, ptype, hlen, plen

    /// <summary>False for anything but a request or a reply of Ethernet and IPv4.</summary>
    public static bool TryParse(ReadOnlySpan<byte> bytes, out ArpPacket packet)
    {
        packet = default;
        if (bytes.Length < Length || BinaryPrimitives.ReadUInt64BigEndian(bytes) >> 16 != EthernetIpv4Prefix)
            return false;
        ushort operation = BinaryPrimitives.ReadUInt16BigEndian(bytes[6..]);
        packet = new ArpPacket(operation, MacAddress.Read(bytes[8..]), Ipv4Address.Read(bytes[14..]), MacAddress.Read(bytes[18..]), Ipv4Address.Read(bytes[24..]));
        return operation is Request or Reply;
    }

    public void Write(Span<byte> bytes)
    {
        BinaryPrimitives.WriteUInt64BigEndian(bytes, (EthernetIpv4Prefix << 16) | Operation);
        SenderMac.Write(bytes[8..]);
        SenderIp.Write(bytes[14..]);
        TargetMac.Write(bytes[18..]);
        TargetIp.Write(bytes[24..]);
    }
}
