using VNetMesh.Dhcp.Protocol;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.RouterAdvertisements;

/// <summary>
/// Router advertisements of one network (RFC 4861, 6.2), without I/O and without a clock: what comes in and the time go in, and
/// what is to be sent comes out.
///
/// The router is the host, and guests know a router by the source of its advertisements. So they bear the link-local address
/// that the agent gives to the host's adapter (fe80::1), and no link-layer address: guests ask for that, and the
/// host itself answers. The frames' own source is this service's, so that the switch learns nothing wrong. Where the host has no
/// adapter nobody is a router, and the advertisements come from this service's own address.
/// <code>
/// event                                      what is sent
/// settings come or change                    at once to all, then twice more within 16 s each (6.2.4)
/// nothing happens                            to all, every 200 to 600 s
/// a solicitation with a source address       to that guest alone, after 0 to 0.5 s (6.2.6)
/// a solicitation without one                 to all, after 0 to 0.5 s and 3 s after the last to all
/// a prefix goes                              it is advertised with lifetimes of 0 as often as a change is told of
/// the host leads out no more                 the same router, with a lifetime of 0
/// </code>
/// </summary>
/// <param name="mac">This service's own address on the network.</param>
/// <param name="random">A number of 0 to less than 1.</param>
public sealed class RouterAdvertiser(MacAddress mac, Func<double> random)
{
    public const long Second = 1_000_000;

    /// <summary>MinRtrAdvInterval and MaxRtrAdvInterval (6.2.1).</summary>
    private const double MinInterval = 200, MaxInterval = 600;
    private const ushort RouterLifetime = 1800;
    private const uint ValidLifetime = 86_400, PreferredLifetime = 14_400;

    /// <summary>RFC 8106, 5.1: at least MaxRtrAdvInterval; three times that.</summary>
    private const uint DnsLifetime = 1800;

    // Constants of 10.
    private const int InitialAdvertisements = 3;
    private const double MaxInitialInterval = 16, MaxDelay = 0.5, MinDelayBetween = 3;

    /// <summary>Guests that wait for an answer of their own; beyond that all are answered at once.</summary>
    private const int MaxWaiting = 64;
    private const int MaxWithdrawn = 4;

    /// <summary>What the host's adapter has wherever there is a prefix; the agent gives it.</summary>
    private static readonly Ipv6Address HostAddress = Ipv6Address.Parse("fe80::1");

    private readonly List<(long Due, MacAddress Mac, Ipv6Address Address)> _waiting = [];
    private readonly List<Ipv6Prefix> _withdrawn = [];
    private AdvertisementSettings? _settings;
    private AdvertisementSettings? _lastSettings;
    private int _initialLeft;
    private long _nextToAll = long.MaxValue;
    private long _lastToAll = long.MinValue / 2;

    /// <summary>When <see cref="Tick"/> is to be called; microseconds of the loop's clock.</summary>
    public long NextDue => _waiting.Count == 0 ? _nextToAll : Math.Min(_nextToAll, _waiting.Min(entry => entry.Due));

    /// <summary>Takes over settings; null: nothing is advertised any more.</summary>
    /// <returns>Whether they were others.</returns>
    public bool Configure(AdvertisementSettings? settings, long now)
    {
        if (settings is null ? _settings is null : settings.Means(_settings))
            return false;
        if (_settings is { } before && before.Prefix != settings?.Prefix)
            _withdrawn.Add(before.Prefix);
        if (_withdrawn.Count > MaxWithdrawn)
            _withdrawn.RemoveAt(0);
        _withdrawn.RemoveAll(prefix => prefix == settings?.Prefix);
        _lastSettings = settings ?? _settings;
        _settings = settings;
        _waiting.Clear();
        _initialLeft = InitialAdvertisements;
        _nextToAll = now;
        return true;
    }

    /// <summary>The port is connected (again): whoever is there may have waited for it.</summary>
    public void LinkIsUp(long now)
    {
        if (_settings is null)
            return;
        _initialLeft = InitialAdvertisements;
        _nextToAll = Math.Min(_nextToAll, Math.Max(now, _lastToAll + Time(MinDelayBetween)));
    }

    /// <summary>Takes an IPv6 packet that a guest sent.</summary>
    /// <param name="isPartial">Its checksum is still to be completed.</param>
    /// <returns>Why nothing follows from it; null where an advertisement does.</returns>
    public DropCause? Receive(ReadOnlySpan<byte> packet, MacAddress from, bool isPartial, long now)
    {
        if (!Ipv6View.TryParse(packet, out Ipv6View ip))
            return DropCause.Malformed;
        if (_settings is null || ip.NextHeader != IpProtocol.Icmpv6 || !Icmpv6View.TryParse(ip.Payload, out Icmpv6View icmp) || icmp.Type != Icmpv6Type.RouterSolicitation)
            return DropCause.NotForUs;
        if (!RouterSolicitation.IsValid(ip, icmp) || ip.Source.IsMulticast)
            return DropCause.Malformed;
        if (!isPartial && !icmp.HasValidChecksum(ip.Source, ip.Destination))
            return DropCause.BadChecksum;
        Ipv6Address source = ip.Source;
        long due = now + Time(random() * MaxDelay);
        if (source.IsUnspecified || (_waiting.Count >= MaxWaiting && _waiting.All(entry => entry.Address != source)))
            _nextToAll = Math.Min(_nextToAll, Math.Max(due, _lastToAll + Time(MinDelayBetween)));
        else if (_waiting.All(entry => entry.Address != source))
            _waiting.Add((due, from, source));
        else
            return DropCause.RateLimited;
        return null;
    }

    /// <summary>What is to be sent now.</summary>
    public List<Advertisement> Tick(long now)
    {
        var due = new List<Advertisement>();
        if (_nextToAll <= now)
        {
            due.Add(Make(Ipv6Address.AllNodes.GroupMac, Ipv6Address.AllNodes));
            _lastToAll = now;
            // Those who waited have heard it.
            _waiting.Clear();
            Schedule(now);
        }
        foreach ((_, MacAddress to, Ipv6Address address) in _waiting.Where(entry => entry.Due <= now))
            due.Add(Make(to, address));
        _waiting.RemoveAll(entry => entry.Due <= now);
        return due;
    }

    private void Schedule(long now)
    {
        _initialLeft = Math.Max(0, _initialLeft - 1);
        if (_initialLeft == 0)
            _withdrawn.Clear();
        if (_settings is null && _initialLeft == 0)
        {
            _nextToAll = long.MaxValue;
            return;
        }
        double interval = MinInterval + (random() * (MaxInterval - MinInterval));
        _nextToAll = now + Time(_initialLeft > 0 ? Math.Min(interval, MaxInitialInterval) : interval);
    }

    private Advertisement Make(MacAddress toMac, Ipv6Address to)
    {
        // Where nothing is advertised any more, the last settings say who takes back what.
        AdvertisementSettings told = _settings ?? _lastSettings!;
        var prefixes = _withdrawn.Select(prefix => new AdvertisedPrefix(prefix, 0, 0)).ToList();
        if (_settings is { } current)
            prefixes.Insert(0, new AdvertisedPrefix(current.Prefix, ValidLifetime, PreferredLifetime));
        bool leadsOut = _settings is { LeadsOut: true };
        return new Advertisement(toMac, to, told.HostIsThere ? HostAddress : Ipv6Address.LinkLocalOf(mac), new RouterAdvertisement
        {
            RouterLifetimeSeconds = leadsOut ? RouterLifetime : (ushort)0,
            Mtu = told.Mtu,
            SourceLinkLayerAddress = told.HostIsThere ? null : mac,
            Prefixes = prefixes,
            DnsServers = leadsOut ? told.DnsServers : [],
            DnsLifetimeSeconds = DnsLifetime,
        });
    }

    private static long Time(double seconds) => (long)(seconds * Second);
}
