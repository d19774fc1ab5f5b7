using CsCheck;

namespace VNetMesh.Packets.Tests;

/// <summary>IPv6, ICMPv6 and neighbour discovery against octets written down by hand from RFC 8200, 4443, 4861 and 8106.</summary>
public sealed class NeighborDiscoveryTests
{
    private static readonly Ipv6Address Router = Ipv6Address.Parse("fe80::1"), Guest = Ipv6Address.Parse("fe80::56:4eff:fe00:1");

    [Fact]
    public void Addresses()
    {
        Assert.Equal("fe80::56:4eff:fe00:1", Ipv6Address.LinkLocalOf(MacAddress.Parse("02:56:4e:00:00:01")).ToString());
        Assert.Equal("33:33:00:00:00:02", Ipv6Address.AllRouters.GroupMac.ToString());
        Assert.Equal("ff02::1", Ipv6Address.AllNodes.ToString());
        Assert.True(Guest.IsLinkLocal && Ipv6Address.AllNodes.IsMulticast && Ipv6Address.Parse("::").IsUnspecified);
        foreach (string bad in new[] { "", "1.2.3.4", "fe80::1%eth0", "[::1]", "::1/64", "g::", "1::2::3" })
            Assert.False(Ipv6Address.TryParse(bad, out _), bad);
    }

    [Fact]
    public void Prefixes()
    {
        Ipv6Prefix prefix = Ipv6Prefix.Parse("fd00:1:2:3::/64");
        Assert.Equal(("fd00:1:2:3::/64", "fd00:1:2:3::1"), (prefix.ToString(), prefix.Host(1).ToString()));
        Assert.True(prefix.Contains(Ipv6Address.Parse("fd00:1:2:3:ffff::")));
        Assert.False(prefix.Contains(Ipv6Address.Parse("fd00:1:2:4::")));
        Assert.True(Ipv6Prefix.Parse("::/0").Contains(Router));
        foreach (string bad in new[] { "fd00::1/64", "fd00::/129", "fd00::", "fd00::/-1", "fd00::/6 4" })
            Assert.False(Ipv6Prefix.TryParse(bad, out _), bad);
    }

    [Fact]
    public void Every_address_comes_back_as_it_went() => Gen.ULong.Select(Gen.ULong).Sample((high, low) =>
    {
        var address = new Ipv6Address(((UInt128)high << 64) | low);
        Span<byte> octets = stackalloc byte[Ipv6Address.Length];
        address.Write(octets);
        return Ipv6Address.Read(octets) == address && Ipv6Address.Parse(address.ToString()) == address;
    });

    [Fact]
    public void Ipv6_header()
    {
        byte[] bytes = new byte[Ipv6Header.Length];
        new Ipv6Header(Router, Ipv6Address.AllNodes, IpProtocol.Icmpv6, 0) { HopLimit = 255 }.Write(bytes);
        Assert.Equal(
            "60000000" + // version 6, no traffic class, no flow label
            "0000" + // payload
            "3A" + // ICMPv6
            "FF" + // hop limit
            "FE800000000000000000000000000001" +
            "FF020000000000000000000000000001",
            Convert.ToHexString(bytes));
        Assert.True(Ipv6View.TryParse(bytes, out Ipv6View view));
        Assert.Equal((Router, Ipv6Address.AllNodes, IpProtocol.Icmpv6, (byte)255, 0), (view.Source, view.Destination, view.NextHeader, view.HopLimit, view.Payload.Length));
        bytes[5] = 1; // longer than it is
        Assert.False(Ipv6View.TryParse(bytes, out _));
        bytes[5] = 0;
        bytes[0] = 0x45;
        Assert.False(Ipv6View.TryParse(bytes, out _));
        Assert.False(Ipv6View.TryParse(bytes.AsSpan(0, 39), out _));
    }

    [Fact]
    public void Router_advertisement()
    {
        var advertisement = new RouterAdvertisement
        {
            RouterLifetimeSeconds = 1800,
            Mtu = 1500,
            SourceLinkLayerAddress = MacAddress.Parse("02:56:4e:00:00:01"),
            Prefixes = [new AdvertisedPrefix(Ipv6Prefix.Parse("fd00:1:2:3::/64"), 86400, 14400)],
            DnsServers = [Ipv6Address.Parse("2001:db8::53")],
            DnsLifetimeSeconds = 1800,
        };
        byte[] bytes = new byte[advertisement.Length];
        advertisement.Write(bytes, Router, Ipv6Address.AllNodes);
        Assert.True(Icmpv6View.TryParse(bytes, out Icmpv6View icmp));
        Assert.True(icmp.HasValidChecksum(Router, Ipv6Address.AllNodes));
        bytes[2] = bytes[3] = 0;
        Assert.Equal(
            "86" + "00" + "0000" + // router advertisement, checksum
            "40" + // hop limit for guests: 64
            "00" + // neither managed nor other configuration
            "0708" + // default router for 1800 s
            "00000000" + "00000000" + // reachable time, retransmission timer: not told
            "0101" + "02564E000001" + // source link-layer address
            "0501" + "0000" + "000005DC" + // MTU 1500
            "0304" + "40" + "C0" + // prefix information, 64 bits, on link and autonomous
            "00015180" + "00003840" + "00000000" + // valid, preferred
            "FD000001000200030000000000000000" +
            "1903" + "0000" + "00000708" + // one DNS server for 1800 s
            "20010DB8000000000000000000000053",
            Convert.ToHexString(bytes));
        icmp = default;
        Assert.True(Icmpv6View.TryParse(bytes, out icmp));
        Assert.False(icmp.HasValidChecksum(Router, Ipv6Address.AllNodes));
    }

    [Theory]
    [InlineData("8500000000000000", "fe80::2", 255, true)]
    [InlineData("8500000000000000", "::", 255, true)]
    [InlineData("8500000000000000010102564E000001", "fe80::2", 255, true)]
    [InlineData("8500000000000000010102564E000001", "::", 255, false)] // whose link-layer address?
    [InlineData("8500000000000000", "fe80::2", 254, false)] // it came by a router
    [InlineData("8501000000000000", "fe80::2", 255, false)]
    [InlineData("85000000000000", "fe80::2", 255, false)]
    [InlineData("85000000000000000100", "fe80::2", 255, false)] // an option of length 0
    [InlineData("8500000000000000010202564E000001", "fe80::2", 255, false)] // an option longer than the message
    [InlineData("850000000000000001", "fe80::2", 255, false)]
    [InlineData("8600000000000000", "fe80::2", 255, false)]
    public void Router_solicitation(string message, string source, byte hopLimit, bool isValid)
    {
        byte[] body = Convert.FromHexString(message), packet = new byte[Ipv6Header.Length + body.Length];
        new Ipv6Header(Ipv6Address.Parse(source), Ipv6Address.AllRouters, IpProtocol.Icmpv6, body.Length) { HopLimit = hopLimit }.Write(packet);
        body.CopyTo(packet, Ipv6Header.Length);
        Assert.True(Ipv6View.TryParse(packet, out Ipv6View ip));
        Assert.True(Icmpv6View.TryParse(ip.Payload, out Icmpv6View icmp));
        Assert.Equal(isValid, RouterSolicitation.IsValid(ip, icmp));
    }

    [Fact]
    public void Any_octets_at_all_are_walked_without_harm() => Gen.Byte.Array[0, 200].Sample(bytes =>
    {
        var options = new NdpOptions(bytes);
        int octets = 0;
        while (options.TryNext(out NdpOptionView option))
            octets += option.Bytes.Length;
        Assert.True(options.IsMalformed || octets == bytes.Length);
        if (Ipv6View.TryParse(bytes, out Ipv6View ip) && Icmpv6View.TryParse(ip.Payload, out Icmpv6View icmp))
            _ = RouterSolicitation.IsValid(ip, icmp);
    });
}
