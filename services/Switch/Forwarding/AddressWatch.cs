using VNetMesh.Packets;

namespace VNetMesh.Switch.Forwarding;

/// <summary>An IPv4 address that two stations claim.</summary>
/// <param name="Port">Where <paramref name="Mac"/> was seen, e.g. "networks/vmnet0/ports/web1".</param>
public sealed record AddressConflict(Ipv4Address Address, MacAddress Mac, string Port, MacAddress OtherMac, string OtherPort);

/// <summary>
/// Notices addresses that two stations have, by what they say of themselves in ARP (RFC 5227, section 2.4). One station that takes
/// over from another is no conflict: it is one when the first speaks again, within ten minutes. Bounded, and of one thread;
/// <see cref="Conflicts"/> and <see cref="Count"/> may be read from any.
/// </summary>
public sealed class AddressWatch
{
    public const int MaxAddresses = 1024;
    public const int MaxConflicts = 16;

    /// <summary>Microseconds within which claims belong together, and for which a conflict is told after its last sign.</summary>
    public const long Window = 600_000_000;

    private readonly Dictionary<uint, Claim> _claims = [];
    private readonly Dictionary<uint, (AddressConflict Conflict, long LastSign)> _conflicts = [];
    private AddressConflict[] _published = [];
    private long _nextSweep;
    private long _count;

    /// <summary>Those that there are signs of.</summary>
    public IReadOnlyList<AddressConflict> Conflicts => Volatile.Read(ref _published);

    /// <summary>Signs of conflicts since the start.</summary>
    public long Count => Volatile.Read(ref _count);

    /// <param name="frame">An ARP frame, without a VLAN tag.</param>
    /// <param name="port">Where it came from.</param>
    /// <param name="now">Microseconds.</param>
    /// <returns>A conflict that was not known before; else null.</returns>
    public AddressConflict? Observe(ReadOnlySpan<byte> frame, string port, long now)
    {
        // RFC 826: hardware type, protocol type and their lengths; sender's MAC at 8, sender's address at 14 behind the Ethernet header.
        ReadOnlySpan<byte> arp = frame[EthernetView.HeaderLength..];
        if (arp.Length < 28 || !arp[..6].SequenceEqual(EthernetIpv4))
            return null;
        MacAddress mac = MacAddress.Read(arp[8..]);
        Ipv4Address address = Ipv4Address.Read(arp[14..]);
        // A probe claims nothing (RFC 5227, section 1.1).
        if (address.Value == 0 || mac.IsMulticast || mac.IsZero)
            return null;
        if (now >= _nextSweep)
            Sweep(now);
        return Claimed(address, mac, port, now);
    }

    private static ReadOnlySpan<byte> EthernetIpv4 => [0, 1, 8, 0, 6, 4];

    private AddressConflict? Claimed(Ipv4Address address, MacAddress mac, string port, long now)
    {
        if (!_claims.TryGetValue(address.Value, out Claim claim))
        {
            // A table that is full of others' claims notices nothing new until they have aged.
            if (_claims.Count < MaxAddresses)
                _claims.Add(address.Value, new Claim(mac, port, now, default, "", 0));
            return null;
        }
        if (claim.Mac == mac)
        {
            _claims[address.Value] = claim with { Port = port, Time = now };
            return null;
        }
        _claims[address.Value] = new Claim(mac, port, now, claim.Mac, claim.Port, claim.Time);
        bool isBack = claim.EarlierMac == mac && now - claim.EarlierTime < Window;
        return isBack ? Found(new AddressConflict(address, mac, port, claim.Mac, claim.Port), now) : null;
    }

    private AddressConflict? Found(AddressConflict conflict, long now)
    {
        Volatile.Write(ref _count, _count + 1);
        bool isKnown = _conflicts.ContainsKey(conflict.Address.Value);
        if (!isKnown && _conflicts.Count >= MaxConflicts)
            return null;
        _conflicts[conflict.Address.Value] = (isKnown ? _conflicts[conflict.Address.Value].Conflict : conflict, now);
        if (isKnown)
            return null;
        Publish();
        return conflict;
    }

    private void Sweep(long now)
    {
        _nextSweep = now + (Window / 10);
        foreach (uint address in _claims.Where(pair => now - pair.Value.Time >= Window).Select(pair => pair.Key).ToList())
            _claims.Remove(address);
        foreach (uint address in _conflicts.Where(pair => now - pair.Value.LastSign >= Window).Select(pair => pair.Key).ToList())
            _conflicts.Remove(address);
        Publish();
    }

    private void Publish() => Volatile.Write(ref _published, [.. _conflicts.Values.Select(entry => entry.Conflict)]);

    private readonly record struct Claim(MacAddress Mac, string Port, long Time, MacAddress EarlierMac, string EarlierPort, long EarlierTime);
}
