using System.Buffers.Binary;
using CsCheck;
using PacketDotNet;
using VNetMesh.Packets.Offload;

namespace VNetMesh.Packets.Tests.Offload;

public sealed class SegmenterTests
{
    [Fact]
    public void Cuts_what_the_plain_implementation_cuts() => LargeFrame.Any.Sample(model =>
    {
        (OffloadFault fault, List<byte[]> frames) = Cut(model.Large(), model.Header);
        Assert.Equal(OffloadFault.None, fault);
        List<byte[]> expected = model.Segments();
        Assert.Equal(expected.Count, frames.Count);
        for (int i = 0; i < frames.Count; i++)
            Assert.Equal(Convert.ToHexString(expected[i]), Convert.ToHexString(frames[i]));
    }, iter: 3000);

    [Fact]
    public void Its_checksums_are_right_to_PacketDotNet() =>
        LargeFrame.Any.Where(model => model.Vlans.Length == 0 && model.IsIpv4).Sample(model =>
        {
            foreach (byte[] frame in Cut(model.Large(), model.Header).Frames)
            {
                Packet packet = Packet.ParsePacket(LinkLayers.Ethernet, frame);
                Assert.True(packet.Extract<IPv4Packet>().ValidIPChecksum);
                if (model.IsTcp)
                    Assert.True(packet.Extract<TcpPacket>().ValidTcpChecksum);
                else
                    Assert.True(packet.Extract<UdpPacket>().ValidUdpChecksum);
            }
        }, iter: 300);

    [Fact]
    public void A_length_field_of_zero_leaves_the_length_to_the_frame() =>
        LargeFrame.Any.Sample(model =>
        {
            byte[] frame = model.Large();
            BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(14 + (model.Vlans.Length * 4) + (model.IsIpv4 ? 2 : 4)), 0);
            List<byte[]> expected = model.Segments(), frames = Cut(frame, model.Header).Frames;
            Assert.Equal(expected.Select(Convert.ToHexString), frames.Select(Convert.ToHexString));
        }, iter: 100);

    [Fact]
    public void Takes_the_largest_packet_there_is()
    {
        LargeFrame model = LargeFrame.Simple with { Payload = new byte[65535 - 40], SegmentSize = 1460, Vlans = [7] };
        new Random(3).NextBytes(model.Payload);
        List<byte[]> frames = Cut(model.Large(), model.Header).Frames;
        Assert.Equal(45, frames.Count);
        Assert.Equal(model.Segments().Select(Convert.ToHexString), frames.Select(Convert.ToHexString));
    }

    [Fact]
    public void Nothing_to_cut_gives_the_frame_with_its_checksum_complete()
    {
        LargeFrame model = LargeFrame.Simple with { Payload = new byte[500], SegmentSize = 1000 };
        VirtioNetHeader header = model.Header;
        header.GsoType = VirtioNetHeader.GsoNone;
        Assert.Equal(Convert.ToHexString(model.Segments().Single()), Convert.ToHexString(Cut(model.Large(), header).Frames.Single()));
        byte[] untouched = model.Large();
        Assert.Equal(untouched, Cut(untouched, default).Frames.Single());
    }

    public static TheoryData<string, OffloadFault> Lies => new()
    {
        { "gso_size_zero", OffloadFault.SegmentSizeOutOfRange },
        { "gso_size_one", OffloadFault.SegmentSizeOutOfRange },
        { "kind_unknown", OffloadFault.KindUnknown },
        { "kind_ufo", OffloadFault.KindUnknown },
        { "no_checksum", OffloadFault.KindUnknown },
        { "start_beyond", OffloadFault.ChecksumPlaceInvalid },
        { "start_in_ip", OffloadFault.ChecksumPlaceInvalid },
        { "offset_elsewhere", OffloadFault.ChecksumPlaceInvalid },
        { "other_family", OffloadFault.ProtocolMismatch },
        { "other_protocol", OffloadFault.ProtocolMismatch },
        { "version", OffloadFault.ProtocolMismatch },
        { "ihl_short", OffloadFault.HeaderLengthInvalid },
        { "ihl_beyond", OffloadFault.HeaderLengthInvalid },
        { "total_length", OffloadFault.PacketLengthMismatch },
        { "fragment", OffloadFault.Fragment },
        { "data_offset_short", OffloadFault.HeaderLengthInvalid },
        { "data_offset_beyond", OffloadFault.HeaderLengthInvalid },
        { "cut_in_ethernet", OffloadFault.FrameTooShort },
        { "cut_in_ip", OffloadFault.FrameTooShort },
        { "too_long", OffloadFault.FrameTooLong },
    };

    [Theory]
    [MemberData(nameof(Lies))]
    public void Refuses_what_lies(string lie, OffloadFault expected)
    {
        LargeFrame model = LargeFrame.Simple with { Payload = new byte[lie.EndsWith("beyond", StringComparison.Ordinal) ? 12 : 3000] };
        byte[] frame = model.Large();
        VirtioNetHeader header = model.Header;
        switch (lie)
        {
            case "gso_size_zero": header.GsoSize = 0; break;
            case "gso_size_one": header.GsoSize = 1; break;
            case "kind_unknown": header.GsoType = 2; break;
            case "kind_ufo": header.GsoType = VirtioNetHeader.GsoUdp; break;
            case "no_checksum": header.Flags = 0; break;
            case "start_beyond": header.ChecksumStart = ushort.MaxValue; break;
            case "start_in_ip": header.ChecksumStart = 14; break;
            case "offset_elsewhere": header.ChecksumOffset = 6; break;
            case "other_family": header.GsoType = VirtioNetHeader.GsoTcpv6; break;
            case "other_protocol": header.GsoType = VirtioNetHeader.GsoUdpL4; break;
            case "version": frame[14] = 0x65; break;
            case "ihl_short": frame[14] = 0x44; break;
            case "ihl_beyond": frame[14] = 0x4F; break;
            case "total_length": frame[17] ^= 1; break;
            case "fragment": frame[20] = 0x20; break;
            case "data_offset_short": frame[46] = 0x40; break;
            case "data_offset_beyond": frame[46] = 0xF0; break;
            case "cut_in_ethernet": frame = frame[..13]; break;
            case "cut_in_ip": frame = frame[..30]; break;
            case "too_long": frame = new byte[70000]; break;
            default: Assert.Fail(lie); break;
        }
        if (lie == "ihl_beyond")
            frame = frame[..(14 + 40)];
        Assert.Equal((expected, 0), (Cut(frame, header).Fault, Cut(frame, header).Frames.Count));
        Assert.StartsWith("offload_", expected.ToCause(), StringComparison.Ordinal);
    }

    [Fact]
    public void Refuses_extension_headers_that_lie()
    {
        LargeFrame model = LargeFrame.Simple with { IsIpv4 = false, Extensions = [(60, new byte[6])], Payload = new byte[300] };
        byte[] frame = model.Large();
        frame[14 + 40 + 1] = 0xFF;
        Assert.Equal(OffloadFault.HeaderLengthInvalid, Cut(frame, model.Header).Fault);
        frame = model.Large();
        frame[14 + 6] = 44;
        Assert.Equal(OffloadFault.Fragment, Cut(frame, model.Header).Fault);
    }

    [Fact]
    public void Every_fault_has_a_name_of_its_own()
    {
        OffloadFault[] faults = Enum.GetValues<OffloadFault>();
        Assert.Equal(faults.Length, faults.Select(fault => fault.ToCause()).Distinct().Count());
        Assert.DoesNotContain(faults, fault => fault.ToCause() == "offload_other");
    }

    /// <summary>Any frame with any header: never a throw, never more than the frame gives, always an end.</summary>
    [Fact]
    public void Random_mutations_never_throw() =>
        Gen.Select(LargeFrame.Any, Gen.Select(Gen.Int[0, 160], Gen.Byte).Array[0, 6], Gen.Int[0, 12 * 8 * 2], Gen.Int[0, 7000]).Sample((model, mutations, headerBit, length) =>
        {
            byte[] frame = model.Large();
            foreach ((int place, byte value) in mutations)
                frame[place % frame.Length] = value;
            byte[] headerBytes = new byte[VirtioNetHeader.Length];
            model.Header.Write(headerBytes);
            if (headerBit < 96)
                headerBytes[headerBit / 8] ^= (byte)(1 << (headerBit % 8));
            (OffloadFault fault, List<byte[]> frames) = Cut(length < frame.Length && length % 3 == 0 ? frame[..length] : frame, VirtioNetHeader.Read(headerBytes));
            Assert.Equal(fault == OffloadFault.None, frames.Count > 0);
        }, iter: 20000);

    [Fact]
    public void Random_bytes_never_throw() =>
        Gen.Select(Gen.Byte.Array[VirtioNetHeader.Length], Gen.Byte.Array[0, 120]).Sample((header, frame) => _ = Cut(frame, VirtioNetHeader.Read(header)), iter: 20000);

    [Fact]
    public void Allocates_nothing()
    {
        LargeFrame model = LargeFrame.Simple with { Payload = new byte[60000], SegmentSize = 1448 };
        byte[] frame = model.Large(), room = new byte[2000];
        VirtioNetHeader header = model.Header;
        int frames = CutInto(frame, header, room);
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 20; i++)
            frames = CutInto(frame, header, room);
        Assert.Equal(before, GC.GetAllocatedBytesForCurrentThread());
        Assert.Equal(42, frames);
    }

    private static int CutInto(byte[] frame, in VirtioNetHeader header, byte[] room)
    {
        Segmenter.Begin(frame, header, out SegmentCursor cursor);
        int count = 0;
        while (cursor.NextLength > 0)
        {
            cursor.WriteNext(room);
            count++;
        }
        return count;
    }

    private static (OffloadFault Fault, List<byte[]> Frames) Cut(byte[] frame, in VirtioNetHeader header)
    {
        var frames = new List<byte[]>();
        OffloadFault fault = Segmenter.Begin(frame, header, out SegmentCursor cursor);
        int longest = cursor.LongestLength, count = cursor.Count;
        while (cursor.NextLength > 0)
        {
            byte[] room = new byte[cursor.NextLength];
            Assert.Equal(room.Length, cursor.WriteNext(room));
            Assert.True(room.Length <= longest);
            frames.Add(room);
        }
        Assert.Equal(count, frames.Count);
        return (fault, frames);
    }
}
