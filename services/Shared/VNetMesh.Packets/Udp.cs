using System.Buffers.Binary;

namespace VNetMesh.Packets;

/// <summary>
/// A UDP datagram (RFC 768).
/// <code>
///  0             2                  4        6          8
/// | source port | destination port | length | checksum | payload …
/// </code>
/// </summary>
public readonly ref struct UdpView
{
    public const int HeaderLength = 8;

    private readonly ReadOnlySpan<byte> _datagram;

    private UdpView(ReadOnlySpan<byte> datagram) => _datagram = datagram;

    public ushort SourcePort => BinaryPrimitives.ReadUInt16BigEndian(_datagram);
    public ushort DestinationPort => BinaryPrimitives.ReadUInt16BigEndian(_datagram[2..]);

    /// <summary>Zero: the sender computed none (IPv4 only).</summary>
    public ushort ChecksumField => BinaryPrimitives.ReadUInt16BigEndian(_datagram[6..]);
    public ReadOnlySpan<byte> Payload => _datagram[HeaderLength..];

    /// <summary>True when there is none, or it fits. Must not be asked of a datagram whose checksum is still partial.</summary>
    public bool HasValidChecksum(Ipv4Address source, Ipv4Address destination) => ChecksumField == 0
        || Checksum.IsValid(_datagram, Checksum.PseudoHeader(source, destination, IpProtocol.Udp, _datagram.Length));

    /// <summary>False when the length field does not fit the bytes.</summary>
    public static bool TryParse(ReadOnlySpan<byte> bytes, out UdpView view)
    {
        view = default;
        if (bytes.Length < HeaderLength)
            return false;
        int length = BinaryPrimitives.ReadUInt16BigEndian(bytes[4..]);
        if (length < HeaderLength || length > bytes.Length)
            return false;
        view = new UdpView(bytes[..length]);
        return true;
    }

    /// <summary>Writes the header in front of a payload that is already in place, checksum included.</summary>
    public static void Write(Span<byte> datagram, Ipv4Address source, Ipv4Address destination, ushort sourcePort, ushort destinationPort)
    {
        BinaryPrimitives.WriteUInt16BigEndian(datagram, sourcePort);
        BinaryPrimitives.WriteUInt16BigEndian(datagram[2..], destinationPort);
        BinaryPrimitives.WriteUInt16BigEndian(datagram[4..], (ushort)datagram.Length);
        datagram[6] = datagram[7] = 0;
        ushort checksum = Checksum.Finish(Checksum.Add(Checksum.PseudoHeader(source, destination, IpProtocol.Udp, datagram.Length), datagram));
        // RFC 768: a computed zero is sent as all ones, since zero says "none".
        BinaryPrimitives.WriteUInt16BigEndian(datagram[6..], checksum == 0 ? (ushort)0xFFFF : checksum);
    }
}
