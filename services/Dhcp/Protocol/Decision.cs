using VNetMesh.Dhcp.Leases;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Protocol;

public enum DecisionKind
{
    /// <summary>Not answered; <see cref="Decision.Cause"/> says why.</summary>
    Drop,

    /// <summary>Nothing is to be done now: an answer is on its way already.</summary>
    Wait,

    /// <summary>Ask by ARP who has <see cref="Decision.Address"/>; the offer follows from <see cref="DhcpCore.Tick"/>.</summary>
    Probe,
    Offer,

    /// <summary>To be sent once <see cref="Decision.Write"/> is on disk.</summary>
    Ack,

    /// <summary>The answer to INFORM: options alone.</summary>
    Inform,
    Nak,
    Release,
    Decline,
}

/// <summary>Changes that go to disk together.</summary>
public sealed record LeaseWrite(IReadOnlyList<Lease> Upserts, IReadOnlyList<(string Network, Ipv4Address Address)> Deletes);

/// <summary>What the server decided about a message, and why.</summary>
public sealed record Decision
{
    public required DecisionKind Kind { get; init; }

    /// <summary>A sentence for people, without the client's own words.</summary>
    public required string Reason { get; init; }

    /// <summary>The message that it answers.</summary>
    public required DhcpMessage Message { get; init; }

    /// <summary>Why there is no answer; null where there is one, or will be.</summary>
    public DropCause? Cause { get; init; }

    /// <summary>The address in question; Any where there is none.</summary>
    public Ipv4Address Address { get; init; }

    /// <summary>The lease that is granted; null but for <see cref="DecisionKind.Ack"/>.</summary>
    public Lease? Lease { get; init; }

    public LeaseWrite? Write { get; init; }

    public DhcpReply? Reply { get; init; }
}

/// <summary>An answer, without the network's parameters.</summary>
public sealed record DhcpReply
{
    public required Dhcpv4MessageType Type { get; init; }
    public required DhcpMessage Request { get; init; }

    /// <summary>yiaddr.</summary>
    public Ipv4Address Address { get; init; }

    /// <summary>Whole seconds; null: no lease is spoken of (INFORM, NAK).</summary>
    public TimeSpan? LeaseTime { get; init; }

    /// <summary>Option 12, from a reservation; may be empty.</summary>
    public string HostName { get; init; } = "";

    /// <summary>Option 56 of a NAK.</summary>
    public string Text { get; init; } = "";
}
