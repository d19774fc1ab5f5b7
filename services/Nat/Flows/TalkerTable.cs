using VNetMesh.Packets;

namespace VNetMesh.Nat.Flows;

/// <summary>What a guest, or all that have no place of their own, moved. The loop writes, anybody reads.</summary>
public sealed class Talker(string name)
{
    private ulong _toRemote;
    private ulong _toGuest;

    /// <summary>The guest's address, or "other".</summary>
    public string Name { get; } = name;

    internal ulong ToRemote { get => _toRemote; set => Volatile.Write(ref _toRemote, value); }
    internal ulong ToGuest { get => _toGuest; set => Volatile.Write(ref _toGuest, value); }

    /// <summary>Guests with flows that count here.</summary>
    internal int Guests { get; set; }

    /// <summary>When it was left by its last flow, as a number that grows.</summary>
    internal long LeftAt { get; set; }

    /// <summary>Octets of payload each way, as network.io.direction calls them.</summary>
    internal (long Octets, string Direction)[] Ways => [((long)Volatile.Read(ref _toRemote), "transmit"), ((long)Volatile.Read(ref _toGuest), "receive")];
}

/// <summary>
/// Traffic by guest, bounded: as many guests as there are places have one each while they have flows, and keep it afterwards until
/// another needs it; those that find none are summed as "other". A guest that comes back to a lost place counts from zero, as after
/// a restart.
/// </summary>
public sealed class TalkerTable
{
    /// <summary>Guests with a place of their own.</summary>
    public const int MaxPlaces = 50;

    private readonly Talker _other = new("other");
    private readonly Dictionary<Ipv4Address, Talker> _places = [];
    private volatile Talker[] _list = [];
    private long _clock;

    /// <summary>From any thread.</summary>
    public IReadOnlyList<Talker> List() => _list;

    /// <summary>Where a guest counts from its first flow on. On the loop's thread.</summary>
    internal Talker Begin(Ipv4Address guest)
    {
        if (!_places.TryGetValue(guest, out Talker? talker))
            talker = TryTake(guest) ?? _other;
        talker.Guests++;
        return talker;
    }

    /// <summary>The guest's last flow has ended. On the loop's thread.</summary>
    internal void End(Talker talker)
    {
        talker.Guests--;
        talker.LeftAt = ++_clock;
    }

    private Talker? TryTake(Ipv4Address guest)
    {
        if (_places.Count >= MaxPlaces && !TryFreeOne())
        {
            if (!_list.Contains(_other))
                _list = [.. _list, _other];
            return null;
        }
        var talker = new Talker(guest.ToString());
        _places.Add(guest, talker);
        _list = [.. _list, talker];
        return talker;
    }

    // The one that was left longest ago.
    private bool TryFreeOne()
    {
        Ipv4Address oldest = default;
        Talker? found = null;
        foreach ((Ipv4Address address, Talker talker) in _places)
        {
            if (talker.Guests == 0 && (found is null || talker.LeftAt < found.LeftAt))
                (oldest, found) = (address, talker);
        }
        if (found is null)
            return false;
        _places.Remove(oldest);
        _list = [.. _list.Where(talker => talker != found)];
        return true;
    }
}
