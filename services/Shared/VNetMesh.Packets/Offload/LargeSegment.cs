using System.Buffers.Binary;

namespace VNetMesh.Packets.Offload;

/// <summary>
/// Where the headers of a large segment are, found by reading them and believing none of their lengths. The numbers in the
/// virtio_net_hdr must agree with what was found.
/// </summary>
internal readonly record struct LargeSegment
{
    private const byte ExtensionHopByHop = 0;
    private const byte ExtensionRouting = 43;
    private const byte ExtensionFragment = 44;
    private const byte ExtensionAuthentication = 51;
    private const byte ExtensionDestination = 60;
    private const int MaxVlanTags = 2;
    private const int MaxFrameLength = 65535 + EthernetView.HeaderLength + (MaxVlanTags * 4);

    /// <summary>As the kernel's TCP_MIN_GSO_SIZE: the smallest MSS less the most options.</summary>
    private const int MinTcpSegment = 8;

    /// <summary>As the kernel's UDP_MAX_SEGMENTS.</summary>
    private const int MaxUdpSegments = 128;

    /// <summary>Where the IP header begins.</summary>
    public int IpOffset { get; private init; }

    /// <summary>Where the TCP or UDP header begins.</summary>
    public int TransportOffset { get; private init; }

    /// <summary>Where the payload begins.</summary>
    public int PayloadOffset { get; private init; }

    /// <summary>Payload octets of each segment but the last.</summary>
    public int SegmentSize { get; private init; }

    public bool IsIpv4 { get; private init; }

    public bool IsTcp { get; private init; }

    public static OffloadFault TryFind(ReadOnlySpan<byte> frame, in VirtioNetHeader header, out LargeSegment found)
    {
        found = default;
        if (header.GsoKind is not (VirtioNetHeader.GsoTcpv4 or VirtioNetHeader.GsoTcpv6 or VirtioNetHeader.GsoUdpL4) || !header.NeedsChecksum)
            return OffloadFault.KindUnknown;
        if (frame.Length > MaxFrameLength)
            return OffloadFault.FrameTooLong;
        if (!TryFindIp(frame, out int ip, out ushort type))
            return OffloadFault.FrameTooShort;
        OffloadFault fault;
        int transport;
        byte protocol;
        switch (type)
        {
            case EtherType.Ipv4 when header.GsoKind != VirtioNetHeader.GsoTcpv6:
                fault = WalkIpv4(frame, ip, out transport, out protocol);
                break;
            case EtherType.Ipv6 when header.GsoKind != VirtioNetHeader.GsoTcpv4:
                fault = WalkIpv6(frame, ip, out transport, out protocol);
                break;
            default:
                return OffloadFault.ProtocolMismatch;
        }
        if (fault != OffloadFault.None)
            return fault;
        bool isTcp = header.GsoKind != VirtioNetHeader.GsoUdpL4;
        if (protocol != (isTcp ? IpProtocol.Tcp : IpProtocol.Udp))
            return OffloadFault.ProtocolMismatch;
        fault = FindPayload(frame, transport, isTcp, out int payload);
        if (fault != OffloadFault.None)
            return fault;
        if (header.ChecksumStart != transport || header.ChecksumOffset != (isTcp ? Segmenter.TcpChecksumOffset : Segmenter.UdpChecksumOffset))
            return OffloadFault.ChecksumPlaceInvalid;
        found = new LargeSegment
        {
            IpOffset = ip,
            TransportOffset = transport,
            PayloadOffset = payload,
            SegmentSize = header.GsoSize,
            IsIpv4 = type == EtherType.Ipv4,
            IsTcp = isTcp,
        };
        return found.CheckSize(frame.Length);
    }

    private OffloadFault CheckSize(int frameLength)
    {
        int payload = frameLength - PayloadOffset;
        bool tooSmall = IsTcp ? SegmentSize < MinTcpSegment : SegmentSize == 0 || payload > SegmentSize * MaxUdpSegments;
        int counted = IsIpv4 ? IpOffset : IpOffset + Segmenter.Ipv6HeaderLength;
        bool tooLarge = PayloadOffset + Math.Min(SegmentSize, payload) - counted > ushort.MaxValue;
        return tooSmall || tooLarge ? OffloadFault.SegmentSizeOutOfRange : OffloadFault.None;
    }

    private static bool TryFindIp(ReadOnlySpan<byte> frame, out int ip, out ushort type)
    {
        type = 0;
        ip = EthernetView.HeaderLength;
        for (int tags = 0; frame.Length >= ip; tags++)
        {
            type = BinaryPrimitives.ReadUInt16BigEndian(frame[(ip - 2)..]);
            if (type is not (EtherType.Vlan or EtherType.ProviderVlan) || tags == MaxVlanTags)
                return true;
            ip += 4;
        }
        return false;
    }

    private static OffloadFault WalkIpv4(ReadOnlySpan<byte> frame, int ip, out int transport, out byte protocol)
    {
        transport = 0;
        protocol = 0;
        ReadOnlySpan<byte> packet = frame[ip..];
        if (packet.Length < Ipv4View.MinHeaderLength)
            return OffloadFault.FrameTooShort;
        int headerLength = (packet[0] & 0x0F) * 4;
        if (packet[0] >> 4 != 4)
            return OffloadFault.ProtocolMismatch;
        if (headerLength < Ipv4View.MinHeaderLength || headerLength > packet.Length)
            return OffloadFault.HeaderLengthInvalid;
        // Some senders leave the length to whoever cuts the segment.
        int totalLength = BinaryPrimitives.ReadUInt16BigEndian(packet[2..]);
        if (totalLength != 0 && totalLength != packet.Length)
            return OffloadFault.PacketLengthMismatch;
        if ((BinaryPrimitives.ReadUInt16BigEndian(packet[6..]) & 0x3FFF) != 0)
            return OffloadFault.Fragment;
        transport = ip + headerLength;
        protocol = packet[9];
        return OffloadFault.None;
    }

    private static OffloadFault WalkIpv6(ReadOnlySpan<byte> frame, int ip, out int transport, out byte protocol)
    {
        transport = ip + Segmenter.Ipv6HeaderLength;
        protocol = 0;
        if (frame.Length < transport)
            return OffloadFault.FrameTooShort;
        if (frame[ip] >> 4 != 6)
            return OffloadFault.ProtocolMismatch;
        int payloadLength = BinaryPrimitives.ReadUInt16BigEndian(frame[(ip + 4)..]);
        if (payloadLength != 0 && payloadLength != frame.Length - transport)
            return OffloadFault.PacketLengthMismatch;
        protocol = frame[ip + 6];
        // Each round moves on by 8 octets at least, so the frame's length bounds them (RFC 8200, 4).
        while (protocol is ExtensionHopByHop or ExtensionRouting or ExtensionDestination or ExtensionAuthentication or ExtensionFragment)
        {
            if (protocol == ExtensionFragment)
                return OffloadFault.Fragment;
            if (frame.Length - transport < 8)
                return OffloadFault.HeaderLengthInvalid;
            // The authentication header counts in 4 octets less two (RFC 4302, 2.2), the others in 8 less one.
            int length = protocol == ExtensionAuthentication ? (frame[transport + 1] + 2) * 4 : (frame[transport + 1] + 1) * 8;
            if (length < 8 || length > frame.Length - transport)
                return OffloadFault.HeaderLengthInvalid;
            protocol = frame[transport];
            transport += length;
        }
        return OffloadFault.None;
    }

    private static OffloadFault FindPayload(ReadOnlySpan<byte> frame, int transport, bool isTcp, out int payload)
    {
        payload = transport + (isTcp ? Segmenter.TcpMinHeaderLength : UdpView.HeaderLength);
        if (frame.Length < payload)
            return OffloadFault.FrameTooShort;
        if (!isTcp)
            return OffloadFault.None;
        int headerLength = (frame[transport + 12] >> 4) * 4;
        payload = transport + headerLength;
        return headerLength < Segmenter.TcpMinHeaderLength || payload > frame.Length ? OffloadFault.HeaderLengthInvalid : OffloadFault.None;
    }
}
