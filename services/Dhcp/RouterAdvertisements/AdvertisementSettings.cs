using VNetMesh.Packets;

namespace VNetMesh.Dhcp.RouterAdvertisements;

/// <summary>What is to be advertised on one network.</summary>
/// <param name="Prefix">From which guests make their addresses (RFC 4862).</param>
/// <param name="HostIsThere">The host has an adapter on the network, and is the router that is spoken for.</param>
/// <param name="LeadsOut">The host forwards: it is a default router.</param>
/// <param name="Mtu">Largest IP packet.</param>
public sealed record AdvertisementSettings(Ipv6Prefix Prefix, bool HostIsThere, bool LeadsOut, uint Mtu, IReadOnlyList<Ipv6Address> DnsServers)
{
    /// <summary>Value equality, the list included.</summary>
    public bool Means(AdvertisementSettings? other) => other is not null && this with { DnsServers = other.DnsServers } == other && DnsServers.SequenceEqual(other.DnsServers);
}

/// <summary>A frame to be sent.</summary>
public readonly record struct Advertisement(MacAddress ToMac, Ipv6Address To, Ipv6Address Source, RouterAdvertisement Message);
