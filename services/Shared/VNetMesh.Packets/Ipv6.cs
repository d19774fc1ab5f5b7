using System.Buffers.Binary;

namespace VNetMesh.Packets;

/// <summary>
/// An IPv6 packet (RFC 8200, 3).
/// <code>
///  0               1               2               3
/// |Version| Traffic Class |           Flow Label                  |
/// |         Payload Length        |  Next Header  |   Hop Limit   |
/// |                       Source Address (16)                     |
/// |                    Destination Address (16)                   |
/// </code>
/// </summary>
public readonly ref struct Ipv6View
{
    public const int HeaderLength = 40;

    private readonly ReadOnlySpan<byte> _packet;

    private Ipv6View(ReadOnlySpan<byte> packet) => _packet = packet;

    /// <summary>The protocol of the payload, or an extension header's number: those are not looked through.</summary>
    public byte NextHeader => _packet[6];
    public byte HopLimit => _packet[7];
    public Ipv6Address Source => Ipv6Address.Read(_packet[8..]);
    public Ipv6Address Destination => Ipv6Address.Read(_packet[24..]);

    /// <summary>Without what padding the frame carried behind it.</summary>
    public ReadOnlySpan<byte> Payload => _packet[HeaderLength..];

    /// <summary>False when version or payload length do not fit the bytes.</summary>
    public static bool TryParse(ReadOnlySpan<byte> bytes, out Ipv6View view)
    {
        view = default;
        if (bytes.Length < HeaderLength || bytes[0] >> 4 != 6)
            return false;
        int length = HeaderLength + BinaryPrimitives.ReadUInt16BigEndian(bytes[4..]);
        if (length > bytes.Length)
            return false;
        view = new Ipv6View(bytes[..length]);
        return true;
    }
}

/// <summary>What VNetMesh says in an IPv6 header that it writes: no extension headers.</summary>
public readonly record struct Ipv6Header(Ipv6Address Source, Ipv6Address Destination, byte NextHeader, int PayloadLength)
{
    public const int Length = 40;

    public byte HopLimit { get; init; } = 64;

    public void Write(Span<byte> bytes)
    {
        bytes = bytes[..Length];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, 0x6000_0000);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[4..], (ushort)PayloadLength);
        bytes[6] = NextHeader;
        bytes[7] = HopLimit;
        Source.Write(bytes[8..]);
        Destination.Write(bytes[24..]);
    }
}
