using System.Buffers.Binary;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tests.Support;

/// <summary>Records as a guest's port gives them, and what the gateway's say.</summary>
internal static class Frames
{
    public static readonly Ipv4Address GuestAddress = Ipv4Address.Parse("192.168.108.10");
    public static readonly MacAddress GuestMac = MacAddress.Parse("02:56:4e:00:00:10");
    private const int IpAt = VirtioNetHeader.Length + EthernetView.HeaderLength;

    public static byte[] Arp(in ArpPacket packet, MacAddress? destination = null, MacAddress? source = null)
    {
        byte[] record = new byte[IpAt + ArpPacket.Length];
        EthernetView.Write(record.AsSpan(VirtioNetHeader.Length), destination ?? MacAddress.Broadcast, source ?? GuestMac, EtherType.Arp);
        packet.Write(record.AsSpan(IpAt));
        return record;
    }

    public static byte[] Ip(Ipv4Address destination, byte protocol, ReadOnlySpan<byte> payload, Ipv4Address? source = null, byte ttl = 64, bool dontFragment = true, MacAddress? mac = null)
    {
        byte[] record = new byte[IpAt + Ipv4Header.Length + payload.Length];
        EthernetView.Write(record.AsSpan(VirtioNetHeader.Length), TestNat.GatewayMac, mac ?? GuestMac, EtherType.Ipv4);
        new Ipv4Header(source ?? GuestAddress, destination, protocol, payload.Length) { TimeToLive = ttl, DontFragment = dontFragment }.Write(record.AsSpan(IpAt));
        payload.CopyTo(record.AsSpan(IpAt + Ipv4Header.Length));
        return record;
    }

    public static byte[] Udp(Ipv4Address destination, ushort sourcePort, ushort destinationPort, ReadOnlySpan<byte> data, byte ttl = 64, Ipv4Address? source = null) =>
        Ip(destination, IpProtocol.Udp, UdpBytes(destination, sourcePort, destinationPort, data, source), source, ttl, dontFragment: false);

    /// <summary>A datagram in IP fragments of that many octets of payload.</summary>
    public static List<byte[]> UdpFragments(Ipv4Address destination, ushort sourcePort, ushort destinationPort, ReadOnlySpan<byte> data, int step)
    {
        byte[] whole = UdpBytes(destination, sourcePort, destinationPort, data, null);
        var records = new List<byte[]>();
        for (int offset = 0; offset < whole.Length; offset += step)
        {
            int length = Math.Min(step, whole.Length - offset);
            byte[] record = Ip(destination, IpProtocol.Udp, whole.AsSpan(offset, length), dontFragment: false);
            Span<byte> header = record.AsSpan(IpAt, Ipv4Header.Length);
            BinaryPrimitives.WriteUInt16BigEndian(header[4..], 0x1234);
            BinaryPrimitives.WriteUInt16BigEndian(header[6..], (ushort)((offset / 8) | (offset + length < whole.Length ? 0x2000 : 0)));
            FixChecksum(header);
            records.Add(record);
        }
        return records;
    }

    public static byte[] Echo(Ipv4Address destination, ushort identifier, ushort sequence, ReadOnlySpan<byte> data, byte ttl = 64)
    {
        byte[] message = new byte[Icmpv4View.HeaderLength + data.Length];
        data.CopyTo(message.AsSpan(Icmpv4View.HeaderLength));
        Icmpv4View.Write(message, Icmpv4Type.EchoRequest, 0, ((uint)identifier << 16) | sequence);
        return Ip(destination, IpProtocol.Icmp, message, ttl: ttl);
    }

    public static byte[] Tcp(Ipv4Address destination, in TcpHeader header, ReadOnlySpan<byte> data = default, TcpHeaderOptions options = default)
    {
        byte[] segment = new byte[TcpView.MinHeaderLength + options.Length + data.Length];
        int length = header.Write(segment, options);
        data.CopyTo(segment.AsSpan(length));
        ulong sum = Checksum.PseudoHeader(GuestAddress, destination, IpProtocol.Tcp, segment.Length);
        BinaryPrimitives.WriteUInt16BigEndian(segment.AsSpan(TcpView.ChecksumOffset), Checksum.Finish(Checksum.Add(sum, segment)));
        return Ip(destination, IpProtocol.Tcp, segment);
    }

    /// <summary>The IP packet in a record; fails the test when there is none.</summary>
    public static Ipv4View IpOf(ReadOnlySpan<byte> record)
    {
        Assert.True(EthernetView.TryParse(record[VirtioNetHeader.Length..], out EthernetView ethernet));
        Assert.Equal(EtherType.Ipv4, ethernet.Type);
        Assert.Equal(TestNat.GatewayMac, ethernet.Source);
        Assert.True(Ipv4View.TryParse(ethernet.Payload, out Ipv4View ip));
        Assert.True(ip.HasValidChecksum);
        return ip;
    }

    public static Icmpv4View IcmpOf(ReadOnlySpan<byte> record)
    {
        Ipv4View ip = IpOf(record);
        Assert.Equal(IpProtocol.Icmp, ip.Protocol);
        Assert.True(Icmpv4View.TryParse(ip.Payload, out Icmpv4View message));
        Assert.True(message.HasValidChecksum);
        return message;
    }

    public static UdpView UdpOf(ReadOnlySpan<byte> record)
    {
        Ipv4View ip = IpOf(record);
        Assert.Equal(IpProtocol.Udp, ip.Protocol);
        Assert.True(UdpView.TryParse(ip.Payload, out UdpView datagram));
        if (!VirtioNetHeader.Read(record).NeedsChecksum)
            Assert.True(datagram.HasValidChecksum(ip.Source, ip.Destination));
        return datagram;
    }

    public static TcpView TcpOf(ReadOnlySpan<byte> record)
    {
        Ipv4View ip = IpOf(record);
        Assert.Equal(IpProtocol.Tcp, ip.Protocol);
        Assert.True(TcpView.TryParse(ip.Payload, out TcpView segment));
        if (!VirtioNetHeader.Read(record).NeedsChecksum)
            Assert.True(segment.HasValidChecksum(ip.Source, ip.Destination));
        return segment;
    }

    public static void FixChecksum(Span<byte> ipHeader)
    {
        BinaryPrimitives.WriteUInt16BigEndian(ipHeader[10..], 0);
        BinaryPrimitives.WriteUInt16BigEndian(ipHeader[10..], Checksum.Compute(ipHeader));
    }

    private static byte[] UdpBytes(Ipv4Address destination, ushort sourcePort, ushort destinationPort, ReadOnlySpan<byte> data, Ipv4Address? source)
    {
        byte[] datagram = new byte[UdpView.HeaderLength + data.Length];
        data.CopyTo(datagram.AsSpan(UdpView.HeaderLength));
        UdpView.Write(datagram, source ?? GuestAddress, destination, sourcePort, destinationPort);
        return datagram;
    }
}
