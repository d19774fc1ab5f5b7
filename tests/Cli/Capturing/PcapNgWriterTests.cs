using VNetMesh.Cli.Capturing;

namespace VNetMesh.Cli.Tests.Capturing;

public sealed class PcapNgWriterTests
{
    private readonly MemoryStream _stream = new();
    private readonly PcapNgWriter _writer;

    public PcapNgWriterTests() => _writer = new PcapNgWriter(_stream);

    [Fact]
    public void ASection()
    {
        _writer.WriteSection("vnet");
        AssertOctets("""
            0A0D0D0A 28000000   section header, 40 octets
            4D3C2B1A 0100 0000  byte order, version 1.0
            FFFFFFFFFFFFFFFF    length not known
            0400 0400 766E6574  shb_userappl "vnet"
            0000 0000           end of options
            28000000
            """);
    }

    [Fact]
    public void AnInterface()
    {
        Assert.Equal(0u, _writer.WriteInterface("web1", "ab", "udp", 65553));
        AssertOctets("""
            01000000 38000000   interface description, 56 octets
            0100 0000           Ethernet
            11000100            snap length
            0200 0400 77656231  if_name "web1"
            0300 0200 61620000  if_description "ab", padded
            0900 0100 09000000  if_tsresol: nanoseconds
            0B00 0400 00756470  if_filter, libpcap's text
            0000 0000
            38000000
            """);
        Assert.Equal(1u, _writer.WriteInterface("nat", "", "", 100));
    }

    [Fact]
    public void APacket()
    {
        _writer.WritePacket(3, 0x17AABBCC_11223344, [1, 2, 3, 4, 5], 1514, isOut: true, "ok", missed: 7);
        AssertOctets("""
            06000000 48000000   enhanced packet, 72 octets
            03000000            interface
            CCBBAA17 44332211   time, upper half first
            05000000 EA050000   captured, original length
            0102030405 000000   data, padded
            0100 0200 6F6B0000  opt_comment "ok"
            0200 0400 02000000  epb_flags: outbound
            0400 0800 0700000000000000  epb_dropcount
            0000 0000
            48000000
            """);
    }

    [Fact]
    public void APacketFromAPortWithNothingMissed()
    {
        _writer.WritePacket(0, 1, [], 0, isOut: false, "", missed: 0);
        AssertOctets("""
            06000000 2C000000
            00000000
            00000000 01000000
            00000000 00000000
            0200 0400 01000000  epb_flags: inbound
            0000 0000
            2C000000
            """);
    }

    [Fact]
    public void Statistics()
    {
        _writer.WriteStatistics(0, 1, 2, received: 10, accepted: 9, dropped: 4, "");
        AssertOctets("""
            05000000 64000000   interface statistics, 100 octets
            00000000
            00000000 02000000   time
            0200 0800 0000000001000000  isb_starttime, upper half first
            0300 0800 0000000002000000  isb_endtime
            0400 0800 0A00000000000000  isb_ifrecv
            0500 0800 0400000000000000  isb_ifdrop
            0600 0800 0900000000000000  isb_filteraccept
            0800 0800 0500000000000000  isb_usrdeliv
            0000 0000
            64000000
            """);
    }

    [Fact]
    public void BlocksOfAnySizeAreWholeAndPadded()
    {
        for (int length = 0; length < 5000; length += 7)
        {
            _stream.SetLength(0);
            _writer.WritePacket(0, 0, new byte[length], (uint)length, isOut: false, new string('x', length % 13), missed: 0);
            Assert.Equal(0, _stream.Length % 4);
            Assert.Equal(_stream.Length, BitConverter.ToUInt32(_stream.ToArray(), 4));
            Assert.Equal(_stream.Length, BitConverter.ToUInt32(_stream.ToArray(), (int)_stream.Length - 4));
        }
    }

    /// <param name="expected">Octets in hexadecimal; what follows two spaces or more is a remark.</param>
    private void AssertOctets(string expected)
    {
        string octets = string.Concat(expected.Split('\n').Select(line => line.Split("  ")[0].Replace(" ", "", StringComparison.Ordinal).Trim()));
        Assert.Equal(octets, Convert.ToHexString(_stream.ToArray()));
    }
}
