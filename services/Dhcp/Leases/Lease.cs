using VNetMesh.Dhcp.Protocol;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Leases;

/// <summary>Values as in the proto, and on disk.</summary>
public enum LeaseState
{
    /// <summary>Offered, not yet requested. Never on disk.</summary>
    Offered = 1,
    Bound = 2,
    Expired = 3,
    Released = 4,

    /// <summary>Somebody was found to use the address: nobody gets it until it expires.</summary>
    Declined = 5,
}

/// <summary>What is known of one address.</summary>
public sealed record Lease
{
    /// <summary>"networks/{id}".</summary>
    public required string Network { get; init; }
    public required Ipv4Address Address { get; init; }
    public required LeaseState State { get; init; }

    /// <summary>Nobody for an address that a probe found in use.</summary>
    public ClientKey Client { get; init; }
    public MacAddress Mac { get; init; }

    /// <summary>Option 61 as lower-case hex; empty when the client sent none.</summary>
    public string ClientId { get; init; } = "";
    public string HostName { get; init; } = "";

    /// <summary>Whole milliseconds.</summary>
    public DateTimeOffset Start { get; init; }
    public DateTimeOffset Expire { get; init; }
    public bool Reserved { get; init; }
}

/// <summary>An address kept for one client. Where both are set, the client id decides.</summary>
public sealed record Reservation
{
    /// <summary>"networks/{id}".</summary>
    public required string Network { get; init; }
    public required string Id { get; init; }
    public required Ipv4Address Address { get; init; }
    public MacAddress? Mac { get; init; }

    /// <summary>Lower-case hex; empty: the MAC decides.</summary>
    public string ClientId { get; init; } = "";
    public string HostName { get; init; } = "";

    public bool IsFor(DhcpMessage message) => ClientId.Length > 0
        ? message.ClientIdentifier is { } identifier && Convert.ToHexStringLower(identifier) == ClientId
        : Mac == message.Mac;
}
