using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using VNetMesh.Links;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Gateways;

/// <summary>
/// Builds frames for the guests straight in the link's memory: <see cref="TryBegin"/> writes Ethernet and IPv4 headers
/// and gives the room behind them, <c>Send</c> publishes. One packet at a time.
/// </summary>
public sealed class FrameSender(GatewaySettings settings, DropCounters drops)
{
    /// <summary>Octets in front of an IP payload in a record.</summary>
    public const int HeadersLength = VirtioNetHeader.Length + EthernetView.HeaderLength + Ipv4Header.Length;

    private const int IpOffset = EthernetView.HeaderLength;
    private const int UdpChecksumOffset = 6;
    private const byte Ipv4DefaultTtl = 64;
    private const int MaxPayload = 65535 - Ipv4Header.Length;

    private static readonly VirtioNetHeader PlainHeader = new() { BufferCount = 1 };

    private readonly byte[] _packet = new byte[65536];
    private ushort _identification = (ushort)Random.Shared.Next(65536);

    /// <summary>Null while the switch is away.</summary>
    public IFrameLink? Link { get; set; }

    public bool AcceptsPartialChecksums => Link is not null && (Link.Offloads & LinkOffloads.Checksum) != 0;

    public bool AcceptsDatagramTrains => Link is not null && (Link.Offloads & (LinkOffloads.Uso | LinkOffloads.Checksum)) == (LinkOffloads.Uso | LinkOffloads.Checksum);

    public bool AcceptsLargeSegments => Link is not null && (Link.Offloads & (LinkOffloads.Tso4 | LinkOffloads.Checksum)) == (LinkOffloads.Tso4 | LinkOffloads.Checksum);

    /// <summary>Records and octets sent since the gateway was made, without the record's header.</summary>
    public ulong Frames { get; private set; }

    /// <summary>The link had no room since this was last set to false.</summary>
    public bool SawFull { get; set; }

    public bool TryBegin(MacAddress to, scoped in Ipv4Header header, out Span<byte> payload)
    {
        payload = default;
        if (Link is null)
            return false;
        Span<byte> record = Link.Reserve(HeadersLength + header.PayloadLength);
        if (record.IsEmpty)
        {
            SawFull = true;
            return false;
        }
        EthernetView.Write(record[VirtioNetHeader.Length..], to, settings.Mac, EtherType.Ipv4);
        header.Write(record[(VirtioNetHeader.Length + IpOffset)..]);
        PlainHeader.Write(record);
        payload = record[HeadersLength..];
        return true;
    }

    /// <summary>Publishes what was begun.</summary>
    /// <param name="payload">As <see cref="TryBegin"/> gave it, written in full.</param>
    public bool Send(scoped Span<byte> payload) => Commit(payload.Length);

    /// <summary>Publishes what was begun, with an offload header that is written over the plain one.</summary>
    public bool Send(scoped Span<byte> payload, in VirtioNetHeader offload)
    {
        offload.Write(Before(payload, HeadersLength));
        return Commit(payload.Length);
    }

    /// <summary>Sends an ARP packet; broadcast when no address is given.</summary>
    public void SendArp(MacAddress to, in ArpPacket packet)
    {
        Span<byte> record = Link is null ? default : Link.Reserve(VirtioNetHeader.Length + EthernetView.HeaderLength + ArpPacket.Length);
        if (record.IsEmpty)
        {
            CountUnsent();
            return;
        }
        PlainHeader.Write(record);
        EthernetView.Write(record[VirtioNetHeader.Length..], to, settings.Mac, EtherType.Arp);
        packet.Write(record[(VirtioNetHeader.Length + EthernetView.HeaderLength)..]);
        Finish(Link!.Commit(VirtioNetHeader.Length + EthernetView.HeaderLength + ArpPacket.Length, default));
    }

    /// <summary>
    /// Sends a UDP datagram, in fragments where it is larger than the MTU. False: it was not sent whole, and that is counted.
    /// </summary>
    public bool SendUdp(Neighbour to, Ipv4Address source, ushort sourcePort, ushort destinationPort, ReadOnlySpan<byte> data)
    {
        int length = UdpView.HeaderLength + data.Length;
        if (Ipv4Header.Length + length <= settings.Mtu)
        {
            var header = new Ipv4Header(source, to.Address, IpProtocol.Udp, length);
            if (!TryBegin(to.Mac, header, out Span<byte> payload))
                return CountUnsent();
            data.CopyTo(payload[UdpView.HeaderLength..]);
            if (AcceptsPartialChecksums)
                return SendPartial(payload, header, sourcePort, destinationPort, 0);
            UdpView.Write(payload, source, to.Address, sourcePort, destinationPort);
            return Send(payload);
        }
        if (length > MaxPayload)
            return false;
        // The checksum covers the whole datagram, so it is written before it is cut.
        Span<byte> whole = _packet.AsSpan(0, length);
        data.CopyTo(whole[UdpView.HeaderLength..]);
        UdpView.Write(whole, source, to.Address, sourcePort, destinationPort);
        return SendFragments(to, source, IpProtocol.Udp, whole, Ipv4DefaultTtl);
    }

    /// <summary>
    /// Begins a record of several datagrams (virtio 1.2, 5.1.6: VIRTIO_NET_HDR_GSO_UDP_L4), which the guest's kernel cuts. Only where
    /// <see cref="AcceptsDatagramTrains"/> and each fits the MTU.
    /// </summary>
    /// <param name="length">Octets of all payloads; with both headers at most 65535.</param>
    /// <param name="data">Where they go, one after the other.</param>
    public bool TryBeginTrain(Neighbour to, Ipv4Address source, int length, out Span<byte> data)
    {
        bool begun = TryBegin(to.Mac, new Ipv4Header(source, to.Address, IpProtocol.Udp, UdpView.HeaderLength + length), out Span<byte> payload);
        data = begun ? payload[UdpView.HeaderLength..] : default;
        return begun || CountUnsent();
    }

    /// <summary>Publishes what <see cref="TryBeginTrain"/> began.</summary>
    /// <param name="segment">Octets of each datagram's payload; the last may have less.</param>
    public bool SendTrain(Neighbour to, Ipv4Address source, ushort sourcePort, ushort destinationPort, scoped Span<byte> data, int segment)
    {
        ref byte start = ref Unsafe.Subtract(ref MemoryMarshal.GetReference(data), UdpView.HeaderLength);
        Span<byte> payload = MemoryMarshal.CreateSpan(ref start, UdpView.HeaderLength + data.Length);
        return SendPartial(payload, new Ipv4Header(source, to.Address, IpProtocol.Udp, payload.Length), sourcePort, destinationPort, segment);
    }

    // The checksum is the device's to complete: the field holds the sum of the pseudo-header. No segment size: one datagram.
    private bool SendPartial(scoped Span<byte> payload, scoped in Ipv4Header ip, ushort sourcePort, ushort destinationPort, int segment)
    {
        BinaryPrimitives.WriteUInt16BigEndian(payload, sourcePort);
        BinaryPrimitives.WriteUInt16BigEndian(payload[2..], destinationPort);
        BinaryPrimitives.WriteUInt16BigEndian(payload[4..], (ushort)payload.Length);
        BinaryPrimitives.WriteUInt16BigEndian(payload[UdpChecksumOffset..], Checksum.Fold(Checksum.PseudoHeader(ip.Source, ip.Destination, ip.Protocol, payload.Length)));
        return Send(payload, new VirtioNetHeader
        {
            Flags = VirtioNetHeader.FlagNeedsChecksum,
            GsoType = segment > 0 ? VirtioNetHeader.GsoUdpL4 : VirtioNetHeader.GsoNone,
            GsoSize = (ushort)segment,
            HeaderLength = IpOffset + Ipv4Header.Length + UdpView.HeaderLength,
            ChecksumStart = IpOffset + Ipv4Header.Length,
            ChecksumOffset = UdpChecksumOffset,
            BufferCount = 1,
        });
    }

    /// <summary>Sends an IP payload that is complete, in fragments where it is larger than the MTU.</summary>
    public bool SendPayload(Neighbour to, Ipv4Address source, byte protocol, ReadOnlySpan<byte> data, byte timeToLive = Ipv4DefaultTtl)
    {
        if (Ipv4Header.Length + data.Length > settings.Mtu)
            return SendFragments(to, source, protocol, data, timeToLive);
        var header = new Ipv4Header(source, to.Address, protocol, data.Length) { TimeToLive = timeToLive };
        if (!TryBegin(to.Mac, header, out Span<byte> payload))
            return CountUnsent();
        data.CopyTo(payload);
        return Send(payload);
    }

    /// <summary>Counts a packet that found no link or no room.</summary>
    public bool CountUnsent()
    {
        drops.Count(Link is null ? DropCause.LinkDown : DropCause.LinkFull);
        return false;
    }

    // RFC 791, 3.2.
    private bool SendFragments(Neighbour to, Ipv4Address source, byte protocol, ReadOnlySpan<byte> data, byte timeToLive)
    {
        int step = (settings.Mtu - Ipv4Header.Length) & ~7;
        ushort identification = _identification++;
        for (int offset = 0; offset < data.Length; offset += step)
        {
            int length = Math.Min(step, data.Length - offset);
            var header = new Ipv4Header(source, to.Address, protocol, length) { Identification = identification, DontFragment = false, TimeToLive = timeToLive };
            if (!TryBegin(to.Mac, header, out Span<byte> payload))
                return CountUnsent();
            data.Slice(offset, length).CopyTo(payload);
            FragmentField.Write(Before(payload, Ipv4Header.Length), offset, more: offset + length < data.Length);
            if (!Send(payload))
                return false;
        }
        return true;
    }

    private bool Commit(int payloadLength) => Finish(Link!.Commit(HeadersLength + payloadLength, default));

    private bool Finish(SendStatus status)
    {
        if (status == SendStatus.Sent)
        {
            Frames++;
            return true;
        }
        drops.Count(status switch { SendStatus.Full => DropCause.LinkFull, SendStatus.Refused => DropCause.LinkRefused, _ => DropCause.LinkDown });
        return false;
    }

    // TryBegin gave the tail of one block of memory; this goes back towards its head.
    private static Span<byte> Before(Span<byte> payload, int octets)
    {
        ref byte start = ref MemoryMarshal.GetReference(payload);
        return MemoryMarshal.CreateSpan(ref Unsafe.Subtract(ref start, octets), octets);
    }
}
