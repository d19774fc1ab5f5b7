using CsCheck;

namespace VNetMesh.Packets.Tests;

/// <summary>Each format against octets that were written down by hand from its RFC, there and back.</summary>
public sealed class FormatTests
{
    private static readonly MacAddress Ours = MacAddress.Parse("02:56:4e:00:00:01"), Theirs = MacAddress.Parse("02:00:5e:10:00:01");
    private static readonly Ipv4Address Source = Ipv4Address.Parse("192.168.108.128"), Destination = Ipv4Address.Parse("192.168.108.2");

    private static readonly Gen<Ipv4Address> Addresses = Gen.UInt.Select(value => new Ipv4Address(value));
    private static readonly Gen<MacAddress> Macs = Gen.ULong[0, 0xFFFF_FFFF_FFFF].Select(value => new MacAddress(value));

    [Fact]
    public void Ethernet()
    {
        byte[] frame = new byte[EthernetView.HeaderLength];
        EthernetView.Write(frame, Theirs, Ours, EtherType.Arp);
        Assert.Equal(
            "02005E100001" + // destination
            "02564E000001" + // source
            "0806", // type: ARP
            Convert.ToHexString(frame));
        Assert.True(EthernetView.TryParse(frame, out EthernetView view));
        Assert.Equal((Theirs, Ours, EtherType.Arp, 0), (view.Destination, view.Source, view.Type, view.Payload.Length));
        Assert.False(EthernetView.TryParse(frame.AsSpan(0, 13), out _));
    }

    [Fact]
    public void Arp()
    {
        byte[] bytes = new byte[ArpPacket.Length];
        var packet = new ArpPacket(ArpPacket.Reply, Ours, Destination, Theirs, Source);
        packet.Write(bytes);
        Assert.Equal(
            "0001" + // hardware: Ethernet
            "0800" + // protocol: IPv4
            "06" + // octets of a hardware address
            "04" + // octets of a protocol address
            "0002" + // reply
            "02564E000001" + // sender
            "C0A86C02" +
            "02005E100001" + // target
            "C0A86C80",
            Convert.ToHexString(bytes));
        Assert.True(ArpPacket.TryParse(bytes, out ArpPacket read));
        Assert.Equal(packet, read);
        // Of any other hardware, protocol, length or operation it is none.
        for (int i = 0; i < 8; i++)
        {
            bytes[i] ^= 0x10;
            Assert.False(ArpPacket.TryParse(bytes, out _));
            bytes[i] ^= 0x10;
        }
    }

    [Fact]
    public void Ipv4()
    {
        byte[] bytes = new byte[Ipv4Header.Length];
        new Ipv4Header(Source, Destination, IpProtocol.Udp, 12) { Identification = 0x1C46, TypeOfService = 0x10 }.Write(bytes);
        Assert.Equal(
            "45" + // version 4, header of 5 words
            "10" + // type of service
            "0020" + // total length: 20 + 12
            "1C46" + // identification
            "4000" + // don't fragment, offset 0
            "40" + // time to live 64
            "11" + // UDP
            "C4A3" + // checksum
            "C0A86C80" + // source
            "C0A86C02", // destination
            Convert.ToHexString(bytes));
        byte[] packet = [.. bytes, .. new byte[12], 0xFF]; // and one octet of padding
        Assert.True(Ipv4View.TryParse(packet, out Ipv4View view));
        Assert.Equal((20, 32, 12, true, false, (ushort)0x1C46), (view.HeaderLength, view.TotalLength, view.Payload.Length, view.DontFragment, view.IsFragment, view.Identification));
        Assert.Equal((Source, Destination, IpProtocol.Udp, (byte)64, (byte)0x10), (view.Source, view.Destination, view.Protocol, view.TimeToLive, view.TypeOfService));
        Assert.True(view.HasValidChecksum);
        packet[8]--;
        Assert.True(Ipv4View.TryParse(packet, out view));
        Assert.False(view.HasValidChecksum);
    }

    [Theory]
    [InlineData(0, 0x65)] // version 6
    [InlineData(0, 0x44)] // a header of 16 octets
    [InlineData(0, 0x4F)] // a header of 60 octets, where there are 32
    [InlineData(3, 33)] // more than there is
    [InlineData(3, 19)] // less than the header
    public void Ipv4_whose_lengths_lie_is_none(int offset, byte value)
    {
        byte[] bytes = new byte[32];
        new Ipv4Header(Source, Destination, IpProtocol.Udp, 12).Write(bytes);
        bytes[offset] = value;
        Assert.False(Ipv4View.TryParse(bytes, out _));
    }

    [Fact]
    public void Ipv4_fragments_are_seen()
    {
        byte[] bytes = new byte[20];
        new Ipv4Header(Source, Destination, IpProtocol.Udp, 0).Write(bytes);
        (bytes[6], bytes[7]) = (0x20, 0xB9);
        Assert.True(Ipv4View.TryParse(bytes, out Ipv4View view));
        Assert.Equal((true, true, 185 * 8), (view.IsFragment, view.MoreFragments, view.FragmentOffset));
    }

    [Fact]
    public void Udp()
    {
        byte[] datagram = [.. new byte[UdpView.HeaderLength], .. "ab!"u8];
        UdpView.Write(datagram, Source, Destination, 68, 67);
        Assert.Equal(
            "0044" + // source port
            "0043" + // destination port
            "000B" + // length: 8 + 3
            Convert.ToHexString(UdpChecksum(datagram)) +
            "616221",
            Convert.ToHexString(datagram));
        Assert.True(UdpView.TryParse([.. datagram, 0, 0], out UdpView view));
        Assert.Equal((68, 67, 3), (view.SourcePort, view.DestinationPort, view.Payload.Length));
        Assert.True(view.HasValidChecksum(Source, Destination));
        Assert.False(view.HasValidChecksum(Source, Source));
        datagram[5] = 12;
        Assert.False(UdpView.TryParse(datagram, out _));
        datagram[5] = 7;
        Assert.False(UdpView.TryParse(datagram, out _));
    }

    /// <summary>RFC 768: a checksum that comes out as zero is sent as all ones.</summary>
    [Fact]
    public void Udp_never_says_that_it_has_no_checksum()
    {
        byte[] datagram = new byte[UdpView.HeaderLength + 2];
        int ones = 0;
        for (int word = 0; word <= 0xFFFF; word++)
        {
            (datagram[8], datagram[9]) = ((byte)(word >> 8), (byte)word);
            UdpView.Write(datagram, Source, Destination, 1, 2);
            Assert.True(UdpView.TryParse(datagram, out UdpView view));
            Assert.NotEqual(0, view.ChecksumField);
            Assert.True(view.HasValidChecksum(Source, Destination));
            ones += view.ChecksumField == 0xFFFF ? 1 : 0;
        }
        Assert.Equal(1, ones);
    }

    [Fact]
    public void Icmp()
    {
        byte[] message = [.. new byte[Icmpv4View.HeaderLength], .. "ping"u8];
        Icmpv4View.Write(message, Icmpv4Type.EchoRequest, 0, 0x1234_0001);
        Assert.Equal(
            "08" + // echo request
            "00" + // code
            "06FA" + // checksum
            "1234" + // identifier
            "0001" + // sequence
            "70696E67",
            Convert.ToHexString(message));
        Assert.True(Icmpv4View.TryParse(message, out Icmpv4View view));
        Assert.Equal((Icmpv4Type.EchoRequest, (byte)0, (ushort)0x1234, (ushort)1, 0x1234_0001u, 4), (view.Type, view.Code, view.Identifier, view.Sequence, view.Rest, view.Data.Length));
        Assert.True(view.HasValidChecksum);
        Assert.False(Icmpv4View.TryParse(message.AsSpan(0, 7), out _));
    }

    [Fact]
    public void VirtioNet()
    {
        Assert.Equal(VirtioNetHeader.Length, System.Runtime.CompilerServices.Unsafe.SizeOf<VirtioNetHeader>());
        byte[] bytes = new byte[VirtioNetHeader.Length];
        var header = new VirtioNetHeader { Flags = 1, GsoType = 0x81, HeaderLength = 54, GsoSize = 1448, ChecksumStart = 34, ChecksumOffset = 16, BufferCount = 1 };
        header.Write(bytes);
        Assert.Equal(
            "01" + // flags: needs checksum
            "81" + // TCP over IPv4, with ECN
            "3600" + // header length, little end first on this machine
            "A805" + // segment size
            "2200" + // checksum start
            "1000" + // checksum offset
            "0100", // buffers
            Convert.ToHexString(bytes));
        VirtioNetHeader read = VirtioNetHeader.Read(bytes);
        Assert.Equal((true, VirtioNetHeader.GsoTcpv4, 1448), (read.NeedsChecksum, read.GsoKind, read.GsoSize));
    }

    [Theory]
    [InlineData(0, 0, 0, 0, 0, 14, true)]
    [InlineData(1, 0, 34, 16, 0, 52, true)]
    [InlineData(1, 0, 34, 16, 0, 51, false)] // the field lies beyond
    [InlineData(1, 0, 13, 6, 0, 60, false)] // in the Ethernet header
    [InlineData(1, 0, 65535, 65535, 0, 60, false)]
    [InlineData(1, 1, 34, 16, 1448, 3000, true)]
    [InlineData(1, 1, 34, 16, 0, 3000, false)] // no segment size
    [InlineData(0, 1, 34, 16, 1448, 3000, false)] // segments without a checksum to complete
    [InlineData(1, 3, 34, 6, 1448, 3000, false)] // UFO is no more
    [InlineData(1, 2, 34, 6, 1448, 3000, false)]
    public void VirtioNet_is_checked_against_the_frame(byte flags, byte kind, ushort start, ushort offset, ushort size, int length, bool isConsistent) =>
        Assert.Equal(isConsistent, new VirtioNetHeader { Flags = flags, GsoType = kind, ChecksumStart = start, ChecksumOffset = offset, GsoSize = size }.IsConsistentWith(length));

    [Fact]
    public void Round_trips() => Gen.Select(Macs, Macs, Addresses, Addresses, Gen.Bool).Sample((first, second, from, to, isReply) =>
    {
        byte[] bytes = new byte[ArpPacket.Length];
        var packet = new ArpPacket(isReply ? ArpPacket.Reply : ArpPacket.Request, first, from, second, to);
        packet.Write(bytes);
        return ArpPacket.TryParse(bytes, out ArpPacket read) && read == packet
            && MacAddress.Parse(first.ToString()) == first && MacAddress.Parse(first.ToString().ToUpperInvariant().Replace(':', '-')) == first
            && Ipv4Address.Parse(from.ToString()) == from && Ipv4Address.From(from.ToIPAddress()) == from && from.ToIPAddress().ToString() == from.ToString();
    });

    [Fact]
    public void Random_octets_never_throw() => Gen.Select(Gen.Byte.Array[0, 100], Gen.Byte).Sample((bytes, first) =>
    {
        if (bytes.Length > 0)
            bytes[0] = (byte)(first % 4 == 0 ? 0x40 | (first >> 4) : first);
        if (EthernetView.TryParse(bytes, out EthernetView ethernet))
            _ = (ethernet.Destination, ethernet.Source, ethernet.Type, ethernet.Payload.Length);
        _ = ArpPacket.TryParse(bytes, out _);
        if (Ipv4View.TryParse(bytes, out Ipv4View ip))
            _ = (ip.Source, ip.Destination, ip.Protocol, ip.TimeToLive, ip.FragmentOffset, ip.MoreFragments, ip.HasValidChecksum, ip.Header.Length + ip.Payload.Length, ip.Packet.Length);
        if (UdpView.TryParse(bytes, out UdpView udp))
            _ = (udp.SourcePort, udp.DestinationPort, udp.ChecksumField, udp.Payload.Length, udp.HasValidChecksum(Source, Destination));
        if (Icmpv4View.TryParse(bytes, out Icmpv4View icmp))
            _ = (icmp.Type, icmp.Code, icmp.Identifier, icmp.Sequence, icmp.Rest, icmp.Data.Length, icmp.HasValidChecksum);
        if (bytes.Length >= VirtioNetHeader.Length)
            _ = VirtioNetHeader.Read(bytes).IsConsistentWith(bytes.Length);
    }, iter: 20000);

    private static byte[] UdpChecksum(byte[] datagram)
    {
        byte[] pseudo = [192, 168, 108, 128, 192, 168, 108, 2, 0, 17, 0, (byte)datagram.Length];
        ushort checksum = NaiveChecksum.Compute(pseudo, [.. datagram[..6], 0, 0, .. datagram[8..]]);
        return [(byte)(checksum >> 8), (byte)checksum];
    }
}
