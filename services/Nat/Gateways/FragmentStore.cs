using VNetMesh.Nat.Timing;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Gateways;

/// <summary>
/// Puts guests' fragmented packets together (RFC 791, 3.2), strictly bounded: so many packets at a time in all and per guest,
/// each for <see cref="LifeMicroseconds"/>. Fragments that overlap end the packet (as RFC 5722 says for IPv6): no
/// stack sends them in earnest.
/// </summary>
public sealed class FragmentStore(TimerQueue timers, DropCounters drops) : ITimerOwner
{
    public const int MaxPackets = 64;
    public const int MaxPacketsPerGuest = 16;
    public const long LifeMicroseconds = 30_000_000;

    private const int MaxPayload = 65535 - Ipv4Header.Length;
    private readonly Dictionary<Key, Assembly> _assemblies = [];
    private readonly Queue<Assembly> _byAge = new();
    private readonly Stack<Assembly> _spare = new();
    private LoopTimer? _timer;

    public int Count => _assemblies.Count;

    /// <summary>Adds a fragment. True: the packet is whole, valid until the next call.</summary>
    public bool TryAdd(in Ipv4View fragment, long now, out ReadOnlySpan<byte> packet)
    {
        packet = default;
        ReadOnlySpan<byte> payload = fragment.Payload;
        int offset = fragment.FragmentOffset;
        if (payload.IsEmpty || offset + payload.Length > MaxPayload || (fragment.MoreFragments && payload.Length % 8 != 0))
        {
            drops.Count(DropCause.FragmentMalformed);
            return false;
        }
        var key = new Key(fragment.Source, fragment.Destination, fragment.Identification, fragment.Protocol);
        if (!_assemblies.TryGetValue(key, out Assembly? assembly) && (assembly = Begin(key, now)) is null)
        {
            drops.Count(DropCause.FragmentStoreFull);
            return false;
        }
        switch (assembly.Add(payload, offset, fragment.MoreFragments))
        {
            case AddResult.Conflict:
                drops.Count(DropCause.FragmentOverlap);
                End(assembly);
                return false;
            case AddResult.Whole:
                packet = assembly.Finish(fragment);
                End(assembly);
                return true;
            default:
                return false;
        }
    }

    void ITimerOwner.OnTimer(long now)
    {
        while (_byAge.TryPeek(out Assembly? oldest) && (!oldest.IsLive || oldest.Expires <= now))
        {
            _byAge.Dequeue();
            if (oldest.IsLive)
            {
                drops.Count(DropCause.FragmentTimeout);
                End(oldest);
            }
            Recycle(oldest);
        }
        if (_byAge.TryPeek(out Assembly? next))
            timers.Set(_timer!, next.Expires);
    }

    private Assembly? Begin(in Key key, long now)
    {
        // Dead entries in front of the queue hold buffers; let go of them first.
        while (_byAge.TryPeek(out Assembly? oldest) && !oldest.IsLive)
            Recycle(_byAge.Dequeue());
        if (_byAge.Count >= MaxPackets || CountOf(key.Source) >= MaxPacketsPerGuest)
            return null;
        Assembly assembly = _spare.TryPop(out Assembly? spare) ? spare : new Assembly();
        assembly.Begin(key, now + LifeMicroseconds);
        _assemblies.Add(key, assembly);
        _byAge.Enqueue(assembly);
        _timer ??= new LoopTimer(this);
        if (_timer.Deadline == long.MaxValue)
            timers.Set(_timer, assembly.Expires);
        return assembly;
    }

    private int CountOf(Ipv4Address source)
    {
        int count = 0;
        foreach (Key key in _assemblies.Keys)
            count += key.Source == source ? 1 : 0;
        return count;
    }

    // The buffer stays with the dead entry until the queue passes it: the caller still reads the packet.
    private void End(Assembly assembly)
    {
        assembly.IsLive = false;
        _assemblies.Remove(assembly.Key);
    }

    private void Recycle(Assembly assembly) => _spare.Push(assembly);

    private readonly record struct Key(Ipv4Address Source, Ipv4Address Destination, ushort Identification, byte Protocol);

    private enum AddResult
    {
        More,
        Whole,
        Conflict,
    }

    private sealed class Assembly
    {
        private readonly byte[] _packet = new byte[65536];
        private readonly ulong[] _blocks = new ulong[65536 / 8 / 64];
        private int _received;
        private int _length; // zero until the last fragment has come

        public Key Key { get; private set; }
        public long Expires { get; private set; }
        public bool IsLive { get; set; }

        public void Begin(in Key key, long expires)
        {
            Key = key;
            Expires = expires;
            IsLive = true;
            _received = 0;
            _length = 0;
            Array.Clear(_blocks);
        }

        public AddResult Add(ReadOnlySpan<byte> payload, int offset, bool more)
        {
            int end = offset + payload.Length;
            if (_length != 0 && (end > _length || !more))
                return AddResult.Conflict;
            for (int block = offset / 8; block < (end + 7) / 8; block++)
            {
                ulong bit = 1UL << (block & 63);
                if ((_blocks[block >> 6] & bit) != 0)
                    return AddResult.Conflict;
                _blocks[block >> 6] |= bit;
            }
            if (!more)
                _length = end;
            payload.CopyTo(_packet.AsSpan(Ipv4Header.Length + offset));
            _received += payload.Length;
            if (_length != 0 && _received > _length)
                return AddResult.Conflict;
            return _length != 0 && _received == _length ? AddResult.Whole : AddResult.More;
        }

        /// <summary>Writes a header without options for the whole.</summary>
        public ReadOnlySpan<byte> Finish(in Ipv4View last)
        {
            new Ipv4Header(Key.Source, Key.Destination, Key.Protocol, _length)
            {
                Identification = Key.Identification,
                DontFragment = false,
                TimeToLive = last.TimeToLive,
                TypeOfService = last.TypeOfService,
            }.Write(_packet);
            return _packet.AsSpan(0, Ipv4Header.Length + _length);
        }
    }
}
