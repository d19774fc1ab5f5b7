using System.Buffers.Binary;
using VNetMesh.Agent.Uplinks;
using VNetMesh.Packets;
using VNetMesh.Packets.Offload;

namespace VNetMesh.Agent.Tests.Uplinks;

/// <summary>What libpcap does not tell, found again by the frame.</summary>
public sealed class CapturedFrameTests
{
    private const int Mtu = 1500;

    [Theory]
    [InlineData(4, IpProtocol.Tcp, false)]
    [InlineData(4, IpProtocol.Udp, false)]
    [InlineData(6, IpProtocol.Tcp, false)]
    [InlineData(6, IpProtocol.Udp, true)]
    public void APartialChecksumIsSeenAndAWholeOneLeftAlone(int version, byte protocol, bool isTagged)
    {
        byte[] frame = Make(version, protocol, 300, isTagged);
        byte[] whole = (byte[])frame.Clone();
        Assert.True(CapturedFrame.Describe(frame, Mtu, out VirtioNetHeader header));
        Assert.True(header.NeedsChecksum);
        Assert.Equal(VirtioNetHeader.GsoNone, header.GsoType);
        Assert.True(header.IsConsistentWith(frame.Length));
        Assert.Equal(OffloadFault.None, ChecksumCompletion.Complete(whole, header));
        byte[] copy = (byte[])whole.Clone();
        Assert.True(CapturedFrame.Describe(copy, Mtu, out VirtioNetHeader none));
        Assert.False(none.NeedsChecksum);
        Assert.Equal(whole, copy);
    }

    [Theory]
    [InlineData(4, false)]
    [InlineData(6, false)]
    [InlineData(4, true)]
    public void WhatTheNicJoinedIsCutAgainToItsMtu(int version, bool isTagged)
    {
        byte[] frame = Make(version, IpProtocol.Tcp, 20_000, isTagged);
        Assert.True(CapturedFrame.Describe(frame, Mtu, out VirtioNetHeader header));
        Assert.True(header.IsConsistentWith(frame.Length));
        Assert.Equal(OffloadFault.None, Segmenter.Begin(frame, header, out SegmentCursor cursor));
        Assert.Equal(EthernetView.HeaderLength + (isTagged ? 4 : 0) + Mtu, cursor.LongestLength);
        int payload = 0;
        byte[] segment = new byte[2048];
        while (cursor.NextLength > 0)
        {
            int length = cursor.WriteNext(segment);
            Assert.True(CapturedFrame.Describe(segment.AsSpan(0, length), Mtu, out VirtioNetHeader each));
            Assert.False(each.NeedsChecksum);
            payload += length - header.HeaderLength;
        }
        Assert.Equal(20_000, payload);
    }

    [Fact]
    public void AJoinedDatagramCannotBeCut() => Assert.False(CapturedFrame.Describe(Make(4, IpProtocol.Udp, 5000, isTagged: false), Mtu, out _));

    [Fact]
    public void NoFrameMakesItThrow()
    {
        var random = new Random(11);
        for (int i = 0; i < 20_000; i++)
        {
            byte[] frame = Make(random.Next(2) == 0 ? 4 : 6, random.Next(2) == 0 ? IpProtocol.Tcp : IpProtocol.Udp, random.Next(3000), random.Next(2) == 0);
            for (int change = random.Next(4); change > 0; change--)
                frame[random.Next(Math.Min(80, frame.Length))] = (byte)random.Next(256);
            Span<byte> cut = frame.AsSpan(0, random.Next(3) == 0 ? random.Next(frame.Length) : frame.Length);
            if (CapturedFrame.Describe(cut, Mtu, out VirtioNetHeader header))
                Assert.True(header.IsConsistentWith(cut.Length));
        }
    }

    /// <summary>A frame whose checksum holds the sum of the pseudo header, as a veth has it.</summary>
    private static byte[] Make(int version, byte protocol, int payload, bool isTagged)
    {
        int transportHeader = protocol == IpProtocol.Tcp ? 32 : 8, ipHeader = version == 4 ? 20 : 40;
        int ip = EthernetView.HeaderLength + (isTagged ? 4 : 0), transport = ip + ipHeader, length = transportHeader + payload;
        byte[] frame = new byte[transport + length];
        new Random(payload).NextBytes(frame.AsSpan(transport + transportHeader));
        EthernetView.Write(frame, MacAddress.Parse("02:00:00:00:00:01"), MacAddress.Parse("02:00:00:00:00:02"), isTagged ? EtherType.Vlan : version == 4 ? EtherType.Ipv4 : EtherType.Ipv6);
        BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(ip - 2), version == 4 ? EtherType.Ipv4 : EtherType.Ipv6);
        Span<byte> packet = frame.AsSpan(ip);
        ulong sum;
        if (version == 4)
        {
            packet[0] = 0x45;
            BinaryPrimitives.WriteUInt16BigEndian(packet[2..], (ushort)(ipHeader + length));
            packet[8] = 64;
            packet[9] = protocol;
            Ipv4Address source = Ipv4Address.Parse("192.0.2.1"), destination = Ipv4Address.Parse("192.0.2.2");
            source.Write(packet[12..]);
            destination.Write(packet[16..]);
            BinaryPrimitives.WriteUInt16BigEndian(packet[10..], Checksum.Compute(packet[..20]));
            sum = Checksum.PseudoHeader(source, destination, protocol, length);
        }
        else
        {
            packet[0] = 0x60;
            BinaryPrimitives.WriteUInt16BigEndian(packet[4..], (ushort)length);
            packet[6] = protocol;
            packet[8] = 0xFD;
            packet[24] = 0xFD;
            packet[39] = 2;
            sum = Checksum.PseudoHeaderV6(packet[8..24], packet[24..40], protocol, length);
        }
        Span<byte> segment = frame.AsSpan(transport);
        if (protocol == IpProtocol.Tcp)
            segment[12] = (byte)(transportHeader / 4 << 4);
        else
            BinaryPrimitives.WriteUInt16BigEndian(segment[4..], (ushort)length);
        BinaryPrimitives.WriteUInt16BigEndian(segment[(protocol == IpProtocol.Tcp ? 16 : 6)..], Checksum.Fold(sum));
        return frame;
    }
}
