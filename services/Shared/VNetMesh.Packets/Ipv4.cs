using System.Buffers.Binary;

namespace VNetMesh.Packets;

/// <summary>Protocol numbers of the IPv4 header and the IPv6 next header (IANA).</summary>
public static class IpProtocol
{
    public const byte Icmp = 1;
    public const byte Tcp = 6;
    public const byte Udp = 17;
    public const byte Icmpv6 = 58;
}

/// <summary>
/// An IPv4 packet (RFC 791, 3.1).
/// <code>
///  0               1               2               3
/// |Version|  IHL  |Type of Service|          Total Length         |
/// |         Identification        |Flags|      Fragment Offset    |
/// |  Time to Live |    Protocol   |         Header Checksum       |
/// |                       Source Address                          |
/// |                    Destination Address                        |
/// </code>
/// </summary>
public readonly ref struct Ipv4View
{
    /// <summary>Octets of a header without options.</summary>
    public const int MinHeaderLength = 20;

    private readonly ReadOnlySpan<byte> _packet;

    private Ipv4View(ReadOnlySpan<byte> packet) => _packet = packet;

    public int HeaderLength => (_packet[0] & 0x0F) * 4;
    public byte TypeOfService => _packet[1];
    public int TotalLength => BinaryPrimitives.ReadUInt16BigEndian(_packet[2..]);
    public ushort Identification => BinaryPrimitives.ReadUInt16BigEndian(_packet[4..]);
    public bool DontFragment => (_packet[6] & 0x40) != 0;
    public bool MoreFragments => (_packet[6] & 0x20) != 0;

    /// <summary>Where this fragment's payload belongs, in octets.</summary>
    public int FragmentOffset => (BinaryPrimitives.ReadUInt16BigEndian(_packet[6..]) & 0x1FFF) * 8;
    public bool IsFragment => (BinaryPrimitives.ReadUInt16BigEndian(_packet[6..]) & 0x3FFF) != 0;
    public byte TimeToLive => _packet[8];
    public byte Protocol => _packet[9];
    public Ipv4Address Source => Ipv4Address.Read(_packet[12..]);
    public Ipv4Address Destination => Ipv4Address.Read(_packet[16..]);
    public bool HasValidChecksum => Checksum.IsValid(_packet[..HeaderLength]);

    /// <summary>Header and payload, without what padding the frame carried behind them.</summary>
    public ReadOnlySpan<byte> Packet => _packet;
    public ReadOnlySpan<byte> Header => _packet[..HeaderLength];
    public ReadOnlySpan<byte> Payload => _packet[HeaderLength..];

    /// <summary>False when version, header length or total length do not fit the bytes. The checksum is not looked at.</summary>
    public static bool TryParse(ReadOnlySpan<byte> bytes, out Ipv4View view)
    {
        view = default;
        if (bytes.Length < MinHeaderLength || bytes[0] >> 4 != 4)
            return false;
        int headerLength = (bytes[0] & 0x0F) * 4;
        int totalLength = BinaryPrimitives.ReadUInt16BigEndian(bytes[2..]);
        if (headerLength < MinHeaderLength || totalLength < headerLength || totalLength > bytes.Length)
            return false;
        view = new Ipv4View(bytes[..totalLength]);
        return true;
    }
}

/// <summary>What VNetMesh says in an IPv4 header that it writes: no options.</summary>
public readonly record struct Ipv4Header(Ipv4Address Source, Ipv4Address Destination, byte Protocol, int PayloadLength)
{
    public const int Length = 20;

    public ushort Identification { get; init; }
    public bool DontFragment { get; init; } = true;
    public byte TimeToLive { get; init; } = 64;
    public byte TypeOfService { get; init; }

    /// <summary>Writes the header with its checksum.</summary>
    public void Write(Span<byte> bytes)
    {
        bytes = bytes[..Length];
        bytes[0] = 0x45;
        bytes[1] = TypeOfService;
        BinaryPrimitives.WriteUInt16BigEndian(bytes[2..], (ushort)(Length + PayloadLength));
        BinaryPrimitives.WriteUInt16BigEndian(bytes[4..], Identification);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[6..], DontFragment ? (ushort)0x4000 : (ushort)0);
        bytes[8] = TimeToLive;
        bytes[9] = Protocol;
        bytes[10] = bytes[11] = 0;
        Source.Write(bytes[12..]);
        Destination.Write(bytes[16..]);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[10..], Checksum.Compute(bytes));
    }
}
