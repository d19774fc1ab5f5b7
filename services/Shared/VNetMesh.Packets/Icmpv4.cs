using System.Buffers.Binary;

namespace VNetMesh.Packets;

/// <summary>ICMP types and codes that VNetMesh reads or sends (RFC 792, RFC 1191, RFC 1812).</summary>
public static class Icmpv4Type
{
    public const byte EchoReply = 0;
    public const byte DestinationUnreachable = 3;
    public const byte EchoRequest = 8;
    public const byte TimeExceeded = 11;

    public const byte CodeNetUnreachable = 0;
    public const byte CodeHostUnreachable = 1;
    public const byte CodeProtocolUnreachable = 2;
    public const byte CodePortUnreachable = 3;
    public const byte CodeFragmentationNeeded = 4;
    public const byte CodeAdministrativelyProhibited = 13;
}

/// <summary>
/// An ICMP message (RFC 792).
/// <code>
///  0      1      2          4            6          8
/// | type | code | checksum | identifier | sequence | data …
/// </code>
/// </summary>
public readonly ref struct Icmpv4View
{
    public const int HeaderLength = 8;

    private readonly ReadOnlySpan<byte> _message;

    private Icmpv4View(ReadOnlySpan<byte> message) => _message = message;

    public byte Type => _message[0];
    public byte Code => _message[1];
    public ushort Identifier => BinaryPrimitives.ReadUInt16BigEndian(_message[4..]);
    public ushort Sequence => BinaryPrimitives.ReadUInt16BigEndian(_message[6..]);

    /// <summary>The second half of the header as the type defines it (next-hop MTU in its low 16 bits, for example).</summary>
    public uint Rest => BinaryPrimitives.ReadUInt32BigEndian(_message[4..]);
    public ReadOnlySpan<byte> Data => _message[HeaderLength..];
    public ReadOnlySpan<byte> Message => _message;
    public bool HasValidChecksum => Checksum.IsValid(_message);

    public static bool TryParse(ReadOnlySpan<byte> bytes, out Icmpv4View view)
    {
        view = new Icmpv4View(bytes);
        return bytes.Length >= HeaderLength;
    }

    /// <summary>Writes the header in front of data that is already in place, checksum included.</summary>
    public static void Write(Span<byte> message, byte type, byte code, uint rest)
    {
        message[0] = type;
        message[1] = code;
        message[2] = message[3] = 0;
        BinaryPrimitives.WriteUInt32BigEndian(message[4..], rest);
        BinaryPrimitives.WriteUInt16BigEndian(message[2..], Checksum.Compute(message));
    }
}
