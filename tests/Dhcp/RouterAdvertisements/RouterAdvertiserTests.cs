using VNetMesh.Dhcp.Protocol;
using VNetMesh.Dhcp.RouterAdvertisements;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Tests.RouterAdvertisements;

/// <summary>The times of RFC 4861, 6.2, under a clock of the test's.</summary>
public sealed class RouterAdvertiserTests
{
    private const long Second = RouterAdvertiser.Second;
    private static readonly MacAddress Ours = MacAddress.Parse("02:56:4e:00:00:01"), Guest = MacAddress.Parse("02:00:5e:10:00:01");
    private static readonly Ipv6Prefix Prefix = Ipv6Prefix.Parse("fd00:1::/64"), Other = Ipv6Prefix.Parse("fd00:2::/64");
    private static readonly AdvertisementSettings Closed = new(Prefix, HostIsThere: true, LeadsOut: false, 1500, []);
    private static readonly AdvertisementSettings Open = Closed with { LeadsOut = true, DnsServers = [Ipv6Address.Parse("2001:db8::53")] };
    private static readonly Ipv6Address GuestAddress = Ipv6Address.LinkLocalOf(Guest);

    private readonly RouterAdvertiser _advertiser = new(Ours, () => 0.5);
    private long _now = 1000 * Second;

    [Fact]
    public void Three_come_soon_and_then_one_every_few_minutes()
    {
        Configure(Open);
        long[] times = [.. Enumerable.Range(0, 5).Select(_ => Next().At)];
        Assert.Equal([0, 16, 32, 432, 832], times.Select(time => (time - times[0]) / Second));
    }

    [Fact]
    public void The_host_is_the_router_where_it_leads_out()
    {
        Configure(Open);
        (Advertisement sent, _) = Next();
        Assert.Equal(("fe80::1", "ff02::1", "33:33:00:00:00:01"), (sent.Source.ToString(), sent.To.ToString(), sent.ToMac.ToString()));
        Assert.Equal((1800, 1500u, 1), (sent.Message.RouterLifetimeSeconds, sent.Message.Mtu, sent.Message.DnsServers.Count));
        Assert.Null(sent.Message.SourceLinkLayerAddress); // guests ask the host itself
        Assert.Equal(new AdvertisedPrefix(Prefix, 86400, 14400), Assert.Single(sent.Message.Prefixes));
    }

    [Fact]
    public void Nobody_is_a_router_where_nothing_leads_out()
    {
        Configure(Closed with { DnsServers = [Ipv6Address.Parse("2001:db8::53")] });
        RouterAdvertisement message = Next().Sent.Message;
        Assert.Equal((0, 0), (message.RouterLifetimeSeconds, message.DnsServers.Count));
        Configure(Closed with { HostIsThere = false });
        Advertisement isolated = Next().Sent;
        Assert.Equal((Ipv6Address.LinkLocalOf(Ours), Ours, (ushort)0), (isolated.Source, isolated.Message.SourceLinkLayerAddress, isolated.Message.RouterLifetimeSeconds));
    }

    [Fact]
    public void The_same_router_takes_itself_back_when_the_way_out_is_closed()
    {
        Configure(Open);
        Next();
        _now += 100 * Second;
        Configure(Closed);
        (Advertisement sent, long at) = Next();
        Assert.Equal((_now, "fe80::1", (ushort)0), (at, sent.Source.ToString(), sent.Message.RouterLifetimeSeconds));
    }

    [Fact]
    public void A_prefix_that_goes_is_withdrawn_three_times()
    {
        Configure(Open);
        Next();
        Configure(Open with { Prefix = Other });
        for (int i = 0; i < 3; i++)
            Assert.Equal([new AdvertisedPrefix(Other, 86400, 14400), new AdvertisedPrefix(Prefix, 0, 0)], Next().Sent.Message.Prefixes);
        Assert.Single(Next().Sent.Message.Prefixes);
        Configure(null);
        for (int i = 0; i < 3; i++)
            Assert.Equal((new AdvertisedPrefix(Other, 0, 0), (ushort)0), (Assert.Single(Next().Sent.Message.Prefixes), Next(peek: true).Sent.Message?.RouterLifetimeSeconds ?? 0));
        Assert.Equal(long.MaxValue, _advertiser.NextDue);
    }

    [Fact]
    public void A_guest_that_asks_gets_its_own_answer_within_half_a_second()
    {
        Configure(Open);
        Next();
        Assert.Null(Solicit(GuestAddress));
        Assert.Equal(DropCause.RateLimited, Solicit(GuestAddress)); // it is answered already
        (Advertisement sent, long at) = Next();
        Assert.Equal((Guest, GuestAddress, Second / 4), (sent.ToMac, sent.To, at - _lastAsked));
        Assert.Equal(1800, sent.Message.RouterLifetimeSeconds);
    }

    [Fact]
    public void Guests_without_an_address_share_an_answer_and_none_comes_twice_in_three_seconds()
    {
        Configure(Open);
        (_, long first) = Next();
        Assert.Null(Solicit(default));
        Assert.Null(Solicit(default));
        (Advertisement sent, long at) = Next();
        Assert.Equal((Ipv6Address.AllNodes, 3 * Second), (sent.To, at - first));
        Assert.True(_advertiser.NextDue > at + Second);
    }

    [Fact]
    public void A_crowd_is_answered_at_once_and_takes_no_more_memory_than_its_bound()
    {
        Configure(Open);
        Next();
        _now += 5 * Second;
        for (int i = 0; i < 1000; i++)
            Assert.Null(Solicit(new Ipv6Address(GuestAddress.Value + (UInt128)i)));
        _now += Second;
        List<Advertisement> sent = _advertiser.Tick(_now);
        Assert.Equal(Ipv6Address.AllNodes, Assert.Single(sent).To);
    }

    [Fact]
    public void What_is_no_valid_solicitation_is_named_and_not_answered()
    {
        Configure(Open);
        Next();
        byte[] good = Solicitation(GuestAddress);
        Assert.Equal(DropCause.Malformed, _advertiser.Receive(good.AsSpan(0, 47), Guest, false, _now));
        byte[] far = [.. good];
        far[7] = 64; // hop limit
        Assert.Equal(DropCause.Malformed, _advertiser.Receive(far, Guest, false, _now));
        byte[] broken = [.. good];
        broken[^1] ^= 1;
        Assert.Equal(DropCause.BadChecksum, _advertiser.Receive(broken, Guest, false, _now));
        Assert.Null(_advertiser.Receive(broken, Guest, isPartial: true, _now));
        byte[] other = [.. good];
        other[40] = Icmpv6Type.NeighborSolicitation;
        Assert.Equal(DropCause.NotForUs, _advertiser.Receive(other, Guest, false, _now));
        Configure(null);
        Assert.Equal(DropCause.NotForUs, _advertiser.Receive(good, Guest, false, _now));
    }

    private long _lastAsked;

    private void Configure(AdvertisementSettings? settings) => Assert.True(_advertiser.Configure(settings, _now));

    private DropCause? Solicit(Ipv6Address from)
    {
        _lastAsked = _now;
        return _advertiser.Receive(Solicitation(from), Guest, isPartial: false, _now);
    }

    private (Advertisement Sent, long At) Next(bool peek = false)
    {
        if (peek)
            return default;
        _now = Math.Max(_now, _advertiser.NextDue);
        return (Assert.Single(_advertiser.Tick(_now)), _now);
    }

    private static byte[] Solicitation(Ipv6Address from)
    {
        byte[] packet = new byte[Ipv6Header.Length + RouterSolicitation.MinLength];
        new Ipv6Header(from, Ipv6Address.AllRouters, IpProtocol.Icmpv6, RouterSolicitation.MinLength) { HopLimit = 255 }.Write(packet);
        Icmpv6View.Write(packet.AsSpan(Ipv6Header.Length), Icmpv6Type.RouterSolicitation, 0, from, Ipv6Address.AllRouters);
        return packet;
    }
}
