using CsCheck;

namespace VNetMesh.Packets.Tests;

public sealed class DhcpTests
{
    private static readonly Dhcpv4Header Header = new()
    {
        Operation = Dhcpv4.BootReply,
        TransactionId = 0x0102_0304,
        Seconds = 5,
        Flags = Dhcpv4.FlagBroadcast,
        ClientAddress = Ipv4Address.Parse("192.0.2.3"),
        YourAddress = Ipv4Address.Parse("192.0.2.4"),
        RelayAddress = Ipv4Address.Parse("192.0.2.5"),
        HardwareAddress = MacAddress.Parse("02:00:5e:10:00:01"),
    };

    [Fact]
    public void Golden_bytes()
    {
        byte[] buffer = new byte[548];
        var writer = new Dhcpv4Writer(buffer, Header);
        Assert.True(writer.TryAdd(Dhcpv4Option.MessageType, (byte)Dhcpv4MessageType.Offer));
        Assert.True(writer.TryAdd(Dhcpv4Option.InterfaceMtu, (ushort)1500));
        Assert.True(writer.TryAdd(Dhcpv4Option.ServerIdentifier, Ipv4Address.Parse("192.0.2.254")));
        int length = writer.Finish();
        Assert.Equal(300, length);
        Assert.Equal(
            "02010600" // op reply, Ethernet, 6 octets, no hops
            + "01020304" // xid
            + "00058000" // secs, flags
            + "c0000203" + "c0000204" + "00000000" + "c0000205" // ciaddr, yiaddr, siaddr, giaddr
            + "02005e100001" + "00000000000000000000", // chaddr
            Convert.ToHexStringLower(buffer.AsSpan(0, 44)));
        Assert.All(buffer[44..236], octet => Assert.Equal(0, octet)); // sname, file
        Assert.Equal("63825363" + "350102" + "1a0205dc" + "3604c00002fe" + "ff" + "00", Convert.ToHexStringLower(buffer.AsSpan(236, 19)));
    }

    [Fact]
    public void What_does_not_fit_goes_to_file_and_sname()
    {
        byte[] buffer = new byte[300];
        var writer = new Dhcpv4Writer(buffer, Header);
        Assert.True(writer.TryAdd(Dhcpv4Option.MessageType, 2));
        Assert.True(writer.TryAdd(200, new byte[50])); // 55 of 56
        Assert.True(writer.TryAdd(201, new byte[125])); // all of file but its end
        Assert.True(writer.TryAdd(202, [1, 2, 3])); // sname
        Assert.False(writer.TryAdd(203, new byte[60]));
        Assert.True(writer.TryAdd(204, new byte[56]));
        Assert.False(writer.TryAdd(205, [9]));
        Assert.Equal(300, writer.Finish());
        Assert.True(Dhcpv4View.TryParse(buffer, out Dhcpv4View view));
        Assert.True(view.TryGetOption(201, out ReadOnlySpan<byte> file) && file.Length == 125);
        Assert.True(view.TryGetOption(202, out ReadOnlySpan<byte> name) && name.SequenceEqual(new byte[] { 1, 2, 3 }));
        Assert.True(view.TryGetOption(204, out _));
        Assert.False(view.TryGetOption(203, out _));
        Assert.True(view.TryGetOption(Dhcpv4Option.Overload, out ReadOnlySpan<byte> overload) && overload[0] == 3);
    }

    [Fact]
    public void Pieces_of_an_option_are_one_value_across_the_fields()
    {
        byte[] message = new byte[260];
        var writer = new Dhcpv4Writer(message, Header);
        writer.Finish();
        // RFC 3396, 5: options, then file, then sname.
        new byte[] { 52, 1, 3, 61, 2, 1, 2, 61, 1, 3, 255 }.CopyTo(message, 240);
        new byte[] { 61, 2, 4, 5, 255 }.CopyTo(message, 108);
        new byte[] { 61, 1, 6 }.CopyTo(message, 44);
        Assert.True(Dhcpv4View.TryParse(message, out Dhcpv4View view));
        Assert.True(view.TryGetOption(61, out ReadOnlySpan<byte> value));
        Assert.Equal([1, 2, 3, 4, 5, 6], value.ToArray());
    }

    [Theory]
    [InlineData("35", false)] // a code without a length
    [InlineData("3502", false)] // a length without its octets
    [InlineData("350101", true)] // no end
    [InlineData("350101ff35ff", true)] // what is behind the end does not count
    [InlineData("34020101ff", false)] // option 52 of two octets
    [InlineData("340104ff", false)] // option 52 of no known value
    [InlineData("", true)]
    public void Options_that_run_out_are_refused(string options, bool accepted)
    {
        byte[] message = [.. Blank(), .. Convert.FromHexString(options)];
        Assert.Equal(accepted, Dhcpv4View.TryParse(message, out _));
    }

    [Fact]
    public void Other_headers_are_refused()
    {
        Assert.True(Dhcpv4View.TryParse(Blank(), out _));
        Assert.False(Dhcpv4View.TryParse(Blank().AsSpan(0, 239), out _));
        foreach ((int offset, byte value) in new[] { (0, (byte)3), (2, (byte)17), (236, (byte)0) })
        {
            byte[] message = Blank();
            message[offset] = value;
            Assert.False(Dhcpv4View.TryParse(message, out _));
        }
    }

    [Fact]
    public void Any_bytes_are_parsed_without_a_throw() =>
        Gen.Select(Gen.Byte.Array[0, 200], Gen.Byte.Array[192], Gen.Byte[0, 3], Gen.Byte[0, 20]).Sample((options, names, overload, hardwareLength) =>
        {
            byte[] message = [.. Blank(), 52, 1, overload, .. options];
            message[2] = hardwareLength;
            names.CopyTo(message, 44);
            if (!Dhcpv4View.TryParse(message, out Dhcpv4View view))
                return;
            Assert.True(hardwareLength <= 16 && view.HardwareAddress.Length == hardwareLength);
            for (int code = 0; code < 256; code++)
            {
                if (view.TryGetOption((byte)code, out ReadOnlySpan<byte> value))
                    Assert.True(value.Length <= message.Length && code is not (Dhcpv4Option.Pad or Dhcpv4Option.End));
            }
        }, iter: 3000);

    [Fact]
    public void What_was_written_is_read() =>
        Gen.Select(Gen.Select(Gen.Byte[1, 254].Where(code => code != 52), Gen.Byte.Array[0, 600]).Array[0, 12], Gen.Int[244, 2000]).Sample((options, room) =>
        {
            byte[] buffer = new byte[room];
            var writer = new Dhcpv4Writer(buffer, Header);
            var added = new Dictionary<byte, byte[]>();
            foreach ((byte code, byte[] value) in options)
            {
                if (!added.ContainsKey(code) && writer.TryAdd(code, value))
                    added[code] = value;
            }
            int length = writer.Finish();
            Assert.InRange(length, 241, room);
            Assert.True(Dhcpv4View.TryParse(buffer.AsSpan(0, length), out Dhcpv4View view));
            Assert.Equal((Header.TransactionId, Header.Seconds, Header.Flags, Header.ClientAddress, Header.YourAddress, Header.RelayAddress),
                (view.TransactionId, view.Seconds, view.Flags, view.ClientAddress, view.YourAddress, view.RelayAddress));
            foreach ((byte code, byte[] value) in added)
            {
                Assert.True(view.TryGetOption(code, out ReadOnlySpan<byte> read));
                Assert.True(read.SequenceEqual(value));
            }
        }, iter: 2000);

    /// <summary>A header, a cookie, and no options.</summary>
    private static byte[] Blank()
    {
        byte[] message = new byte[Dhcpv4.HeaderLength + 4];
        _ = new Dhcpv4Writer(message, Header);
        return message[..Dhcpv4.HeaderLength];
    }
}
