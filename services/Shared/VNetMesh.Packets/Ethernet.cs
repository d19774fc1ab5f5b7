using System.Buffers.Binary;

namespace VNetMesh.Packets;

/// <summary>EtherType values (IEEE 802 numbers, IANA).</summary>
public static class EtherType
{
    public const ushort Ipv4 = 0x0800;
    public const ushort Arp = 0x0806;
    public const ushort Vlan = 0x8100;
    public const ushort Ipv6 = 0x86DD;
    public const ushort ProviderVlan = 0x88A8;
}

/// <summary>
/// An Ethernet II frame without preamble and frame check sequence.
/// <code>
///  0            6            12      14
/// | destination |   source   | type  | payload …
/// </code>
/// </summary>
public readonly ref struct EthernetView
{
    /// <summary>Octets of the header.</summary>
    public const int HeaderLength = 14;

    private const int DestinationOffset = 0;
    private const int SourceOffset = 6;
    private const int TypeOffset = 12;

    private readonly ReadOnlySpan<byte> _frame;

    private EthernetView(ReadOnlySpan<byte> frame) => _frame = frame;

    public MacAddress Destination => MacAddress.Read(_frame[DestinationOffset..]);
    public MacAddress Source => MacAddress.Read(_frame[SourceOffset..]);
    public ushort Type => BinaryPrimitives.ReadUInt16BigEndian(_frame[TypeOffset..]);
    public ReadOnlySpan<byte> Payload => _frame[HeaderLength..];

    /// <summary>False when the bytes are fewer than a header.</summary>
    public static bool TryParse(ReadOnlySpan<byte> frame, out EthernetView view)
    {
        view = new EthernetView(frame);
        return frame.Length >= HeaderLength;
    }

    public static void Write(Span<byte> frame, MacAddress destination, MacAddress source, ushort type)
    {
        destination.Write(frame[DestinationOffset..]);
        source.Write(frame[SourceOffset..]);
        BinaryPrimitives.WriteUInt16BigEndian(frame[TypeOffset..], type);
    }
}
