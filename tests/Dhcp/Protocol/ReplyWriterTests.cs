using CsCheck;
using VNetMesh.Dhcp.Protocol;
using VNetMesh.Packets;
using static VNetMesh.Dhcp.Tests.Support.CoreScript;

namespace VNetMesh.Dhcp.Tests.Protocol;

/// <summary>RFC 2131, 4.1 and table 3: where replies go, and what is in them.</summary>
public sealed class ReplyWriterTests
{
    private static readonly MacAddress ServerMac = MacAddress.Parse("02:56:4e:00:00:01");

    private static readonly byte[] Usual = [1, 3, 6, 15, 28];

    [Theory]
    // type, broadcast flag, ciaddr, giaddr → MAC (c: client, r: relay, *: all), address, port
    [InlineData(Dhcpv4MessageType.Offer, false, 0, 0, "c", "192.0.2.130", 68)]
    [InlineData(Dhcpv4MessageType.Offer, true, 0, 0, "*", "255.255.255.255", 68)]
    [InlineData(Dhcpv4MessageType.Ack, false, 0, 0, "c", "192.0.2.130", 68)]
    [InlineData(Dhcpv4MessageType.Ack, true, 9, 0, "c", "192.0.2.9", 68)]
    [InlineData(Dhcpv4MessageType.Ack, false, 9, 5, "r", "192.0.2.5", 67)]
    [InlineData(Dhcpv4MessageType.Nak, false, 0, 0, "*", "255.255.255.255", 68)]
    [InlineData(Dhcpv4MessageType.Nak, false, 9, 0, "*", "255.255.255.255", 68)]
    [InlineData(Dhcpv4MessageType.Nak, false, 9, 5, "r", "192.0.2.5", 67)]
    public void Replies_go_where_4_1_says(Dhcpv4MessageType type, bool broadcast, int ciaddr, int giaddr, string mac, string address, ushort port)
    {
        DhcpMessage request = Message(1, Dhcpv4MessageType.Request) with
        {
            Flags = broadcast ? Dhcpv4.FlagBroadcast : (ushort)0,
            ClientAddress = ciaddr == 0 ? default : Address(ciaddr),
            RelayAddress = giaddr == 0 ? default : Address(giaddr),
            From = giaddr == 0 ? Mac(1) : Mac(99),
        };
        var reply = new DhcpReply { Type = type, Request = request, Address = type == Dhcpv4MessageType.Nak ? default : Address(130), LeaseTime = type == Dhcpv4MessageType.Nak ? null : TimeSpan.FromHours(1), Text = "no" };
        byte[] frame = Frame(reply, Settings);
        Assert.True(EthernetView.TryParse(frame, out EthernetView ethernet));
        Assert.True(Ipv4View.TryParse(ethernet.Payload, out Ipv4View ip));
        Assert.True(UdpView.TryParse(ip.Payload, out UdpView udp));
        Assert.Equal(mac switch { "c" => Mac(1), "r" => Mac(99), _ => MacAddress.Broadcast }, ethernet.Destination);
        Assert.Equal((ServerMac, Server, Ipv4Address.Parse(address), (ushort)67, port), (ethernet.Source, ip.Source, ip.Destination, udp.SourcePort, udp.DestinationPort));
        Assert.True(ip.HasValidChecksum && udp.HasValidChecksum(ip.Source, ip.Destination) && udp.ChecksumField != 0);
        Assert.True(Dhcpv4View.TryParse(udp.Payload, out Dhcpv4View view));
        // Table 3: ciaddr only in an ACK; a relay is told to broadcast a NAK.
        Assert.Equal(type == Dhcpv4MessageType.Ack ? request.ClientAddress : default, view.ClientAddress);
        Assert.Equal(broadcast || (type == Dhcpv4MessageType.Nak && giaddr != 0), view.Broadcast);
        Assert.Equal((reply.Address, request.RelayAddress), (view.YourAddress, view.RelayAddress));
    }

    [Fact]
    public void An_offer_holds_what_was_asked_for_in_that_order_and_the_mask_first()
    {
        byte[] identifier = [0xff, 1, 2, 3], relay = [1, 2, 9, 9];
        Dictionary<byte, byte[]> options = Options(new DhcpReply
        {
            Type = Dhcpv4MessageType.Offer,
            Request = Message(1, Dhcpv4MessageType.Discover) with { ParameterRequests = [26, 6, 3, 1, 6, 119, 121, 12], ClientIdentifier = identifier, RelayAgentInformation = relay },
            Address = Address(130),
            LeaseTime = TimeSpan.FromSeconds(1800),
            HostName = "web1",
        }, Settings, out List<byte> order);
        Assert.Equal([53, 54, 61, 51, 58, 59, 1, 26, 6, 3, 12, 82], order);
        Assert.Equal("ff010203", Convert.ToHexStringLower(options[61]));
        Assert.Equal("01020909", Convert.ToHexStringLower(options[82]));
        Assert.Equal(("00000708", "00000384", "00000627"), (Convert.ToHexStringLower(options[51]), Convert.ToHexStringLower(options[58]), Convert.ToHexStringLower(options[59])));
        Assert.Equal(("c0000202c6336435", "c0000202", "ffffff00", "05dc"), (Convert.ToHexStringLower(options[6]), Convert.ToHexStringLower(options[3]), Convert.ToHexStringLower(options[1]), Convert.ToHexStringLower(options[26])));
    }

    [Fact]
    public void Without_a_request_list_the_usual_is_sent_and_a_NAK_holds_nothing_else()
    {
        DhcpMessage request = Message(1, Dhcpv4MessageType.Inform, ciaddr: Address(9));
        Options(new DhcpReply { Type = Dhcpv4MessageType.Ack, Request = request }, Settings, out List<byte> order);
        Assert.Equal([53, 54, .. Usual], order);
        Options(new DhcpReply { Type = Dhcpv4MessageType.Nak, Request = request with { ParameterRequests = Usual }, Text = "no" }, Settings, out order);
        Assert.Equal([53, 54, 56], order);
    }

    [Fact]
    public void A_router_outside_of_the_subnet_comes_with_a_route_to_it()
    {
        NetworkSettings far = Settings with { Routers = [Ipv4Address.Parse("198.51.100.1")] };
        Dictionary<byte, byte[]> options = Options(new DhcpReply { Type = Dhcpv4MessageType.Ack, Request = Message(1, Dhcpv4MessageType.Request) with { ParameterRequests = [121, 3] } }, far, out _);
        // RFC 3442: 198.51.100.1/32 on the link, then 0.0.0.0/0 by it.
        Assert.Equal("20c633640100000000" + "00c6336401", Convert.ToHexStringLower(options[121]));
    }

    [Fact]
    public void Any_request_gets_a_reply_that_fits_and_is_sound() =>
        Gen.Select(Gen.Byte.Array[0, 255], Gen.Byte.Array[2, 255], Gen.Byte.Array[0, 700], Gen.Int[0, 3000], Gen.Int[576, 9000]).Sample((requests, identifier, relay, size, mtu) =>
        {
            NetworkSettings settings = Settings with { Mtu = mtu, Domain = new string('a', 253), DnsServers = [.. Enumerable.Range(1, 40).Select(Address)] };
            var reply = new DhcpReply
            {
                Type = Dhcpv4MessageType.Ack,
                Request = Message(1, Dhcpv4MessageType.Request) with { ParameterRequests = requests, ClientIdentifier = identifier, RelayAgentInformation = relay, MaxMessageSize = Math.Max(576, size) },
                Address = Address(130),
                LeaseTime = TimeSpan.FromHours(1),
            };
            Dictionary<byte, byte[]> options = Options(reply, settings, out _);
            Assert.True(options[61].AsSpan().SequenceEqual(identifier) && options.ContainsKey(51) && options.ContainsKey(54));
            Assert.True(Frame(reply, settings).Length - 14 <= Math.Min(Math.Max(576, size), Math.Min(mtu, 1500)));
        }, iter: 1000);

    private static byte[] Frame(DhcpReply reply, NetworkSettings settings)
    {
        byte[] frame = new byte[ReplyWriter.MaxFrameLength(settings)];
        return frame[..ReplyWriter.WriteFrame(frame, reply, settings, ServerMac)];
    }

    /// <summary>Options by code, and the order of those in the options field.</summary>
    private static Dictionary<byte, byte[]> Options(DhcpReply reply, NetworkSettings settings, out List<byte> order)
    {
        ReadOnlySpan<byte> payload = Frame(reply, settings).AsSpan(42);
        Assert.True(Dhcpv4View.TryParse(payload, out Dhcpv4View view));
        order = [];
        var enumerator = new Dhcpv4OptionEnumerator(payload[240..]);
        while (enumerator.MoveNext())
            order.Add(enumerator.Code);
        var options = new Dictionary<byte, byte[]>();
        for (int code = 1; code < 255; code++)
        {
            if (view.TryGetOption((byte)code, out ReadOnlySpan<byte> value))
                options[(byte)code] = value.ToArray();
        }
        return options;
    }
}
