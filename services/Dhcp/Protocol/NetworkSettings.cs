using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Protocol;

/// <summary>What is to be served on one network.</summary>
public sealed record NetworkSettings
{
    /// <summary>"networks/{id}".</summary>
    public required string Network { get; init; }
    public required Ipv4Subnet Subnet { get; init; }

    /// <summary>First and last address given out, inclusive.</summary>
    public required Ipv4Address RangeStart { get; init; }
    public required Ipv4Address RangeEnd { get; init; }
    public required Ipv4Address ServerAddress { get; init; }
    public required TimeSpan DefaultLease { get; init; }
    public required TimeSpan MaxLease { get; init; }

    /// <summary>Largest IP packet, 576 to 65535.</summary>
    public int Mtu { get; init; } = 1500;

    /// <summary>Option 15; empty: none.</summary>
    public string Domain { get; init; } = "";
    public IReadOnlyList<Ipv4Address> DnsServers { get; init; } = [];
    public IReadOnlyList<Ipv4Address> Routers { get; init; } = [];

    /// <summary>Addresses that belong to somebody by configuration: the host's, the gateway.</summary>
    public IReadOnlyList<Ipv4Address> Taken { get; init; } = [];

    public long RangeSize => RangeEnd < RangeStart ? 0 : (long)RangeEnd.Value - RangeStart.Value + 1;

    public bool InRange(Ipv4Address address) => address >= RangeStart && address <= RangeEnd;

    /// <summary>Whether any client at all may have the address: a host's of the subnet, and nobody's by configuration.</summary>
    public bool IsGivable(Ipv4Address address) =>
        Subnet.ContainsHost(address) && address != ServerAddress && !Taken.Contains(address) && !Routers.Contains(address) && !DnsServers.Contains(address);

    /// <summary>Value equality, the lists included.</summary>
    public bool Means(NetworkSettings other) =>
        this with { DnsServers = other.DnsServers, Routers = other.Routers, Taken = other.Taken } == other
        && DnsServers.SequenceEqual(other.DnsServers) && Routers.SequenceEqual(other.Routers) && Taken.SequenceEqual(other.Taken);
}

/// <summary>How the server behaves, on every network.</summary>
public sealed record DhcpOptions
{
    /// <summary>An offer keeps its address from others that long.</summary>
    public TimeSpan OfferTime { get; init; } = TimeSpan.FromSeconds(15);

    /// <summary>Where nothing else is free, an offer that old and still not requested is given to another client.</summary>
    public TimeSpan OfferGrace { get; init; } = TimeSpan.FromSeconds(2);

    /// <summary>How long to wait for an answer to the ARP probe of an address; zero: no probe.</summary>
    public TimeSpan ProbeTime { get; init; } = TimeSpan.FromMilliseconds(250);

    /// <summary>A client's last address is offered to it without a probe that long after the lease ended.</summary>
    public TimeSpan ProbeFreeTime { get; init; } = TimeSpan.FromMinutes(10);

    /// <summary>An address that was found in use is not given out that long.</summary>
    public TimeSpan QuarantineTime { get; init; } = TimeSpan.FromMinutes(10);

    /// <summary>Probes that find somebody before a DISCOVER is given up.</summary>
    public int MaxConflicts { get; init; } = 3;

    /// <summary>Offers outstanding on a network.</summary>
    public int MaxOffers { get; init; } = 1024;

    /// <summary>Addresses remembered on a network.</summary>
    public int MaxLeases { get; init; } = 65_536;

    /// <summary>Messages of one client in a second, and at once.</summary>
    public int ClientRate { get; init; } = 5;
    public int ClientBurst { get; init; } = 20;

    /// <summary>DISCOVERs of clients never seen before in a second, and at once, on a network.</summary>
    public int NewClientRate { get; init; } = 200;
    public int NewClientBurst { get; init; } = 400;

    /// <summary>A client that asks for less gets that.</summary>
    public TimeSpan ShortestLease { get; init; } = TimeSpan.FromSeconds(60);

    /// <exception cref="ArgumentException">A value makes no sense.</exception>
    public DhcpOptions Checked()
    {
        Check(ProbeTime >= TimeSpan.Zero && ProbeTime <= TimeSpan.FromSeconds(5), nameof(ProbeTime), "zero to 5 s");
        Check(OfferTime >= TimeSpan.FromSeconds(1) && OfferTime <= TimeSpan.FromMinutes(10), nameof(OfferTime), "1 s to 10 min");
        Check(OfferGrace >= TimeSpan.Zero && OfferGrace <= OfferTime, nameof(OfferGrace), "zero to OfferTime");
        Check(QuarantineTime >= TimeSpan.FromSeconds(1) && QuarantineTime <= TimeSpan.FromDays(1), nameof(QuarantineTime), "1 s to 1 day");
        Check(ShortestLease >= TimeSpan.FromSeconds(1) && ShortestLease <= TimeSpan.FromDays(365), nameof(ShortestLease), "1 s to 365 days");
        Check(ProbeFreeTime >= TimeSpan.Zero, nameof(ProbeFreeTime), "zero or more");
        Check(Math.Min(Math.Min(MaxConflicts, MaxOffers), Math.Min(MaxLeases, ClientRate)) >= 1 && Math.Min(ClientBurst, Math.Min(NewClientRate, NewClientBurst)) >= 1, "Max…, …Rate and …Burst", "1 or more");
        return this;
    }

    private static void Check(bool isGood, string name, string range)
    {
        if (!isGood)
            throw new ArgumentException($"{name} must be {range}");
    }
}
