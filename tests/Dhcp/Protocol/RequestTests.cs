using VNetMesh.Dhcp.Leases;
using VNetMesh.Dhcp.Protocol;
using VNetMesh.Dhcp.Tests.Support;
using VNetMesh.Packets;
using static VNetMesh.Dhcp.Tests.Support.CoreScript;

namespace VNetMesh.Dhcp.Tests.Protocol;

/// <summary>RFC 2131, 4.3.2 to 4.3.5 and table 4, rule by rule.</summary>
public sealed class RequestTests
{
    private static readonly Ipv4Address Elsewhere = Ipv4Address.Parse("198.51.100.7");

    private readonly CoreScript _script = new();

    private LeaseTable Table => _script.Core.Table;

    private Lease LeaseOf(int client) => Table.LeaseOf(new ClientKey("hw:" + client))!;

    [Fact]
    public void SELECTING_binds_what_was_offered()
    {
        Decision offer = _script.Discover(1);
        Decision ack = _script.Select(1, offer.Address);
        Expect(DecisionKind.Ack, ack, offer.Address);
        Assert.Equal((LeaseState.Bound, _script.Now, _script.Now + TimeSpan.FromMinutes(30)), (LeaseOf(1).State, LeaseOf(1).Start, LeaseOf(1).Expire));
        Assert.Equal(LeaseOf(1), Assert.Single(Assert.Single(_script.Disk).Upserts));
        Assert.Equal([(LeaseChangeKind.Created, offer.Address, LeaseState.Offered), (LeaseChangeKind.Updated, offer.Address, LeaseState.Bound)], _script.Changes);
        Assert.Equal((1, 0), (Table.Bound, Table.Offered));
    }

    [Fact]
    public void SELECTING_of_another_server_is_silent_and_frees_the_offer()
    {
        Decision offer = _script.Discover(1);
        ExpectDrop(DropCause.OtherServer, _script.Select(1, offer.Address, Address(77)));
        Assert.Equal(0, Table.Count);
    }

    [Fact]
    public void SELECTING_of_what_is_not_the_clients_is_refused()
    {
        Ipv4Address taken = _script.Bind(1);
        Expect(DecisionKind.Nak, _script.Select(2, taken));
        Expect(DecisionKind.Nak, _script.Select(2, Address(50)));
        Expect(DecisionKind.Nak, _script.Select(2, Server));
        Expect(DecisionKind.Nak, _script.Select(2, Elsewhere));
        // The offer ended, or a restart forgot it: still free, so it stands.
        Expect(DecisionKind.Ack, _script.Select(2, Address(140)), Address(140));
        ExpectDrop(DropCause.Malformed, _script.Send(Message(3, Dhcpv4MessageType.Request, server: Server)));
        ExpectDrop(DropCause.Malformed, _script.Send(Message(3, Dhcpv4MessageType.Request)));
    }

    [Fact]
    public void A_client_has_one_lease()
    {
        Ipv4Address first = _script.Bind(1);
        Expect(DecisionKind.Ack, _script.Select(1, Address(150)), Address(150));
        Assert.Equal((1, Address(150)), (Table.Bound, LeaseOf(1).Address));
        Assert.Equal([("networks/test", first)], _script.Disk[^1].Deletes);
    }

    [Fact]
    public void INIT_REBOOT_keeps_the_address_of_a_known_client()
    {
        Ipv4Address address = _script.Bind(1);
        Expect(DecisionKind.Ack, _script.Reboot(1, address), address);
        _script.After(TimeSpan.FromHours(1));
        Assert.Equal(LeaseState.Expired, LeaseOf(1).State);
        Expect(DecisionKind.Ack, _script.Reboot(1, address), address);
        Expect(DecisionKind.Nak, _script.Reboot(1, Address(200)));
    }

    [Fact]
    public void INIT_REBOOT_is_silent_for_the_unknown_and_NAK_for_another_network()
    {
        Ipv4Address taken = _script.Bind(1);
        ExpectDrop(DropCause.UnknownClient, _script.Reboot(2, Address(200)));
        ExpectDrop(DropCause.UnknownClient, _script.Reboot(2, taken));
        Expect(DecisionKind.Nak, _script.Reboot(2, Elsewhere));
        // It was reassigned meanwhile: no record of the client is left, so silence.
        _script.Release(1, taken);
        Expect(DecisionKind.Offer, _script.Discover(3, taken), taken);
        _script.Select(3, taken);
        ExpectDrop(DropCause.UnknownClient, _script.Reboot(1, taken));
    }

    [Fact]
    public void RENEWING_prolongs_and_keeps_the_start()
    {
        Ipv4Address address = _script.Bind(1);
        DateTimeOffset start = _script.Now;
        _script.After(TimeSpan.FromMinutes(15));
        Expect(DecisionKind.Ack, _script.Renew(1, address), address);
        Assert.Equal((start, _script.Now + TimeSpan.FromMinutes(30)), (LeaseOf(1).Start, LeaseOf(1).Expire));
        Assert.Empty(_script.After(TimeSpan.FromMinutes(20)).Expired);
        Assert.Equal(address, Assert.Single(_script.After(TimeSpan.FromMinutes(11)).Expired).Address);
        // Late, but nobody else got it.
        Expect(DecisionKind.Ack, _script.Renew(1, address), address);
    }

    [Fact]
    public void RENEWING_without_a_lease_is_NAK_and_REBINDING_silent()
    {
        Ipv4Address taken = _script.Bind(1);
        Expect(DecisionKind.Nak, _script.Renew(2, Address(200)));
        ExpectDrop(DropCause.UnknownClient, _script.Rebind(2, Address(200)));
        Expect(DecisionKind.Nak, _script.Renew(2, Elsewhere));
        Expect(DecisionKind.Nak, _script.Rebind(2, Elsewhere));
        Ipv4Address other = _script.Bind(2);
        Expect(DecisionKind.Nak, _script.Renew(2, taken));
        Expect(DecisionKind.Nak, _script.Rebind(2, taken));
        Expect(DecisionKind.Ack, _script.Rebind(2, other), other);
    }

    [Fact]
    public void A_new_reservation_moves_its_client()
    {
        Ipv4Address address = _script.Bind(1);
        _script.Core.Reservations.Add(new Reservation { Network = "networks/test", Id = "a", Address = Address(20), Mac = Mac(1) });
        Expect(DecisionKind.Nak, _script.Renew(1, address));
        Expect(DecisionKind.Nak, _script.Reboot(1, address));
        Assert.Equal(Address(20), _script.Bind(1));
        Assert.True(LeaseOf(1).Reserved);
        Expect(DecisionKind.Nak, _script.Select(2, Address(20)));
        // Taken away: outside of the range nobody can keep it.
        _script.Core.Reservations.Remove(_script.Core.Reservations.Find("a")!);
        Expect(DecisionKind.Nak, _script.Renew(1, Address(20)));
    }

    [Fact]
    public void The_lease_time_asked_for_is_given_within_bounds()
    {
        TimeSpan Granted(uint? seconds) => _script.Send(Message(1, Dhcpv4MessageType.Discover) with { LeaseSeconds = seconds }).Reply!.LeaseTime!.Value;
        Assert.Equal(TimeSpan.FromMinutes(30), Granted(null));
        Assert.Equal(TimeSpan.FromMinutes(5), Granted(300));
        Assert.Equal(TimeSpan.FromHours(2), Granted(uint.MaxValue));
        Assert.Equal(TimeSpan.FromMinutes(1), Granted(1));
    }

    [Fact]
    public void DECLINE_sets_aside_what_the_client_holds_and_nothing_else()
    {
        Ipv4Address address = _script.Bind(1);
        ExpectDrop(DropCause.NotLeaseHolder, _script.Decline(2, address));
        ExpectDrop(DropCause.NotLeaseHolder, _script.Decline(2, Address(200)));
        ExpectDrop(DropCause.Malformed, _script.Send(Message(1, Dhcpv4MessageType.Decline)));
        Expect(DecisionKind.Decline, _script.Decline(1, address), address);
        Assert.Equal((0, 1), (Table.Bound, Table.Declined));
        Assert.Equal(LeaseState.Declined, Assert.Single(_script.Disk[^1].Upserts).State);
        Assert.NotEqual(address, _script.Discover(1, address).Address);
        Expect(DecisionKind.Nak, _script.Select(2, address));
        _script.After(TimeSpan.FromMinutes(11));
        Expect(DecisionKind.Offer, _script.Discover(3, address), address);
    }

    [Fact]
    public void DECLINE_cannot_use_up_the_range()
    {
        var script = new CoreScript(settings: Settings with { RangeStart = Address(128), RangeEnd = Address(143) });
        for (int i = 0; i < 60; i++)
        {
            script.Now += TimeSpan.FromSeconds(1);
            script.Decline(1, script.Bind(1));
        }
        Assert.Equal(4, script.Core.Table.Declined);
        Expect(DecisionKind.Offer, script.Discover(2));
    }

    [Fact]
    public void RELEASE_ends_only_the_clients_own_lease()
    {
        Ipv4Address address = _script.Bind(1);
        ExpectDrop(DropCause.NotLeaseHolder, _script.Release(2, address));
        ExpectDrop(DropCause.NotLeaseHolder, _script.Release(1, Address(200)));
        ExpectDrop(DropCause.OtherServer, _script.Send(Message(1, Dhcpv4MessageType.Release, server: Address(9), ciaddr: address)));
        Expect(DecisionKind.Release, _script.Release(1, address), address);
        Assert.Equal((LeaseState.Released, _script.Now), (LeaseOf(1).State, LeaseOf(1).Expire));
        ExpectDrop(DropCause.NotLeaseHolder, _script.Release(1, address));
    }

    [Fact]
    public void INFORM_gets_parameters_and_no_lease()
    {
        Decision inform = _script.Send(Message(1, Dhcpv4MessageType.Inform, ciaddr: Address(10)));
        Expect(DecisionKind.Inform, inform);
        Assert.Equal((Dhcpv4MessageType.Ack, null, default(Ipv4Address)), (inform.Reply!.Type, inform.Reply.LeaseTime, inform.Reply.Address));
        Assert.Equal(0, Table.Count);
        ExpectDrop(DropCause.Malformed, _script.Send(Message(1, Dhcpv4MessageType.Inform, ciaddr: Elsewhere)));
    }

    [Fact]
    public void No_ACK_without_the_disk()
    {
        Decision offer = _script.Discover(1);
        DhcpMessage request = Message(1, Dhcpv4MessageType.Request, offer.Address, Server);
        Decision ack = _script.Core.Handle(request, false, _script.Now);
        Assert.Equal((DecisionKind.Ack, 0), (ack.Kind, Table.Bound));
        // While it is being written nobody else gets it, and a second REQUEST does no harm.
        Expect(DecisionKind.Nak, _script.Select(2, offer.Address));
        Decision second = _script.Core.Handle(request, false, _script.Now);
        ExpectDrop(DropCause.StoreFailed, _script.Core.CommitFailed(ack, DropCause.StoreFailed, _script.Now));
        Assert.Equal(HoldKind.Committing, Table.Find(offer.Address)!.Hold!.Kind);
        ExpectDrop(DropCause.StoreFailed, _script.Core.CommitFailed(second, DropCause.StoreFailed, _script.Now));
        Assert.Equal((0, 1, HoldKind.Offered), (Table.Bound, Table.Offered, Table.Find(offer.Address)!.Hold!.Kind));
        Expect(DecisionKind.Ack, _script.Select(1, offer.Address));
        Assert.Equal((1, 0), (Table.Bound, Table.Holds));
        // A renewal that fails leaves the lease as it was.
        DateTimeOffset expire = LeaseOf(1).Expire;
        _script.Now += TimeSpan.FromMinutes(1);
        Decision renew = _script.Core.Handle(Message(1, Dhcpv4MessageType.Request, ciaddr: offer.Address), true, _script.Now);
        _script.Core.CommitFailed(renew, DropCause.StoreFailed, _script.Now);
        Assert.Equal((expire, 0), (LeaseOf(1).Expire, Table.Holds));
    }

    [Fact]
    public void A_changed_network_makes_void_what_is_outside()
    {
        Ipv4Address low = _script.Bind(1, Address(130)), high = _script.Bind(2, Address(220));
        DhcpMessage request = Message(1, Dhcpv4MessageType.Request, ciaddr: low);
        Decision renewing = _script.Core.Handle(request, true, _script.Now);
        LeaseWrite outside = _script.Core.Configure(Settings with { RangeStart = Address(200) })!;
        Assert.Equal([("networks/test", low)], outside.Deletes);
        Assert.Equal((1, 1), (Table.Bound, Table.Count));
        // What was being written for it comes too late, and is taken back.
        Decision late = _script.Core.Committed(renewing, _script.Now);
        Expect(DecisionKind.Nak, late);
        Assert.Equal([("networks/test", low)], late.Write!.Deletes);
        Expect(DecisionKind.Ack, _script.Renew(2, high), high);
        Assert.Null(_script.Core.Configure(Settings with { RangeStart = Address(200), Domain = "other.test" }));
    }
}
