using System.Buffers.Binary;
using CsCheck;

namespace VNetMesh.Packets.Tests.Offload;

/// <summary>
/// A frame as a model: from it come, by plain and slow code that shares nothing with what is tested, the large segment
/// with its partial checksum, and the frames that it must become.
/// </summary>
internal sealed record LargeFrame
{
    private static readonly Gen<byte[]> Addresses = Gen.Byte.Array[32];

    public required ushort[] Vlans { get; init; }
    public required bool IsIpv4 { get; init; }
    public required bool IsTcp { get; init; }

    /// <summary>IPv4 options, a multiple of 4 up to 40.</summary>
    public required byte[] IpOptions { get; init; }

    /// <summary>Kinds of IPv6 extension headers with the octets of their bodies.</summary>
    public required (byte Kind, byte[] Body)[] Extensions { get; init; }
    public required byte[] TcpOptions { get; init; }
    public required byte TcpFlags { get; init; }
    public required uint Sequence { get; init; }
    public required ushort Identification { get; init; }
    public required byte[] SourceAndDestination { get; init; }
    public required byte[] Payload { get; init; }
    public required ushort SegmentSize { get; init; }

    /// <summary>True: an IPv6 routing header with segments left, so that the checksum counts another address than the header has.</summary>
    public required bool IsRouted { get; init; }

    public static Gen<LargeFrame> Any { get; } =
        from vlans in Gen.UShort.Array[0, 2]
        from isIpv4 in Gen.Bool
        from isTcp in Gen.Bool
        from options in Gen.Int[0, 10]
        from extensions in Gen.Select(Gen.Int[0, 3].Select(i => (byte)(new[] { 0, 43, 60, 51 })[i]), Gen.Int[0, 4]).Array[0, 3]
        from tcpOptions in Gen.Int[0, 10]
        from flags in Gen.Byte
        from sequence in Gen.UInt
        from identification in Gen.UShort
        from addresses in Addresses
        from payload in Gen.Byte.Array[0, 6000]
        from size in Gen.UShort[48, 3000]
        from routed in Gen.Bool
        select new LargeFrame
        {
            Vlans = vlans,
            IsIpv4 = isIpv4,
            IsTcp = isTcp,
            // No-operation options.
            IpOptions = [.. Enumerable.Repeat((byte)1, options * 4)],
            Extensions = [.. extensions.Select(extension => (extension.Item1, new byte[6 + (extension.Item2 * 8)]))],
            TcpOptions = [.. Enumerable.Repeat((byte)1, tcpOptions * 4)],
            TcpFlags = flags,
            Sequence = sequence,
            Identification = identification,
            SourceAndDestination = addresses,
            Payload = payload,
            SegmentSize = size,
            IsRouted = routed && !isIpv4,
        };

    /// <summary>TCP over IPv4 without anything special: three segments.</summary>
    public static LargeFrame Simple { get; } = new()
    {
        Vlans = [],
        IsIpv4 = true,
        IsTcp = true,
        IpOptions = [],
        Extensions = [],
        TcpOptions = [],
        TcpFlags = 0x18,
        Sequence = 0xFFFF_FF00,
        Identification = 0xFFFE,
        SourceAndDestination = [.. Enumerable.Range(1, 32).Select(i => (byte)i)],
        Payload = new byte[3000],
        SegmentSize = 1000,
        IsRouted = false,
    };

    public VirtioNetHeader Header => new()
    {
        Flags = VirtioNetHeader.FlagNeedsChecksum,
        GsoType = !IsTcp ? VirtioNetHeader.GsoUdpL4 : IsIpv4 ? VirtioNetHeader.GsoTcpv4 : VirtioNetHeader.GsoTcpv6,
        GsoSize = SegmentSize,
        ChecksumStart = (ushort)TransportOffset,
        ChecksumOffset = IsTcp ? (ushort)16 : (ushort)6,
        BufferCount = 1,
    };

    public int TransportOffset => 14 + (Vlans.Length * 4) + (IsIpv4 ? 20 + IpOptions.Length : 40 + Extensions.Sum(extension => extension.Body.Length + 2));

    public byte[] Large() => Build(0, TcpFlags, Payload, isComplete: false);

    public List<byte[]> Segments()
    {
        byte[][] chunks = Payload.Length == 0 ? [[]] : [.. Payload.Chunk(SegmentSize)];
        var segments = new List<byte[]>();
        for (int i = 0; i < chunks.Length; i++)
        {
            byte flags = TcpFlags;
            if (i != chunks.Length - 1)
                flags &= 0b1111_0110; // neither FIN nor PSH
            if (i != 0)
                flags &= 0b0111_1111; // no CWR
            segments.Add(Build(i, flags, chunks[i], isComplete: true));
        }
        return segments;
    }

    private byte[] Build(int index, byte flags, byte[] payload, bool isComplete)
    {
        byte[] transport = IsTcp
            ? [.. BigEndian(0x1234_0050), .. BigEndian(Sequence + (uint)(index * SegmentSize)), .. BigEndian(0xCAFE_F00D), (byte)((20 + TcpOptions.Length) / 4 << 4), flags, 0x20, 0x00, 0, 0, 0, 9, .. TcpOptions, .. payload]
            : [.. BigEndian(0x1234_0035), .. BigEndian((ushort)(8 + payload.Length)), 0, 0, .. payload];
        int field = IsTcp ? 16 : 6;
        byte[] pseudo = PseudoHeader(transport.Length);
        ushort checksum = isComplete ? NaiveChecksum.Compute(pseudo, transport) : NaiveChecksum.Sum(pseudo);
        if (isComplete && checksum == 0 && !IsTcp)
            checksum = 0xFFFF;
        BinaryPrimitives.WriteUInt16BigEndian(transport.AsSpan(field), checksum);
        return [.. Ethernet(), .. IsIpv4 ? Ipv4(index, transport.Length) : Ipv6(transport.Length), .. transport];
    }

    private byte[] Ethernet()
    {
        var bytes = new List<byte> { 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2 };
        for (int i = 0; i < Vlans.Length; i++)
        {
            bytes.AddRange(BigEndian(i == 0 && Vlans.Length == 2 ? EtherType.ProviderVlan : EtherType.Vlan));
            bytes.AddRange(BigEndian(Vlans[i]));
        }
        bytes.AddRange(BigEndian(IsIpv4 ? EtherType.Ipv4 : EtherType.Ipv6));
        return [.. bytes];
    }

    private byte[] Ipv4(int index, int transportLength)
    {
        int headerLength = 20 + IpOptions.Length;
        byte[] header =
        [
            (byte)(0x40 | (headerLength / 4)), 0x10, .. BigEndian((ushort)(headerLength + transportLength)),
            .. BigEndian((ushort)(Identification + index)), 0x40, 0, 64, IsTcp ? (byte)6 : (byte)17, 0, 0,
            .. SourceAndDestination[..4], .. SourceAndDestination[16..20], .. IpOptions,
        ];
        BinaryPrimitives.WriteUInt16BigEndian(header.AsSpan(10), NaiveChecksum.Compute(header));
        return header;
    }

    private byte[] Ipv6(int transportLength)
    {
        byte[] kinds = [.. Extensions.Select(extension => extension.Kind), IsTcp ? (byte)6 : (byte)17];
        byte[] extensions = [.. Extensions.SelectMany((extension, i) => Extension(kinds[i + 1], extension))];
        // Behind a routing header the destination is only the next hop's.
        byte[] destination = IsRouted ? new byte[16] : SourceAndDestination[16..];
        return [0x60, 0x12, 0x34, 0x56, .. BigEndian((ushort)(extensions.Length + transportLength)), kinds[0], 64, .. SourceAndDestination[..16], .. destination, .. extensions];
    }

    private static byte[] Extension(byte next, (byte Kind, byte[] Body) extension)
    {
        int length = extension.Body.Length + 2;
        return [next, (byte)(extension.Kind == 51 ? (length / 4) - 2 : (length / 8) - 1), .. extension.Body];
    }

    private byte[] PseudoHeader(int length) => IsIpv4
        ? [.. SourceAndDestination[..4], .. SourceAndDestination[16..20], 0, IsTcp ? (byte)6 : (byte)17, .. BigEndian((ushort)length)]
        : [.. SourceAndDestination, .. BigEndian((uint)length), 0, 0, 0, IsTcp ? (byte)6 : (byte)17];

    private static byte[] BigEndian(ushort value) => [(byte)(value >> 8), (byte)value];

    private static byte[] BigEndian(uint value) => [(byte)(value >> 24), (byte)(value >> 16), (byte)(value >> 8), (byte)value];
}
