using CsCheck;
using PacketDotNet;

namespace VNetMesh.Packets.Tests;

/// <summary>The TCP header and its options: golden bytes, another decoder's opinion, hostile bytes, no allocation.</summary>
public sealed class TcpTests
{
    private static readonly Gen<TcpHeaderOptions> AnyOptions =
        from mss in Gen.UShort
        from scale in Gen.Byte[0, 14]
        from which in Gen.Int[0, 15]
        from value in Gen.UInt
        from echo in Gen.UInt
        from blocks in Gen.Select(Gen.UInt, Gen.UInt).Array[0, 4]
        select Options(mss, scale, which, value, echo, blocks);

    [Fact]
    public void ASynAckAsItGoesOnTheWire()
    {
        byte[] expected =
        [
            0x01, 0xBB, // source port 443
            0xC0, 0x00, // destination port 49152
            0xDE, 0xAD, 0xBE, 0xEF, // sequence number
            0x01, 0x02, 0x03, 0x04, // acknowledgement number
            0xB0, // data offset 11 words, reserved 0
            0x12, // SYN, ACK
            0xFF, 0xFF, // window 65535
            0x00, 0x00, // checksum: left to the link
            0x00, 0x00, // urgent pointer
            0x02, 0x04, 0x05, 0xB4, // maximum segment size 1460
            0x01, 0x01, 0x04, 0x02, // NOP, NOP, SACK permitted
            0x01, 0x01, 0x08, 0x0A, // NOP, NOP, timestamps
            0x00, 0x00, 0x10, 0x01, // value
            0x00, 0x00, 0x20, 0x02, // echo
            0x01, 0x03, 0x03, 0x07, // NOP, window scale 7
        ];
        var options = new TcpHeaderOptions
        {
            MaximumSegmentSize = 1460,
            SackPermitted = true,
            HasTimestamps = true,
            TimestampValue = 0x1001,
            TimestampEcho = 0x2002,
            HasWindowScale = true,
            WindowScale = 7,
        };
        byte[] bytes = new byte[60];
        bytes.AsSpan().Fill(0xAA);
        int length = new TcpHeader(443, 49152, new(0xDEADBEEF), new(0x01020304), TcpFlags.Syn | TcpFlags.Ack, 65535).Write(bytes, options);
        Assert.Equal(expected, bytes[..length]);
        Assert.Equal(0xAA, bytes[length]); // nothing behind it was touched
    }

    [Fact]
    public void AnAcknowledgementWithBlocksAsItGoesOnTheWire()
    {
        byte[] expected =
        [
            0x00, 0x50, 0x9C, 0x40, // ports 80 and 40000
            0x00, 0x00, 0x00, 0x01, // sequence number
            0x00, 0x00, 0x00, 0x02, // acknowledgement number
            0xA0, // data offset 10 words
            0x10, // ACK
            0x01, 0x00, // window 256
            0x00, 0x00, 0x00, 0x00, // checksum, urgent pointer
            0x01, 0x01, 0x05, 0x12, // NOP, NOP, SACK with 18 octets
            0xFF, 0xFF, 0xFF, 0xF0, 0x00, 0x00, 0x00, 0x10, // a block across the wrap
            0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x02, 0x00, // another
        ];
        var options = new TcpHeaderOptions { SackCount = 2 };
        options.Sack[0] = new SackBlock(new(0xFFFFFFF0), new(0x10));
        options.Sack[1] = new SackBlock(new(0x100), new(0x200));
        byte[] bytes = new byte[60];
        int length = new TcpHeader(80, 40000, new(1), new(2), TcpFlags.Ack, 256).Write(bytes, options);
        Assert.Equal(expected, bytes[..length]);
    }

    [Fact]
    public void WhatIsWrittenIsRead() => Gen.Select(Gen.UShort, Gen.UInt, Gen.UInt, Gen.Byte, Gen.UShort, AnyOptions, Gen.Byte.Array[0, 50]).Sample(
        (port, sequence, acknowledgment, flags, window, options, payload) =>
        {
            byte[] bytes = Write(port, sequence, acknowledgment, flags, window, options, payload);
            Assert.True(TcpView.TryParse(bytes, out TcpView view));
            Assert.Equal((port, (ushort)~port), (view.SourcePort, view.DestinationPort));
            Assert.Equal((sequence, acknowledgment), (view.Sequence.Value, view.Acknowledgment.Value));
            Assert.Equal(((TcpFlags)flags, window), (view.Flags, view.Window));
            Assert.Equal(payload, view.Payload.ToArray());
            AssertSame(options, TcpHeaderOptions.Parse(view.Options));
        });

    [Fact]
    public void AnotherDecoderReadsTheSame() => Gen.Select(Gen.UShort, Gen.UInt, Gen.UInt, Gen.Byte, Gen.UShort, AnyOptions, Gen.Byte.Array[0, 50]).Sample(
        (port, sequence, acknowledgment, flags, window, options, payload) =>
        {
            var packet = new TcpPacket(new PacketDotNet.Utils.ByteArraySegment(Write(port, sequence, acknowledgment, flags, window, options, payload)));
            Assert.Equal((port, (ushort)~port), (packet.SourcePort, packet.DestinationPort));
            Assert.Equal((sequence, acknowledgment, window), (packet.SequenceNumber, packet.AcknowledgmentNumber, packet.WindowSize));
            Assert.Equal(flags, (byte)packet.Flags);
            Assert.Equal(20 + options.Length, packet.DataOffset * 4);
            Assert.Equal(payload, packet.PayloadData ?? []);
        }, iter: 500);

    [Fact]
    public void AnyBytesAreReadWithoutThrowing() => Gen.Byte.Array[0, 100].Sample(bytes =>
    {
        if (!TcpView.TryParse(bytes, out TcpView view))
        {
            Assert.True(bytes.Length < 20 || (bytes[12] >> 4) < 5 || (bytes[12] >> 4) * 4 > bytes.Length);
            return;
        }
        Assert.Equal(bytes.Length, view.HeaderLength + view.Payload.Length);
        _ = (view.SourcePort, view.DestinationPort, view.Sequence, view.Acknowledgment, view.Flags, view.Window);
        TcpHeaderOptions options = TcpHeaderOptions.Parse(view.Options);
        Assert.InRange(options.SackCount, 0, 4);
        Assert.InRange(options.WindowScale, 0, TcpHeaderOptions.MaxWindowScale);
    }, iter: 20_000);

    [Theory]
    [InlineData(new byte[] { 2, 4, 5, 0xB4 }, 1460)]
    [InlineData(new byte[] { 1, 1, 1, 2, 4, 5, 0xB4 }, 1460)]
    [InlineData(new byte[] { 0, 2, 4, 5, 0xB4 }, 0)] // behind the end
    [InlineData(new byte[] { 2, 3, 5, 2, 4, 5, 0xB4 }, 1460)] // the wrong length for its kind: skipped by its length
    [InlineData(new byte[] { 253, 0, 2, 4, 5, 0xB4 }, 0)] // length 0 would never end (RFC 9293, MUST-7)
    [InlineData(new byte[] { 253, 1, 2, 4, 5, 0xB4 }, 0)]
    [InlineData(new byte[] { 253, 200, 2, 4, 5, 0xB4 }, 0)] // longer than the header
    [InlineData(new byte[] { 253, 4, 9, 9, 2, 4, 5, 0xB4 }, 1460)] // unknown: skipped (MUST-6)
    [InlineData(new byte[] { 2 }, 0)]
    public void OptionsThatLieEndTheReading(byte[] bytes, int maximumSegmentSize) =>
        Assert.Equal(maximumSegmentSize, TcpHeaderOptions.Parse(bytes).MaximumSegmentSize);

    [Fact]
    public void AShiftOfMoreThanFourteenIsFourteen() => // RFC 7323, 2.3
        Assert.Equal(14, TcpHeaderOptions.Parse([3, 3, 200]).WindowScale);

    [Fact]
    public void ReadingAndWritingAllocateNothing()
    {
        byte[] bytes = new byte[100];
        TcpHeaderOptions options = Options(1460, 7, 15, 1, 2, []);
        long RoundTrips(int count)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < count; i++)
            {
                new TcpHeader(1, 2, new(3), new(4), TcpFlags.Ack, 5).Write(bytes, options);
                Assert.True(TcpView.TryParse(bytes, out TcpView view));
                options = TcpHeaderOptions.Parse(view.Options);
            }
            return GC.GetAllocatedBytesForCurrentThread() - before;
        }
        RoundTrips(100);
        Assert.Equal(0, RoundTrips(10_000));
        Assert.Equal(1460, options.MaximumSegmentSize);
    }

    private static byte[] Write(ushort port, uint sequence, uint acknowledgment, byte flags, ushort window, TcpHeaderOptions options, byte[] payload)
    {
        byte[] bytes = new byte[TcpView.MinHeaderLength + options.Length + payload.Length];
        int length = new TcpHeader(port, (ushort)~port, new(sequence), new(acknowledgment), (TcpFlags)flags, window).Write(bytes, options);
        payload.CopyTo(bytes.AsSpan(length));
        return bytes;
    }

    // What one header has room for: the options of a SYN, or blocks with or without timestamps.
    private static TcpHeaderOptions Options(ushort mss, byte scale, int which, uint value, uint echo, (uint, uint)[] blocks)
    {
        var options = new TcpHeaderOptions();
        bool timestamps = (which & 1) != 0;
        if (timestamps)
            (options.HasTimestamps, options.TimestampValue, options.TimestampEcho) = (true, value, echo);
        if (blocks.Length > 0)
        {
            foreach ((uint start, uint end) in blocks.Take(timestamps ? 3 : 4))
                options.Sack[options.SackCount++] = new SackBlock(new(start), new(end));
            return options;
        }
        if ((which & 2) != 0)
            options.MaximumSegmentSize = mss;
        if ((which & 4) != 0)
            (options.HasWindowScale, options.WindowScale) = (true, scale);
        options.SackPermitted = (which & 8) != 0;
        return options;
    }

    private static void AssertSame(TcpHeaderOptions expected, TcpHeaderOptions actual)
    {
        Assert.Equal((expected.MaximumSegmentSize, expected.HasWindowScale, expected.WindowScale, expected.SackPermitted),
            (actual.MaximumSegmentSize, actual.HasWindowScale, actual.WindowScale, actual.SackPermitted));
        Assert.Equal((expected.HasTimestamps, expected.TimestampValue, expected.TimestampEcho), (actual.HasTimestamps, actual.TimestampValue, actual.TimestampEcho));
        Assert.Equal(expected.SackCount, actual.SackCount);
        for (int i = 0; i < expected.SackCount; i++)
            Assert.Equal(expected.Sack[i], actual.Sack[i]);
    }
}
