using VNetMesh.Dhcp.Leases;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Protocol;

/// <content>REQUEST in its four states, DECLINE, RELEASE and INFORM (RFC 2131, 4.3.2 to 4.3.5).</content>
public sealed partial class DhcpCore
{
    /// <summary>
    /// Table 4 of RFC 2131: what stands where tells the client's state.
    /// <code>
    ///              server identifier   requested address   ciaddr   sent to
    /// SELECTING    must                must                0        all
    /// INIT-REBOOT  must not            must                0        all
    /// RENEWING     must not            must not            address  the server
    /// REBINDING    must not            must not            address  all
    /// </code>
    /// </summary>
    private Decision Request(DhcpMessage message, bool toServer, DateTimeOffset now)
    {
        if (message.ServerIdentifier is { } server)
            return Selecting(message, server, now);
        if (!message.ClientAddress.IsAny)
            return Extending(message, toServer, now);
        return message.RequestedAddress is { } requested
            ? Rebooting(message, requested, now)
            : Drop(message, DropCause.Malformed, "the REQUEST names no address");
    }

    /// <summary>SELECTING: the client takes an offer; ours, or another server's.</summary>
    private Decision Selecting(DhcpMessage message, Ipv4Address server, DateTimeOffset now)
    {
        AddressEntry? held = Table.HoldOf(message.Client);
        if (server != Settings!.ServerAddress)
        {
            if (held is { Hold.Kind: HoldKind.Offered or HoldKind.Probing })
                Table.RemoveHold(held);
            return Drop(message, DropCause.OtherServer, "the client chose another server");
        }
        // Some clients leave option 50 out and put the address in ciaddr.
        Ipv4Address address = message.RequestedAddress ?? message.ClientAddress;
        if (address.IsAny)
            return Drop(message, DropCause.Malformed, "the REQUEST names no address");
        if (held?.Address == address && IsAvailable(address, message))
            return Grant(message, address, "the offer was accepted", now);
        if (!IsAvailable(address, message) || !(HasRoomFor(address) && IsOfClientOrRange(address, message)))
            return Nak(message, address, "the address is not the client's");
        if (!IsKnown(message) && !_newClients.TryTake(_options.NewClientRate, _options.NewClientBurst, now))
            return Drop(message, DropCause.NewClientsLimited, "too many clients never seen before");
        return Grant(message, address, "the offer is over, but the address is still free", now);
    }

    /// <summary>INIT-REBOOT: the client remembers an address, and asks whether it still has it.</summary>
    private Decision Rebooting(DhcpMessage message, Ipv4Address requested, DateTimeOffset now)
    {
        if (!Settings!.Subnet.Contains(requested))
            return Nak(message, requested, "the address is of another network");
        if (MovesTo(message) is { } reserved && reserved != requested)
            return Nak(message, requested, "another address is reserved for the client");
        // 4.3.2: without a record of the client the server MUST remain silent; another server may have one.
        if (Table.LeaseOf(message.Client) is not { } lease && Reservations.For(message) is null)
            return Drop(message, DropCause.UnknownClient, "the client is not known here", requested);
        return IsOfClientOrReserved(requested, message) && IsAvailable(requested, message)
            ? Grant(message, requested, "the client rebooted and keeps its address", now)
            : Nak(message, requested, "the address is not the client's");
    }

    /// <summary>RENEWING, when sent to the server alone, or REBINDING, when sent to all: the client wants to keep its address.</summary>
    private Decision Extending(DhcpMessage message, bool toServer, DateTimeOffset now)
    {
        Ipv4Address address = message.ClientAddress;
        if (!Settings!.Subnet.Contains(address))
            return Nak(message, address, "the address is of another network");
        if (MovesTo(message) is { } reserved && reserved != address)
            return Nak(message, address, "another address is reserved for the client");
        if (Table.LeaseOf(message.Client) is null && Reservations.For(message) is null)
        {
            // A REBINDING client may be another server's. A RENEWING one names this server, which has no such lease.
            return toServer
                ? Nak(message, address, "there is no such lease")
                : Drop(message, DropCause.UnknownClient, "the client is not known here", address);
        }
        return IsOfClientOrReserved(address, message) && IsAvailable(address, message)
            ? Grant(message, address, toServer ? "renewed" : "rebound", now)
            : Nak(message, address, "the address is not the client's");
    }

    /// <summary>DECLINE: the client found the address in use. Only who holds an address can say so, or one guest could use up all.</summary>
    private Decision Decline(DhcpMessage message, DateTimeOffset now)
    {
        if (message.RequestedAddress is not { } address)
            return Drop(message, DropCause.Malformed, "the DECLINE names no address");
        if (message.ServerIdentifier is { } server && server != Settings!.ServerAddress)
            return Drop(message, DropCause.OtherServer, "the DECLINE is for another server", address);
        AddressEntry? entry = Table.Find(address);
        bool holds = entry?.Hold?.Client == message.Client && entry.Hold.Kind == HoldKind.Offered;
        if (!holds && !(entry?.Lease is { State: LeaseState.Bound } lease && lease.Client == message.Client))
            return Drop(message, DropCause.NotLeaseHolder, "the client does not hold the address", address);
        if (holds)
            Table.RemoveHold(entry!);
        LeaseWrite write = Quarantine(LeaseFor(message, address, LeaseState.Declined), now);
        return new Decision { Kind = DecisionKind.Decline, Message = message, Address = address, Reason = "the client found the address in use", Write = write };
    }

    private Decision Release(DhcpMessage message, DateTimeOffset now)
    {
        Ipv4Address address = message.ClientAddress;
        if (message.ServerIdentifier is { } server && server != Settings!.ServerAddress)
            return Drop(message, DropCause.OtherServer, "the RELEASE is for another server", address);
        if (Table.Find(address)?.Lease is not { State: LeaseState.Bound } lease || lease.Client != message.Client)
            return Drop(message, DropCause.NotLeaseHolder, "the client does not hold the address", address);
        Lease released = lease with { State = LeaseState.Released, Expire = Truncate(now) };
        Table.SetLease(released);
        return new Decision { Kind = DecisionKind.Release, Message = message, Address = address, Reason = "the client gave the address back", Write = new LeaseWrite([released], []) };
    }

    /// <summary>INFORM: the client has an address by other means, and wants the network's parameters (4.3.5).</summary>
    private Decision Inform(DhcpMessage message)
    {
        if (!Settings!.Subnet.ContainsHost(message.ClientAddress))
            return Drop(message, DropCause.Malformed, "the INFORM names no address of the subnet", message.ClientAddress);
        return new Decision
        {
            Kind = DecisionKind.Inform,
            Message = message,
            Address = message.ClientAddress,
            Reason = "parameters alone",
            Reply = new DhcpReply { Type = Dhcpv4MessageType.Ack, Request = message },
        };
    }

    private Decision Grant(DhcpMessage message, Ipv4Address address, string why, DateTimeOffset now)
    {
        TimeSpan time = LeaseTimeFor(message);
        Lease? before = Table.LeaseOf(message.Client);
        bool continues = before is { State: LeaseState.Bound } && before.Address == address;
        DateTimeOffset start = Truncate(now);
        Lease lease = LeaseFor(message, address, LeaseState.Bound) with { Start = continues ? before!.Start : start, Expire = start + time };
        // A client has one lease: what it had elsewhere ends with the same write.
        IReadOnlyList<(string, Ipv4Address)> deletes = before is not null && before.Address != address ? [(_network, before.Address)] : [];
        KeepForCommit(message, address, why, now);
        return new Decision
        {
            Kind = DecisionKind.Ack,
            Message = message,
            Address = address,
            Reason = why,
            Lease = lease,
            Write = new LeaseWrite([lease], deletes),
            Reply = new DhcpReply
            {
                Type = Dhcpv4MessageType.Ack,
                Request = message,
                Address = address,
                LeaseTime = time,
                HostName = Reservations.For(address)?.HostName ?? "",
            },
        };
    }

    private void KeepForCommit(DhcpMessage message, Ipv4Address address, string why, DateTimeOffset now)
    {
        Hold? before = Table.Find(address)?.Hold is { Kind: not HoldKind.Probing } held && held.Client == message.Client ? held : null;
        Table.SetHold(address, new Hold
        {
            Kind = HoldKind.Committing,
            Message = message,
            Why = why,
            Since = before?.Since ?? now,
            Until = before?.Until ?? now + _options.OfferTime,
            Reserved = Reservations.For(address) is not null,
            Writes = (before?.Writes ?? 0) + 1,
        });
    }

    /// <summary>Sets an address aside for a while. Where many are, those that have been for longest are given out again: a probe goes first anyway.</summary>
    private LeaseWrite Quarantine(Lease declined, DateTimeOffset now)
    {
        var deletes = new List<(string, Ipv4Address)>();
        if (Table.Declined >= Math.Max(4, Settings!.RangeSize / 4))
        {
            Lease oldest = Table.Entries.Select(entry => entry.Lease).OfType<Lease>().Where(lease => lease.State == LeaseState.Declined).MinBy(lease => lease.Expire)!;
            Table.RemoveLease(oldest.Address);
            deletes.Add((_network, oldest.Address));
        }
        DateTimeOffset start = Truncate(now);
        Lease lease = declined with { Start = start, Expire = start + _options.QuarantineTime };
        Table.SetLease(lease);
        return new LeaseWrite([lease], deletes);
    }

    private Lease LeaseFor(DhcpMessage message, Ipv4Address address, LeaseState state) => new()
    {
        Network = _network,
        Address = address,
        State = state,
        Client = message.Client,
        Mac = message.Mac,
        ClientId = message.ClientIdentifier is { } identifier ? Convert.ToHexStringLower(identifier) : "",
        HostName = message.HostName,
        Reserved = Reservations.For(address) is not null,
    };

    /// <summary>The client's reservation, where it can have it now.</summary>
    private Ipv4Address? MovesTo(DhcpMessage message) =>
        Reservations.For(message) is { } reservation && IsAvailable(reservation.Address, message) ? reservation.Address : null;

    private bool IsOfClientOrReserved(Ipv4Address address, DhcpMessage message) =>
        Table.LeaseOf(message.Client)?.Address == address || Reservations.For(message)?.Address == address;

    private bool IsOfClientOrRange(Ipv4Address address, DhcpMessage message) => Settings!.InRange(address) || IsOfClientOrReserved(address, message);
}
