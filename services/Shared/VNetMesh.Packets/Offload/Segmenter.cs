using System.Buffers.Binary;

namespace VNetMesh.Packets.Offload;

/// <summary>
/// Does in software what a receiver does not accept: cuts a large segment (TCP over IPv4 or IPv6, UDP by USO) into frames,
/// and completes checksums. Nothing is allocated and no input makes it throw.
/// <code>
/// OffloadFault fault = Segmenter.Begin(frame, header, out SegmentCursor cursor);
/// while (cursor.NextLength > 0)
///     cursor.WriteNext(room[..cursor.NextLength]);
/// </code>
/// What changes from segment to segment, as the kernel's GSO has it:
/// <code>
/// IPv4  total length, identification + 1, header checksum      IPv6  payload length
/// TCP   sequence + size; FIN, PSH only in the last; CWR only in the first (RFC 3168, 6.1.2)
/// UDP   length
/// </code>
/// </summary>
public static class Segmenter
{
    internal const int TcpMinHeaderLength = 20;
    internal const int TcpChecksumOffset = 16;
    internal const int UdpChecksumOffset = 6;
    internal const int Ipv6HeaderLength = 40;

    /// <param name="frame">Without the virtio_net_hdr; must stay as long as the cursor is used.</param>
    /// <param name="header">From a peer: checked here.</param>
    /// <param name="cursor">Where the frames come from: one with a complete checksum when there is nothing to cut, none on a fault.</param>
    public static OffloadFault Begin(ReadOnlySpan<byte> frame, in VirtioNetHeader header, out SegmentCursor cursor)
    {
        cursor = default;
        if (frame.Length < EthernetView.HeaderLength)
            return OffloadFault.FrameTooShort;
        if (header.GsoKind == VirtioNetHeader.GsoNone)
        {
            if (header.NeedsChecksum && (header.ChecksumStart < EthernetView.HeaderLength || header.ChecksumStart + header.ChecksumOffset + 2 > frame.Length))
                return OffloadFault.ChecksumPlaceInvalid;
            cursor = new SegmentCursor(frame, header);
            return OffloadFault.None;
        }
        OffloadFault fault = LargeSegment.TryFind(frame, header, out LargeSegment layout);
        if (fault == OffloadFault.None)
            cursor = new SegmentCursor(frame, header, layout);
        return fault;
    }
}

/// <summary>Gives the frames of one record, one after the other. See <see cref="Segmenter"/>.</summary>
public ref struct SegmentCursor
{
    private const int IdentificationOffset = 4;
    private const int Ipv4ChecksumOffset = 10;
    private const int TcpFlagsOffset = 13;
    private const byte FlagFin = 0x01;
    private const byte FlagPush = 0x08;
    private const byte FlagCwr = 0x80;

    private readonly ReadOnlySpan<byte> _frame;
    private readonly VirtioNetHeader _header;
    private readonly LargeSegment _layout;
    private readonly bool _isLarge;

    // Read once: the frame may lie in memory that a peer can still change, and the segments must fit together all the same.
    private readonly uint _sequence;
    private readonly ushort _identification;
    private readonly ushort _pseudoHeaderSum;
    private int _position;
    private int _index;

    internal SegmentCursor(ReadOnlySpan<byte> frame, in VirtioNetHeader header)
    {
        _frame = frame;
        _header = header;
        NextLength = LongestLength = frame.Length;
        Count = 1;
    }

    internal SegmentCursor(ReadOnlySpan<byte> frame, in VirtioNetHeader header, LargeSegment layout) : this(frame, header)
    {
        _isLarge = true;
        _layout = layout;
        ReadOnlySpan<byte> transport = frame[layout.TransportOffset..];
        int payload = frame.Length - layout.PayloadOffset;
        Count = Math.Max(1, (payload + layout.SegmentSize - 1) / layout.SegmentSize);
        NextLength = LongestLength = layout.PayloadOffset + Math.Min(payload, layout.SegmentSize);
        if (layout.IsIpv4)
            _identification = BinaryPrimitives.ReadUInt16BigEndian(frame[(layout.IpOffset + IdentificationOffset)..]);
        if (layout.IsTcp)
            _sequence = BinaryPrimitives.ReadUInt32BigEndian(transport[4..]);
        // The partial checksum without the length of the whole. It is the sender's: where a routing header stands in the way,
        // only it knows the address that counts (RFC 8200, 8.1).
        ushort partial = BinaryPrimitives.ReadUInt16BigEndian(transport[(layout.IsTcp ? Segmenter.TcpChecksumOffset : Segmenter.UdpChecksumOffset)..]);
        _pseudoHeaderSum = AddOnes(partial, (ushort)~transport.Length);
    }

    /// <summary>Frames in all.</summary>
    public int Count { get; }

    /// <summary>Octets of the longest frame, which is the first.</summary>
    public int LongestLength { get; }

    /// <summary>Octets of the next frame; 0: that was the last.</summary>
    public int NextLength { get; private set; }

    /// <summary>Writes the next frame, without a virtio_net_hdr.</summary>
    /// <param name="room">At least <see cref="NextLength"/> octets.</param>
    /// <exception cref="ArgumentException">The room is too small.</exception>
    /// <returns>Octets written; 0 after the last frame.</returns>
    public int WriteNext(Span<byte> room)
    {
        int length = NextLength;
        if (length == 0)
            return 0;
        if (room.Length < length)
            throw new ArgumentException($"the next frame has {length} octets", nameof(room));
        room = room[..length];
        if (_isLarge)
            WriteSegment(room);
        else
            WriteWhole(room);
        return length;
    }

    private void WriteWhole(Span<byte> room)
    {
        _frame.CopyTo(room);
        _ = ChecksumCompletion.Complete(room, _header);
        NextLength = 0;
    }

    private void WriteSegment(Span<byte> room)
    {
        int size = room.Length - _layout.PayloadOffset;
        bool isLast = _index == Count - 1;
        _frame[.._layout.PayloadOffset].CopyTo(room);
        _frame.Slice(_layout.PayloadOffset + _position, size).CopyTo(room[_layout.PayloadOffset..]);
        WriteIp(room[_layout.IpOffset..]);
        Span<byte> transport = room[_layout.TransportOffset..];
        if (_layout.IsTcp)
            WriteTcp(transport, isLast);
        else
            BinaryPrimitives.WriteUInt16BigEndian(transport[4..], (ushort)transport.Length);
        WriteChecksum(transport);
        _position += size;
        _index++;
        NextLength = isLast ? 0 : _layout.PayloadOffset + Math.Min(_layout.SegmentSize, _frame.Length - _layout.PayloadOffset - _position);
    }

    private readonly void WriteIp(Span<byte> packet)
    {
        if (!_layout.IsIpv4)
        {
            BinaryPrimitives.WriteUInt16BigEndian(packet[4..], (ushort)(packet.Length - Segmenter.Ipv6HeaderLength));
            return;
        }
        BinaryPrimitives.WriteUInt16BigEndian(packet[2..], (ushort)packet.Length);
        BinaryPrimitives.WriteUInt16BigEndian(packet[IdentificationOffset..], (ushort)(_identification + _index));
        BinaryPrimitives.WriteUInt16BigEndian(packet[Ipv4ChecksumOffset..], 0);
        ushort checksum = Checksum.Compute(packet[..(_layout.TransportOffset - _layout.IpOffset)]);
        BinaryPrimitives.WriteUInt16BigEndian(packet[Ipv4ChecksumOffset..], checksum);
    }

    private readonly void WriteTcp(Span<byte> segment, bool isLast)
    {
        BinaryPrimitives.WriteUInt32BigEndian(segment[4..], _sequence + (uint)_position);
        if (!isLast)
            segment[TcpFlagsOffset] &= unchecked((byte)~(FlagFin | FlagPush));
        if (_index > 0)
            segment[TcpFlagsOffset] &= unchecked((byte)~FlagCwr);
    }

    private readonly void WriteChecksum(Span<byte> transport)
    {
        Span<byte> field = transport[(_layout.IsTcp ? Segmenter.TcpChecksumOffset : Segmenter.UdpChecksumOffset)..];
        BinaryPrimitives.WriteUInt16BigEndian(field, AddOnes(_pseudoHeaderSum, (ushort)transport.Length));
        ushort checksum = Checksum.Compute(transport);
        // RFC 768: zero would say that there is none.
        BinaryPrimitives.WriteUInt16BigEndian(field, checksum == 0 && !_layout.IsTcp ? (ushort)0xFFFF : checksum);
    }

    private static ushort AddOnes(ushort left, ushort right)
    {
        int sum = left + right;
        return (ushort)((sum & 0xFFFF) + (sum >> 16));
    }
}
