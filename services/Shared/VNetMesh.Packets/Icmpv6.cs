using System.Buffers.Binary;

namespace VNetMesh.Packets;

/// <summary>ICMPv6 types that VNetMesh reads or sends (RFC 4443, RFC 4861).</summary>
public static class Icmpv6Type
{
    public const byte EchoRequest = 128;
    public const byte EchoReply = 129;
    public const byte RouterSolicitation = 133;
    public const byte RouterAdvertisement = 134;
    public const byte NeighborSolicitation = 135;
    public const byte NeighborAdvertisement = 136;
}

/// <summary>
/// An ICMPv6 message (RFC 4443, 2.1).
/// <code>
///  0      1      2          4
/// | type | code | checksum | body …
/// </code>
/// </summary>
public readonly ref struct Icmpv6View
{
    public const int HeaderLength = 4;

    private readonly ReadOnlySpan<byte> _message;

    private Icmpv6View(ReadOnlySpan<byte> message) => _message = message;

    public byte Type => _message[0];
    public byte Code => _message[1];
    public ReadOnlySpan<byte> Message => _message;
    public ReadOnlySpan<byte> Body => _message[HeaderLength..];

    /// <summary>Over the pseudo header as well (RFC 4443, 2.3).</summary>
    public bool HasValidChecksum(Ipv6Address source, Ipv6Address destination) => Checksum.IsValid(_message, PseudoHeader(source, destination, _message.Length));

    public static bool TryParse(ReadOnlySpan<byte> bytes, out Icmpv6View view)
    {
        view = new Icmpv6View(bytes);
        return bytes.Length >= HeaderLength;
    }

    /// <summary>Writes type, code and checksum in front of a body that is already in place.</summary>
    public static void Write(Span<byte> message, byte type, byte code, Ipv6Address source, Ipv6Address destination)
    {
        message[0] = type;
        message[1] = code;
        message[2] = message[3] = 0;
        ulong sum = Checksum.Add(PseudoHeader(source, destination, message.Length), message);
        BinaryPrimitives.WriteUInt16BigEndian(message[2..], Checksum.Finish(sum));
    }

    private static ulong PseudoHeader(Ipv6Address source, Ipv6Address destination, int length)
    {
        Span<byte> addresses = stackalloc byte[2 * Ipv6Address.Length];
        source.Write(addresses);
        destination.Write(addresses[Ipv6Address.Length..]);
        return Checksum.PseudoHeaderV6(addresses, addresses[Ipv6Address.Length..], IpProtocol.Icmpv6, length);
    }
}
