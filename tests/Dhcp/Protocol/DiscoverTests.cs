using VNetMesh.Dhcp.Leases;
using VNetMesh.Dhcp.Protocol;
using VNetMesh.Dhcp.Tests.Support;
using VNetMesh.Packets;
using static VNetMesh.Dhcp.Tests.Support.CoreScript;

namespace VNetMesh.Dhcp.Tests.Protocol;

/// <summary>RFC 2131, 4.3.1: which address a client is offered, and what holds it.</summary>
public sealed class DiscoverTests
{
    private readonly CoreScript _script = new();

    [Fact]
    public void The_order_is_reservation_lease_last_lease_requested_free()
    {
        Ipv4Address first = _script.Bind(1);
        Expect(DecisionKind.Offer, _script.Discover(1, Address(200)), first);
        _script.Release(1, first);
        Expect(DecisionKind.Offer, _script.Discover(1, Address(200)), first);
        Expect(DecisionKind.Offer, _script.Discover(2, Address(201)), Address(201));
        // Outside of the range, or somebody's: another one.
        Assert.NotEqual(Address(50), _script.Discover(3, Address(50)).Address);
        Assert.NotEqual(Address(201), _script.Discover(4, Address(201)).Address);
        _script.Core.Reservations.Add(new Reservation { Network = "networks/test", Id = "a", Address = Address(20), Mac = Mac(1), HostName = "one" });
        Decision reserved = _script.Discover(1);
        Expect(DecisionKind.Offer, reserved, Address(20));
        Assert.Equal("one", reserved.Reply!.HostName);
    }

    [Fact]
    public void The_same_client_gets_the_same_address_from_a_server_that_knows_nothing()
    {
        for (int client = 0; client < 20; client++)
            Assert.Equal(new CoreScript().Discover(client).Address, new CoreScript().Discover(client).Address);
        Assert.True(Enumerable.Range(0, 20).Select(client => new CoreScript().Discover(client).Address).Distinct().Count() > 12);
    }

    [Fact]
    public void An_offer_is_held_repeated_and_ends()
    {
        Decision offer = _script.Discover(1, Address(130));
        Assert.Equal(Address(130), _script.Discover(1, Address(131)).Address);
        Assert.NotEqual(Address(130), _script.Discover(2, Address(130)).Address);
        _script.After(TimeSpan.FromSeconds(16));
        Assert.Equal((0, 0), (_script.Core.Table.Offered, _script.Core.Table.Count));
        Expect(DecisionKind.Offer, _script.Discover(2, offer.Address), offer.Address);
        Assert.Empty(_script.Disk);
    }

    [Fact]
    public void No_two_clients_are_offered_one_address_and_a_full_pool_says_so()
    {
        NetworkSettings small = Settings with { RangeStart = Address(128), RangeEnd = Address(131) };
        var script = new CoreScript(settings: small);
        Ipv4Address[] bound = [.. Enumerable.Range(1, 4).Select(client => script.Bind(client))];
        Assert.Equal(4, bound.Distinct().Count());
        ExpectDrop(DropCause.PoolExhausted, script.Discover(5));
        Assert.Equal(4, script.Core.Table.Bound);
        // The one that ended longest ago goes first.
        script.Release(3, bound[2]);
        script.Now += TimeSpan.FromSeconds(10);
        script.Release(1, bound[0]);
        Expect(DecisionKind.Offer, script.Discover(5), bound[2]);
        Expect(DecisionKind.Offer, script.Discover(6), bound[0]);
    }

    [Fact]
    public void Offers_that_nobody_requests_do_not_starve_a_client()
    {
        var script = new CoreScript(settings: Settings with { RangeStart = Address(128), RangeEnd = Address(131) });
        for (int client = 1; client <= 4; client++)
            Expect(DecisionKind.Offer, script.Discover(client));
        ExpectDrop(DropCause.PoolExhausted, script.Discover(5));
        script.Now += TimeSpan.FromSeconds(2);
        Decision taken = script.Discover(5);
        Expect(DecisionKind.Offer, taken);
        Expect(DecisionKind.Ack, script.Select(5, taken.Address));
        // Whose offer was taken asks too late, and hears so.
        int late = Enumerable.Range(1, 4).First(client => script.Core.Table.HoldOf(new ClientKey("hw:" + client)) is null);
        Expect(DecisionKind.Nak, script.Select(late, taken.Address));
    }

    [Fact]
    public void A_flood_of_new_clients_is_bounded_and_known_clients_are_served_all_the_while()
    {
        var options = new DhcpOptions { ProbeTime = TimeSpan.Zero, MaxOffers = 50 };
        var script = new CoreScript(options, Settings with { Subnet = Ipv4Subnet.Parse("192.0.0.0/16"), RangeStart = Ipv4Address.Parse("192.0.3.0"), RangeEnd = Ipv4Address.Parse("192.0.200.255") });
        Ipv4Address known = script.Bind(1);
        var causes = new HashSet<DropCause>();
        for (int i = 0; i < 20_000; i++)
        {
            script.Now += TimeSpan.FromMicroseconds(50);
            if (script.Discover(1000 + i) is { Cause: { } cause })
                causes.Add(cause);
            Assert.True(script.Core.Table.Count <= 52);
        }
        Assert.Equal([DropCause.NewClientsLimited, DropCause.PoolExhausted], causes.Order());
        Expect(DecisionKind.Ack, script.Renew(1, known), known);
        Expect(DecisionKind.Offer, script.Discover(1), known);
        // One second later there is room again.
        script.After(TimeSpan.FromSeconds(2));
        Expect(DecisionKind.Offer, script.Discover(5));
    }

    [Fact]
    public void One_client_that_sends_too_much_is_limited_alone()
    {
        Assert.Equal(20, Enumerable.Range(0, 30).Count(_ => _script.Discover(1).Kind == DecisionKind.Offer));
        ExpectDrop(DropCause.RateLimited, _script.Discover(1));
        Expect(DecisionKind.Offer, _script.Discover(2));
        _script.Now += TimeSpan.FromSeconds(1);
        Assert.Equal(5, Enumerable.Range(0, 30).Count(_ => _script.Discover(1).Kind == DecisionKind.Offer));
    }

    [Fact]
    public void A_new_address_is_probed_and_offered_when_nobody_answers()
    {
        var script = new CoreScript(new DhcpOptions());
        Decision probe = script.Discover(1);
        Expect(DecisionKind.Probe, probe);
        Expect(DecisionKind.Wait, script.Discover(1), probe.Address);
        Assert.Empty(script.After(TimeSpan.FromMilliseconds(200)).Decisions);
        Decision offer = Assert.Single(script.After(TimeSpan.FromMilliseconds(60)).Decisions);
        Expect(DecisionKind.Offer, offer, probe.Address);
        Assert.Equal(Dhcpv4MessageType.Offer, offer.Reply!.Type);
        Expect(DecisionKind.Ack, script.Select(1, offer.Address));
        // Known, and known for a while after the end.
        Expect(DecisionKind.Offer, script.Discover(1), offer.Address);
        script.Release(1, offer.Address);
        script.After(TimeSpan.FromMinutes(9));
        Expect(DecisionKind.Offer, script.Discover(1), offer.Address);
        script.After(TimeSpan.FromMinutes(2));
        Expect(DecisionKind.Probe, script.Discover(1), offer.Address);
    }

    [Fact]
    public void An_answered_probe_sets_the_address_aside_and_the_client_gets_another()
    {
        var script = new CoreScript(new DhcpOptions());
        Ipv4Address first = script.Discover(1).Address;
        Assert.Null(script.Core.AddressInUse(Address(99), Mac(9), script.Now));
        // The client itself may answer.
        Assert.Null(script.Core.AddressInUse(first, Mac(1), script.Now));
        (LeaseWrite write, Decision next) = script.Core.AddressInUse(first, Mac(9), script.Now)!.Value;
        Lease declined = Assert.Single(write.Upserts);
        Assert.Equal((first, LeaseState.Declined, Mac(9)), (declined.Address, declined.State, declined.Mac));
        Expect(DecisionKind.Probe, next);
        Assert.NotEqual(first, next.Address);
        Expect(DecisionKind.Probe, script.Core.AddressInUse(next.Address, Mac(9), script.Now)!.Value.Next);
        Ipv4Address third = script.Core.Table.HoldOf(new ClientKey("hw:1"))!.Address;
        ExpectDrop(DropCause.AddressConflict, script.Core.AddressInUse(third, Mac(9), script.Now)!.Value.Next);
        Assert.Equal(3, script.Core.Table.Declined);
        script.After(TimeSpan.FromMinutes(10));
        Assert.Equal((0, 0), (script.Core.Table.Declined, script.Core.Table.Count));
    }

    [Fact]
    public void Nothing_is_answered_before_the_network_is_known_or_for_a_relay_elsewhere()
    {
        ExpectDrop(DropCause.NotForUs, new DhcpCore("networks/test", new DhcpOptions()).Handle(Message(1, Dhcpv4MessageType.Discover), false, _script.Now));
        ExpectDrop(DropCause.ForeignRelay, _script.Send(Message(1, Dhcpv4MessageType.Discover) with { RelayAddress = Ipv4Address.Parse("198.51.100.1") }));
        Expect(DecisionKind.Offer, _script.Send(Message(1, Dhcpv4MessageType.Discover) with { RelayAddress = Address(5) }));
    }
}
