using System.Buffers.Binary;

namespace VNetMesh.Packets;

/// <summary>Control bits of the TCP header (RFC 9293, 3.1).</summary>
[Flags]
public enum TcpFlags : byte
{
    None = 0,
    Fin = 0x01,
    Syn = 0x02,
    Rst = 0x04,
    Psh = 0x08,
    Ack = 0x10,
    Urg = 0x20,
    Ece = 0x40,
    Cwr = 0x80,
}

/// <summary>
/// A TCP segment (RFC 9293, 3.1).
/// <code>
///  0                   1                   2                   3
/// |          Source Port          |       Destination Port        |
/// |                        Sequence Number                        |
/// |                    Acknowledgment Number                      |
/// | Offset|Rsrvd|  Control Bits   |            Window             |
/// |           Checksum            |         Urgent Pointer        |
/// |                           [Options]                           |
/// </code>
/// </summary>
public readonly ref struct TcpView
{
    /// <summary>Octets of a header without options.</summary>
    public const int MinHeaderLength = 20;

    public const int ChecksumOffset = 16;

    private readonly ReadOnlySpan<byte> _segment;

    private TcpView(ReadOnlySpan<byte> segment) => _segment = segment;

    public ushort SourcePort => BinaryPrimitives.ReadUInt16BigEndian(_segment);
    public ushort DestinationPort => BinaryPrimitives.ReadUInt16BigEndian(_segment[2..]);
    public SequenceNumber Sequence => new(BinaryPrimitives.ReadUInt32BigEndian(_segment[4..]));
    public SequenceNumber Acknowledgment => new(BinaryPrimitives.ReadUInt32BigEndian(_segment[8..]));
    public int HeaderLength => (_segment[12] >> 4) * 4;
    public TcpFlags Flags => (TcpFlags)_segment[13];

    /// <summary>As on the wire: not scaled.</summary>
    public ushort Window => BinaryPrimitives.ReadUInt16BigEndian(_segment[14..]);
    public ReadOnlySpan<byte> Options => _segment[MinHeaderLength..HeaderLength];
    public ReadOnlySpan<byte> Payload => _segment[HeaderLength..];

    /// <summary>Must not be asked of a segment whose checksum is still partial.</summary>
    public bool HasValidChecksum(Ipv4Address source, Ipv4Address destination) =>
        Checksum.IsValid(_segment, Checksum.PseudoHeader(source, destination, IpProtocol.Tcp, _segment.Length));

    /// <summary>False when the data offset does not fit the bytes.</summary>
    public static bool TryParse(ReadOnlySpan<byte> bytes, out TcpView view)
    {
        view = default;
        if (bytes.Length < MinHeaderLength)
            return false;
        int headerLength = (bytes[12] >> 4) * 4;
        if (headerLength < MinHeaderLength || headerLength > bytes.Length)
            return false;
        view = new TcpView(bytes);
        return true;
    }
}

/// <summary>A range of octets that was received out of order: Start inclusive, End exclusive (RFC 2018, 3).</summary>
public readonly record struct SackBlock(SequenceNumber Start, SequenceNumber End);

/// <summary>Up to four blocks: what fits the option space.</summary>
[System.Runtime.CompilerServices.InlineArray(4)]
public struct SackBlocks
{
    private SackBlock _first;
}

/// <summary>
/// The options that VNetMesh understands: maximum segment size (RFC 9293, 3.7.1), window scale and timestamps
/// (RFC 7323), SACK permitted and SACK (RFC 2018). Others are skipped.
/// </summary>
public struct TcpHeaderOptions
{
    private const byte KindEnd = 0, KindNop = 1, KindMss = 2, KindWindowScale = 3, KindSackPermitted = 4, KindSack = 5, KindTimestamps = 8;

    /// <summary>Largest shift (RFC 7323, 2.3).</summary>
    public const int MaxWindowScale = 14;

    /// <summary>Zero: absent.</summary>
    public ushort MaximumSegmentSize;

    public bool HasWindowScale;
    public byte WindowScale;
    public bool SackPermitted;
    public bool HasTimestamps;
    public uint TimestampValue;
    public uint TimestampEcho;
    public int SackCount;
    public SackBlocks Sack;

    /// <summary>Octets when written: a multiple of 4, at most 40.</summary>
    public readonly int Length =>
        (MaximumSegmentSize != 0 ? 4 : 0) + (HasWindowScale ? 4 : 0) + (HasTimestamps ? 12 : 0)
        + (SackPermitted ? 4 : 0) + (SackCount > 0 ? 4 + (SackCount * 8) : 0);

    /// <summary>Reads what there is. An option whose length lies ends the reading (RFC 9293, MUST-7: never an endless loop).</summary>
    public static TcpHeaderOptions Parse(ReadOnlySpan<byte> bytes)
    {
        var options = default(TcpHeaderOptions);
        while (!bytes.IsEmpty && bytes[0] != KindEnd)
        {
            if (bytes[0] == KindNop)
            {
                bytes = bytes[1..];
                continue;
            }
            if (bytes.Length < 2 || bytes[1] < 2 || bytes[1] > bytes.Length)
                break;
            options.Read(bytes[0], bytes[2..bytes[1]]);
            bytes = bytes[bytes[1]..];
        }
        return options;
    }

    /// <summary>Writes <see cref="Length"/> octets, each option aligned by NOPs as Linux does.</summary>
    public readonly void Write(Span<byte> bytes)
    {
        int at = 0;
        if (MaximumSegmentSize != 0)
        {
            bytes[at] = KindMss;
            bytes[at + 1] = 4;
            BinaryPrimitives.WriteUInt16BigEndian(bytes[(at + 2)..], MaximumSegmentSize);
            at += 4;
        }
        if (SackPermitted)
        {
            bytes[at] = bytes[at + 1] = KindNop;
            bytes[at + 2] = KindSackPermitted;
            bytes[at + 3] = 2;
            at += 4;
        }
        if (HasTimestamps)
        {
            bytes[at] = bytes[at + 1] = KindNop;
            bytes[at + 2] = KindTimestamps;
            bytes[at + 3] = 10;
            BinaryPrimitives.WriteUInt32BigEndian(bytes[(at + 4)..], TimestampValue);
            BinaryPrimitives.WriteUInt32BigEndian(bytes[(at + 8)..], TimestampEcho);
            at += 12;
        }
        if (HasWindowScale)
        {
            bytes[at] = KindNop;
            bytes[at + 1] = KindWindowScale;
            bytes[at + 2] = 3;
            bytes[at + 3] = WindowScale;
            at += 4;
        }
        if (SackCount > 0)
        {
            bytes[at] = bytes[at + 1] = KindNop;
            bytes[at + 2] = KindSack;
            bytes[at + 3] = (byte)(2 + (SackCount * 8));
            at += 4;
            for (int i = 0; i < SackCount; i++, at += 8)
            {
                BinaryPrimitives.WriteUInt32BigEndian(bytes[at..], Sack[i].Start.Value);
                BinaryPrimitives.WriteUInt32BigEndian(bytes[(at + 4)..], Sack[i].End.Value);
            }
        }
    }

    private void Read(byte kind, ReadOnlySpan<byte> value)
    {
        switch (kind)
        {
            case KindMss when value.Length == 2:
                MaximumSegmentSize = BinaryPrimitives.ReadUInt16BigEndian(value);
                break;
            case KindWindowScale when value.Length == 1:
                HasWindowScale = true;
                WindowScale = Math.Min(value[0], (byte)MaxWindowScale);
                break;
            case KindSackPermitted when value.IsEmpty:
                SackPermitted = true;
                break;
            case KindTimestamps when value.Length == 8:
                HasTimestamps = true;
                TimestampValue = BinaryPrimitives.ReadUInt32BigEndian(value);
                TimestampEcho = BinaryPrimitives.ReadUInt32BigEndian(value[4..]);
                break;
            case KindSack when value.Length % 8 == 0:
                for (SackCount = 0; SackCount < 4 && value.Length >= 8; SackCount++, value = value[8..])
                    Sack[SackCount] = new SackBlock(new(BinaryPrimitives.ReadUInt32BigEndian(value)), new(BinaryPrimitives.ReadUInt32BigEndian(value[4..])));
                break;
        }
    }
}

/// <summary>A TCP header that VNetMesh writes.</summary>
public readonly record struct TcpHeader(ushort SourcePort, ushort DestinationPort, SequenceNumber Sequence, SequenceNumber Acknowledgment, TcpFlags Flags, ushort Window)
{
    /// <summary>Writes header and options; the checksum field is left zero.</summary>
    /// <returns>Octets written.</returns>
    public int Write(Span<byte> bytes, in TcpHeaderOptions options)
    {
        int length = TcpView.MinHeaderLength + options.Length;
        BinaryPrimitives.WriteUInt16BigEndian(bytes, SourcePort);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[2..], DestinationPort);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[4..], Sequence.Value);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[8..], Acknowledgment.Value);
        bytes[12] = (byte)(length / 4 << 4);
        bytes[13] = (byte)Flags;
        BinaryPrimitives.WriteUInt16BigEndian(bytes[14..], Window);
        bytes[16..20].Clear();
        options.Write(bytes[TcpView.MinHeaderLength..]);
        return length;
    }
}
