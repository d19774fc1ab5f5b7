using System.Runtime.InteropServices;
using CsCheck;
using Google.Protobuf;
using VNetMesh.Cli.Capturing;
using VNetMesh.Cli.Connections;
using VNetMesh.V1;

namespace VNetMesh.Cli.Tests.Capturing;

public sealed class FrameTests
{
    private const string Port = "networks/vmnet8/ports/";

    [Theory]
    [InlineData("0256 4e00 000b 0256 4e00 000a 0806 0001 0800 0604 0001 0256 4e00 000a c0a8 6c80 0000 0000 0000 c0a8 6c02", "ARP who has 192.168.108.2? tell 192.168.108.128")]
    [InlineData("0256 4e00 000b 0256 4e00 000a 0806 0001 0800 0604 0002 0256 4e00 000a c0a8 6c80 0256 4e00 000b c0a8 6c02", "ARP 192.168.108.128 is at 02:56:4e:00:00:0a")]
    [InlineData("0256 4e00 000b 0256 4e00 000a 0800 4500 0030 0000 4000 4006 0000 c0a8 6c80 c000 0201 9c40 0050 0000 0001 0000 0000 5002 faf0 0000 0000 6162 6364 6566 6768",
        "192.168.108.128:40000 > 192.0.2.1:80 TCP [S] seq 1 win 64240, 8 octets")]
    [InlineData("0256 4e00 000b 0256 4e00 000a 8100 0005 0800 4500 001c 0000 4000 4011 0000 c0a8 6c80 c000 0201 9c40 0035 0008 0000", "vlan 5 192.168.108.128:40000 > 192.0.2.1:53 UDP 0 octets")]
    [InlineData("0256 4e00 000b 0256 4e00 000a 0800 4500 0031 0000 4000 4011 0000 c0a8 6c80 c0a8 6c02 9c40 0035 001d 0000 1234 0100 0001 0000 0000 0000 0361 1b62 0000 0100 01",
        "192.168.108.128:40000 > 192.168.108.2:53 DNS A a?b?")]
    [InlineData("0256 4e00 000b 0256 4e00 000a 0800 4500 001c 0000 4000 4001 0000 c0a8 6c80 c000 0201 0800 f7ff 1f09 0001", "192.168.108.128 > 192.0.2.1 ICMP echo request id 7945 seq 1")]
    [InlineData("0256 4e00 000b 0256 4e00 000a 88b5 0000", "02:56:4e:00:00:0a > 02:56:4e:00:00:0b type 0x88b5, 16 octets")]
    [InlineData("0256 4e00", "too short: 4 octets")]
    public void AFrameInOneLine(string hex, string expected)
    {
        byte[] frame = Convert.FromHexString(hex.Replace(" ", "", StringComparison.Ordinal));
        string text = FrameDecoder.Decode(frame, frame.Length);
        Assert.StartsWith(expected, text, StringComparison.Ordinal);
        Assert.DoesNotContain(text, char.IsControl);
    }

    /// <summary>Guests send what they like; a terminal must survive it.</summary>
    [Fact]
    public void WhateverAGuestSendsIsOneHarmlessLine()
    {
        Gen<byte[]> hostile = Gen.Select(Gen.Byte.Array[0, 200], Gen.Int[0, 4], Gen.Byte, Gen.Int[0, 3]).Select(parts =>
        {
            (byte[] frame, int kind, byte protocol, int port) = parts;
            ushort type = kind switch { 0 => 0x0800, 1 => 0x86DD, 2 => 0x0806, 3 => 0x8100, _ => 0x88CC };
            if (frame.Length > 38)
            {
                (frame[12], frame[13]) = ((byte)(type >> 8), (byte)type);
                frame[14] = kind == 1 ? (byte)0x60 : (byte)0x45;
                frame[23] = protocol % 2 == 0 ? (byte)17 : protocol;
                (frame[34], frame[35], frame[36], frame[37]) = (0, (byte)(port == 0 ? 53 : 67), 0, (byte)(port == 1 ? 53 : 68));
            }
            return frame;
        });
        hostile.Sample(frame => Assert.DoesNotContain(FrameDecoder.Decode(frame, frame.Length), letter => char.IsControl(letter) || letter > '\u00ff'), iter: 30_000);
    }

    [Fact]
    public void TheVerdictInWords()
    {
        Assert.Equal("to nat", Verdict(new FrameVerdict { Sent = 1, SentTo = Port + "nat" }));
        Assert.Equal("to all (3 ports)", Verdict(new FrameVerdict { Sent = 3, SentTo = Port + "nat", Flooded = true }));
        Assert.Equal("to nobody: there is no other port", Verdict(new FrameVerdict { Flooded = true }));
        Assert.Equal("dropped: isolated", Verdict(new FrameVerdict { Dropped = 1, DropCause = "isolated", DropPort = Port + "web1" }));
        Assert.Equal("dropped at web2: queue_full", Verdict(new FrameVerdict { Dropped = 1, DropCause = "queue_full", DropPort = Port + "web2" }));
        Assert.Equal("to all (1 port); dropped at web2: queue_full and at 1 more", Verdict(new FrameVerdict { Sent = 1, Flooded = true, Dropped = 2, DropCause = "queue_full", DropPort = Port + "web2" }));
        Assert.Equal("to nat; source not learned: mac_table_full", Verdict(new FrameVerdict { Sent = 1, SentTo = Port + "nat", NotLearned = true }));
        Assert.Equal("sent", Verdict(new FrameVerdict { Sent = 1, SentTo = Port + "web1" }, CaptureDirection.Out));
        Assert.Equal("dropped: device_down", Verdict(new FrameVerdict { Dropped = 1, DropCause = "device_down", DropPort = Port + "web1" }, CaptureDirection.Out));
    }

    [Fact]
    public void TheCommentTellsOfLargeSegmentsAndChecksums()
    {
        CapturedFrame frame = Frame(new FrameVerdict { Sent = 1, SentTo = Port + "nat" });
        frame.Offload = new FrameOffload { GsoType = 1, GsoSize = 1448, NeedsCsum = true };
        Assert.Equal("from web1: to nat; large segment, to be cut into pieces of 1448 octets of payload; the checksum was partial and is completed here", FrameText.Comment(frame));
        frame.Data = ByteString.CopyFrom(1);
        Assert.EndsWith("; the checksum is partial", FrameText.Comment(frame), StringComparison.Ordinal);
        frame = Frame(new FrameVerdict { Sent = 1, SentTo = Port + "web1" }, CaptureDirection.Out);
        frame.Segment = 2;
        Assert.Equal("to web1: sent; piece 2 of a large segment", FrameText.Comment(frame));
    }

    [Fact]
    public void AFilterIsCompiledByLibpcapOrRefusedInItsWords()
    {
        if (!NativeLibrary.TryLoad("libpcap.so.0.8", out _))
            Assert.Skip("needs libpcap0.8 (./test.sh installs it)");
        CaptureFilter filter = FilterCompiler.Compile("arp", "192.168.108.0/24");
        // ldh [12]; jeq #0x0806; ret #65536; ret #0.
        Assert.Equal([(0x28u, 12u), (0x15, 0x0806), (0x06, 65536), (0x06, 0)], filter.Instructions.Select(one => (one.Code, one.K)));
        Assert.Equal("arp", filter.Text);
        CliException refusal = Assert.Throws<CliException>(() => FilterCompiler.Compile("tcp prot 80", ""));
        Assert.Equal(ExitCode.Usage, refusal.ExitCode);
        Assert.Contains("syntax error", refusal.Message, StringComparison.Ordinal);
        // Broadcast needs the netmask: the host part of the address is compared with all ones.
        Assert.Contains(FilterCompiler.Compile("ip broadcast", "192.168.108.0/24").Instructions, one => one.K == 0xFF);
        Assert.Throws<CliException>(() => FilterCompiler.Compile("ip broadcast", ""));
    }

    private static string Verdict(FrameVerdict verdict, CaptureDirection direction = CaptureDirection.In) => FrameText.Verdict(Frame(verdict, direction));

    private static CapturedFrame Frame(FrameVerdict verdict, CaptureDirection direction = CaptureDirection.In) =>
        new() { Port = Port + "web1", Direction = direction, Verdict = verdict };
}
