using VNetMesh.Dhcp.Leases;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Protocol;

/// <summary>
/// The DHCPv4 server of one network, without I/O and without a clock: a message and the time go in, a decision with its
/// reason comes out, and what the decision asks for (a probe, a write, an answer) is the caller's to do.
///
/// Goals: what RFC 2131 says, in every state of a client; the same client gets the same address, today and next month; no
/// address is promised before the promise is on disk; no guest takes more than its share of memory, disk or addresses.
/// Limits: one subnet for each network, no BOOTP, no failover; a guest that goes on to bind leases under made-up MACs
/// is slowed down, and not told from many guests.
///
/// An address is in one of these states (<see cref="AddressEntry"/>: a hold in memory, a lease on disk):
/// <code>
/// state       event                                    → state       answer
/// free        DISCOVER, address not known to be free     probing     – (ARP probe)
/// free, last  DISCOVER, the client's own last address    offered     OFFER
/// probing     the probe's time is over                   offered     OFFER
/// probing     somebody answers the probe                 declined    – (the next address is probed)
/// offered     REQUEST that names this server             committing  –
/// offered     REQUEST that names another server          free        –
/// offered     15 s; or 2 s, where nothing else is free   free        –
/// committing  the lease is on disk                       bound       ACK
/// committing  the disk failed                            offered     – (counted)
/// bound       REQUEST in RENEWING, REBINDING, REBOOT     committing  ACK, when on disk
/// bound       RELEASE                                    released    –
/// bound       its time is over                           expired     –
/// any own     DECLINE                                    declined    – (for 10 minutes)
/// </code>
/// Released and expired addresses are remembered for their clients, and given to others when no address is left
/// that was never used; the one that ended longest ago goes first.
/// </summary>
public sealed partial class DhcpCore
{
    private readonly string _network;
    private readonly DhcpOptions _options;
    private readonly ClientLimiter _clients;
    private TokenBucket _newClients;

    public DhcpCore(string network, DhcpOptions options, Action<LeaseChangeKind, Lease>? onChange = null)
    {
        _network = network;
        _options = options;
        _clients = new ClientLimiter(options.ClientRate, options.ClientBurst);
        Table = new LeaseTable(network, onChange);
    }

    public LeaseTable Table { get; }

    public ReservationBook Reservations { get; } = new();

    /// <summary>Null until the switch has said what the network is like; nothing is answered before.</summary>
    public NetworkSettings? Settings { get; private set; }

    /// <summary>When <see cref="Tick"/> is to be called.</summary>
    public DateTimeOffset NextDue => Table.NextDue;

    /// <summary>Decides about one message from a client.</summary>
    /// <param name="toServer">It was sent to the server's own address: what tells RENEWING from REBINDING.</param>
    public Decision Handle(DhcpMessage message, bool toServer, DateTimeOffset now)
    {
        if (Settings is not { } settings)
            return Drop(message, DropCause.NotForUs, "the network is not served");
        if (!_clients.TryTake(message.Mac, now))
            return Drop(message, DropCause.RateLimited, "the client sends too much");
        if (!message.RelayAddress.IsAny && !settings.Subnet.ContainsHost(message.RelayAddress))
            return Drop(message, DropCause.ForeignRelay, "the relay is on another subnet");
        return message.Type switch
        {
            Dhcpv4MessageType.Discover => Discover(message, now, conflicts: 0),
            Dhcpv4MessageType.Request => Request(message, toServer, now),
            Dhcpv4MessageType.Decline => Decline(message, now),
            Dhcpv4MessageType.Release => Release(message, now),
            _ => Inform(message),
        };
    }

    /// <summary>Does what is due by time: leases and offers end, and probes that nobody answered become offers.</summary>
    public (IReadOnlyList<Decision> Decisions, IReadOnlyList<Lease> Expired) Tick(DateTimeOffset now)
    {
        if (NextDue > now)
            return ([], []);
        var probed = new List<AddressEntry>();
        var expired = new List<Lease>();
        Table.TakeDue(now, probed, expired);
        return ([.. probed.Select(entry => OfferTo(entry, now))], expired);
    }

    /// <summary>The lease of an ACK is on disk: it is in force from now on, and the answer may go.</summary>
    public Decision Committed(Decision decision, DateTimeOffset now)
    {
        Lease lease = decision.Lease!;
        if (!MayHave(lease.Address))
        {
            EndCommit(lease, now);
            var undo = new LeaseWrite([], [(_network, lease.Address)]);
            return Nak(decision.Message, lease.Address, "the network was changed while the lease was written") with { Write = undo };
        }
        Table.SetLease(lease);
        EndCommit(lease, now);
        return decision;
    }

    /// <summary>The lease of an ACK could not be written: there is no answer, and things are as they were before.</summary>
    public Decision CommitFailed(Decision decision, DropCause cause, DateTimeOffset now)
    {
        EndCommit(decision.Lease!, now);
        return Drop(decision.Message, cause, "the lease could not be written");
    }

    /// <summary>Takes over a network's settings as they are now.</summary>
    /// <returns>What became void; null when nothing did.</returns>
    public LeaseWrite? Configure(NetworkSettings settings)
    {
        Settings = settings;
        List<AddressEntry> outside = [.. Table.Entries.Where(entry => !MayHave(entry.Address))];
        foreach (AddressEntry entry in outside)
        {
            Table.RemoveHold(entry);
            Table.RemoveLease(entry.Address);
        }
        return outside.Count == 0 ? null : new LeaseWrite([], [.. outside.Select(entry => (_network, entry.Address))]);
    }

    /// <summary>The network is served no more; its leases stay.</summary>
    public void Suspend() => Settings = null;

    /// <summary>Whether anybody may have the address as things are: in the range, or reserved, and not taken by configuration.</summary>
    private bool MayHave(Ipv4Address address) =>
        Settings is { } settings && settings.IsGivable(address) && (settings.InRange(address) || Reservations.For(address) is not null);

    /// <summary>Whether this client may have the address now.</summary>
    private bool IsAvailable(Ipv4Address address, DhcpMessage message)
    {
        if (!MayHave(address) || (Reservations.For(address) is { } reservation && reservation != Reservations.For(message)))
            return false;
        AddressEntry? entry = Table.Find(address);
        return (entry?.Hold is not { } hold || hold.Client == message.Client)
            && (entry?.Lease is not { State: LeaseState.Bound or LeaseState.Declined } lease || (lease.State == LeaseState.Bound && lease.Client == message.Client));
    }

    private bool IsKnown(DhcpMessage message) =>
        Table.HoldOf(message.Client) is not null || Table.LeaseOf(message.Client) is not null || Reservations.For(message) is not null;

    private TimeSpan LeaseTimeFor(DhcpMessage message)
    {
        NetworkSettings settings = Settings!;
        if (message.LeaseSeconds is not { } wanted)
            return settings.DefaultLease;
        var asked = TimeSpan.FromSeconds(wanted);
        TimeSpan shortest = _options.ShortestLease < settings.MaxLease ? _options.ShortestLease : settings.MaxLease;
        return asked < shortest ? shortest : asked > settings.MaxLease ? settings.MaxLease : asked;
    }

    private void EndCommit(Lease lease, DateTimeOffset now)
    {
        if (Table.Find(lease.Address) is not { Hold: { Kind: HoldKind.Committing } hold } entry || hold.Client != lease.Client || --hold.Writes > 0)
            return;
        // Should the disk have failed, the offer stands a while longer: the client asks again.
        if (entry.Lease is { State: LeaseState.Bound } bound && bound.Client == lease.Client)
            Table.RemoveHold(entry);
        else
            Table.UpdateHold(entry, held => (held.Kind, held.Until) = (HoldKind.Offered, now + _options.OfferTime));
    }

    private static Decision Drop(DhcpMessage message, DropCause cause, string reason, Ipv4Address address = default) =>
        new() { Kind = DecisionKind.Drop, Message = message, Cause = cause, Reason = reason, Address = address };

    private static Decision Nak(DhcpMessage message, Ipv4Address address, string reason) => new()
    {
        Kind = DecisionKind.Nak,
        Message = message,
        Reason = reason,
        Address = address,
        Reply = new DhcpReply { Type = Dhcpv4MessageType.Nak, Request = message, Text = reason },
    };

    /// <summary>Whole milliseconds, as the store keeps them.</summary>
    private static DateTimeOffset Truncate(DateTimeOffset time) => DateTimeOffset.FromUnixTimeMilliseconds(time.ToUnixTimeMilliseconds());
}
