using Google.Protobuf.WellKnownTypes;
using VNetMesh.Dhcp.Observability;
using VNetMesh.Dhcp.Protocol;
using VNetMesh.Dhcp.RouterAdvertisements;
using VNetMesh.Dhcp.Serving;
using VNetMesh.Packets;
using VNetMesh.V1;
using Lease = VNetMesh.Dhcp.Leases.Lease;
using Reservation = VNetMesh.Dhcp.Leases.Reservation;

namespace VNetMesh.Dhcp.Rpc;

/// <summary>Between the messages of the API and what the service works with.</summary>
internal static class DhcpTranslation
{
    /// <summary>The networks that want DHCP or router advertisements.</summary>
    /// <param name="resolvers">The host's own nameservers.</param>
    public static List<ServedNetwork> ToServed(IEnumerable<Network> networks, HostResolvers.List resolvers) =>
        [.. networks.Select(network => new ServedNetwork(network.Name, ToSettings(network, resolvers), ToAdvertisements(network, resolvers))).Where(served => served.Dhcp is not null || served.Advertisements is not null)];

    public static V1.Lease ToMessage(Lease lease) => new()
    {
        Name = $"{lease.Network}/leases/{lease.Address}",
        Ipv4Address = lease.Address.ToString(),
        Mac = lease.Mac.IsZero ? "" : lease.Mac.ToString(),
        ClientId = lease.ClientId,
        Hostname = lease.HostName,
        State = (LeaseState)lease.State,
        StartTime = Timestamp.FromDateTimeOffset(lease.Start),
        ExpireTime = Timestamp.FromDateTimeOffset(lease.Expire),
        Reserved = lease.Reserved,
    };

    public static V1.Reservation ToMessage(Reservation reservation) => new()
    {
        Name = $"{reservation.Network}/reservations/{reservation.Id}",
        Mac = reservation.Mac?.ToString() ?? "",
        ClientId = reservation.ClientId,
        Ipv4Address = reservation.Address.ToString(),
        Hostname = reservation.HostName,
    };

    public static ExchangeEvent ToMessage(ExchangeEntry entry) => new()
    {
        Time = Timestamp.FromDateTimeOffset(entry.Time),
        Network = entry.Network,
        Mac = entry.Mac.ToString(),
        TransactionId = entry.Transaction,
        Message = entry.Message,
        Decision = entry.Decision.ToString().ToLowerInvariant(),
        Ipv4Address = entry.Address.IsAny ? "" : entry.Address.ToString(),
        Reason = entry.Reason,
        Cause = entry.Cause,
    };

    public static Pool ToMessage(PoolStatus status)
    {
        var pool = new Pool
        {
            Network = status.Network,
            Size = (uint)status.Size,
            Bound = (uint)status.Bound,
            Offered = (uint)status.Offered,
            Declined = (uint)status.Declined,
            LinkUp = status.IsLinkUp,
        };
        foreach ((string type, long count) in status.Messages)
            pool.Messages[type] = (ulong)count;
        foreach ((string cause, long count) in status.Drops)
            pool.Drops[cause] = (ulong)count;
        return pool;
    }

    private static NetworkSettings? ToSettings(Network network, HostResolvers.List resolvers)
    {
        if (network.Dhcpv4 is not { Enabled: true } dhcp || !Ipv4Subnet.TryParse(network.Ipv4Subnet, out Ipv4Subnet subnet)
            || !Ipv4Address.TryParse(dhcp.RangeStart, out Ipv4Address start) || !Ipv4Address.TryParse(dhcp.RangeEnd, out Ipv4Address end)
            || !Ipv4Address.TryParse(dhcp.ServerAddress, out Ipv4Address server))
            return null;
        TimeSpan lease = dhcp.DefaultLease?.ToTimeSpan() ?? TimeSpan.FromMinutes(30);
        return new NetworkSettings
        {
            Network = network.Name,
            Subnet = subnet,
            RangeStart = start,
            RangeEnd = end,
            ServerAddress = server,
            DefaultLease = lease,
            MaxLease = dhcp.MaxLease?.ToTimeSpan() is { } longest && longest > lease ? longest : lease,
            Mtu = (int)Math.Clamp(network.Mtu == 0 ? 1500 : network.Mtu, 576, 65535),
            Domain = dhcp.Domain,
            DnsServers = dhcp.DnsServers.Count == 0 && LeadsOut(network) ? resolvers.Ipv4 : Addresses(dhcp.DnsServers),
            Routers = Addresses(dhcp.Routers),
            Taken = Addresses([network.Ipv4HostAddress, network.Ipv4Gateway]),
        };
    }

    private static AdvertisementSettings? ToAdvertisements(Network network, HostResolvers.List resolvers) =>
        Ipv6Prefix.TryParse(network.Ipv6Prefix, out Ipv6Prefix prefix)
            ? new AdvertisementSettings(prefix, network.Kind is NetworkKind.HostOnly or NetworkKind.Nat, LeadsOut(network), network.Mtu, LeadsOut(network) ? resolvers.Ipv6 : [])
            : null;

    private static bool LeadsOut(Network network) => network.Egress is NetworkEgress.Snat or NetworkEgress.Routed;

    private static List<Ipv4Address> Addresses(IEnumerable<string> texts)
    {
        var addresses = new List<Ipv4Address>();
        foreach (string text in texts)
        {
            if (Ipv4Address.TryParse(text, out Ipv4Address address))
                addresses.Add(address);
        }
        return addresses;
    }
}
