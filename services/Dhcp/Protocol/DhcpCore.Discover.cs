using System.Numerics;
using VNetMesh.Dhcp.Leases;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Protocol;

/// <content>DISCOVER: which address a client is offered (RFC 2131, 4.3.1).</content>
public sealed partial class DhcpCore
{
    /// <summary>Somebody bears an address: where a probe asks for it, the address is set aside and the client gets another.</summary>
    /// <returns>The quarantine, to be written, and what follows for the client that waits; null when the address is not probed.</returns>
    public (LeaseWrite Write, Decision Next)? AddressInUse(Ipv4Address address, MacAddress owner, DateTimeOffset now)
    {
        // A client may bear its address already, and answer for it.
        if (Table.Find(address) is not { Hold: { Kind: HoldKind.Probing } hold } entry || hold.Message.Mac == owner)
            return null;
        Table.RemoveHold(entry);
        LeaseWrite write = Quarantine(new Lease { Network = _network, Address = address, State = LeaseState.Declined, Mac = owner }, now);
        Decision next = hold.Conflicts + 1 >= _options.MaxConflicts
            ? Drop(hold.Message, DropCause.AddressConflict, "too many addresses were found in use", address)
            : Discover(hold.Message, now, hold.Conflicts + 1);
        return (write, next);
    }

    private Decision Discover(DhcpMessage message, DateTimeOffset now, int conflicts)
    {
        // The client asks again: the same answer, as long as it is still the right one.
        if (Table.HoldOf(message.Client) is { Hold: { } hold } held && IsStillRight(held.Address, message))
            return OfferAgain(held, hold, message, now);
        if (conflicts == 0 && !IsKnown(message) && !_newClients.TryTake(_options.NewClientRate, _options.NewClientBurst, now))
            return Drop(message, DropCause.NewClientsLimited, "too many clients never seen before");
        if (Choose(message, now) is not var (address, why))
            return Drop(message, DropCause.PoolExhausted, "no address is free");
        // Clients with a lease or a reservation are bounded by these, and a flood must not keep them out.
        if (Table.Holds >= _options.MaxOffers && !IsKnown(message) && !DropOldestOffer(now))
            return Drop(message, DropCause.PoolExhausted, "too many offers are outstanding");
        bool probe = _options.ProbeTime > TimeSpan.Zero && !IsKnownToBeFree(address, message.Client, now);
        Table.SetHold(address, new Hold
        {
            Kind = probe ? HoldKind.Probing : HoldKind.Offered,
            Message = message,
            Why = why,
            Since = now,
            Until = now + (probe ? _options.ProbeTime : _options.OfferTime),
            Reserved = Reservations.For(address) is not null,
            Conflicts = conflicts,
        });
        if (!probe)
            return Offer(message, address, why);
        return new Decision { Kind = DecisionKind.Probe, Message = message, Address = address, Reason = $"{why}; probed before it is offered" };
    }

    private bool IsStillRight(Ipv4Address address, DhcpMessage message) =>
        IsAvailable(address, message) && (Reservations.For(message) is not { } reservation || reservation.Address == address || !IsAvailable(reservation.Address, message));

    private Decision OfferAgain(AddressEntry entry, Hold hold, DhcpMessage message, DateTimeOffset now)
    {
        hold.Message = message;
        if (hold.Kind == HoldKind.Probing)
            return new Decision { Kind = DecisionKind.Wait, Message = message, Address = entry.Address, Reason = "the address is being probed" };
        if (hold.Kind == HoldKind.Offered)
            Table.UpdateHold(entry, held => (held.Since, held.Until) = (now, now + _options.OfferTime));
        return Offer(message, entry.Address, $"{hold.Why}, offered before");
    }

    /// <summary>Nobody answered the probe.</summary>
    private Decision OfferTo(AddressEntry entry, DateTimeOffset now)
    {
        Hold hold = entry.Hold!;
        Table.UpdateHold(entry, held => (held.Kind, held.Since, held.Until) = (HoldKind.Offered, now, now + _options.OfferTime));
        return Offer(hold.Message, entry.Address, $"{hold.Why}; nobody answered the probe");
    }

    private Decision Offer(DhcpMessage message, Ipv4Address address, string why) => new()
    {
        Kind = DecisionKind.Offer,
        Message = message,
        Address = address,
        Reason = why,
        Reply = new DhcpReply
        {
            Type = Dhcpv4MessageType.Offer,
            Request = message,
            Address = address,
            LeaseTime = LeaseTimeFor(message),
            HostName = Reservations.For(address)?.HostName ?? "",
        },
    };

    /// <summary>RFC 2131, 4.3.1: the client's reservation, its current or last address, what it asks for, or a free one.</summary>
    private (Ipv4Address Address, string Why)? Choose(DhcpMessage message, DateTimeOffset now)
    {
        if (Reservations.For(message) is { } reservation && IsAvailable(reservation.Address, message))
            return (reservation.Address, "the client's reservation");
        if (Table.LeaseOf(message.Client) is { } lease && Settings!.InRange(lease.Address) && IsAvailable(lease.Address, message))
            return (lease.Address, lease.State == LeaseState.Bound ? "the client's current address" : "the client's last address");
        if (message.RequestedAddress is { } requested && Settings!.InRange(requested) && HasRoomFor(requested) && IsAvailable(requested, message))
            return (requested, "the address that the client asked for");
        return ChooseNeverUsed(message) ?? ChooseLongestUnused(message) ?? ChooseForgottenOffer(message, now);
    }

    private bool HasRoomFor(Ipv4Address address) => Table.Count < _options.MaxLeases || Table.Find(address) is not null;

    /// <summary>Begins at a place that follows from the client's identity: it tends to get the same address even where nothing is remembered of it.</summary>
    private (Ipv4Address, string)? ChooseNeverUsed(DhcpMessage message)
    {
        NetworkSettings settings = Settings!;
        if (Table.Count >= _options.MaxLeases || settings.RangeSize == 0)
            return null;
        // Only what is known, reserved or taken can stand in the way, so one step more than those finds a free address.
        long steps = Math.Min(settings.RangeSize, (long)Table.Count + Reservations.Count + settings.Taken.Count + settings.Routers.Count + settings.DnsServers.Count + 4);
        uint place = (uint)(HashOf(message.Client) % (ulong)settings.RangeSize);
        for (long i = 0; i < steps; i++)
        {
            var address = new Ipv4Address(settings.RangeStart.Value + (uint)((place + i) % settings.RangeSize));
            if (Table.Find(address) is null && IsAvailable(address, message))
                return (address, "an address never used");
        }
        return null;
    }

    private (Ipv4Address, string)? ChooseLongestUnused(DhcpMessage message)
    {
        AddressEntry? oldest = null;
        foreach (AddressEntry entry in Table.Entries)
        {
            if (entry is { Hold: null, Lease: { State: LeaseState.Expired or LeaseState.Released } lease } && Settings!.InRange(entry.Address)
                && (oldest is null || lease.Expire < oldest.Lease!.Expire) && IsAvailable(entry.Address, message))
                oldest = entry;
        }
        return oldest is null ? null : (oldest.Address, "the address unused for the longest time");
    }

    /// <summary>A client that means it requests within moments; who does not must not starve the others.</summary>
    private (Ipv4Address, string)? ChooseForgottenOffer(DhcpMessage message, DateTimeOffset now)
    {
        if (OldestOffer(now, entry => Settings!.InRange(entry.Address) && Reservations.For(entry.Address) is null && entry.Lease is not { State: LeaseState.Bound }) is not { } entry)
            return null;
        Table.RemoveHold(entry);
        return IsAvailable(entry.Address, message) ? (entry.Address, "offered to another client, which did not request it") : null;
    }

    private bool DropOldestOffer(DateTimeOffset now)
    {
        if (OldestOffer(now, _ => true) is not { } entry)
            return false;
        Table.RemoveHold(entry);
        return true;
    }

    private AddressEntry? OldestOffer(DateTimeOffset now, Func<AddressEntry, bool> fits)
    {
        AddressEntry? oldest = null;
        foreach (AddressEntry entry in Table.HeldEntries)
        {
            if (entry.Hold is { Kind: HoldKind.Offered } hold && now - hold.Since >= _options.OfferGrace && (oldest is null || hold.Since < oldest.Hold!.Since) && fits(entry))
                oldest = entry;
        }
        return oldest;
    }

    /// <summary>The client has the address, or had it until a short while ago: nobody else can have been given it since.</summary>
    private bool IsKnownToBeFree(Ipv4Address address, ClientKey client, DateTimeOffset now) =>
        Table.Find(address)?.Lease is { } lease && lease.Client == client
        && (lease.State == LeaseState.Bound || (lease.State is LeaseState.Expired or LeaseState.Released && now - lease.Expire < _options.ProbeFreeTime));

    /// <summary>The same in every run: FNV-1a, 64 bits, mixed once more so that neighbours do not get neighbours.</summary>
    private ulong HashOf(ClientKey client)
    {
        ulong hash = 0xCBF2_9CE4_8422_2325;
        foreach (char letter in client.Value ?? "")
            hash = (hash ^ letter) * 0x0000_0100_0000_01B3;
        foreach (char letter in _network)
            hash = (hash ^ letter) * 0x0000_0100_0000_01B3;
        hash = (hash ^ (hash >> 33)) * 0xFF51_AFD7_ED55_8CCD;
        return BitOperations.RotateLeft(hash, 31) ^ hash;
    }
}
