using System.Numerics;
using System.Security.Cryptography;
using VNetMesh.Packets;

namespace VNetMesh.Switch.Forwarding;

/// <summary>What became of an attempt to learn an address.</summary>
public enum LearnResult
{
    Known,
    Added,
    Moved,

    /// <summary>A bound is reached; where the address was known on another port, it stays there.</summary>
    Full,
}

/// <summary>
/// Which port an address was last seen on. Open addressing with linear probing, at most half full; deletion
/// shifts back, so there are no tombstones and a full turnover costs nothing later. The hash is keyed at
/// random: guests choose their addresses, and must not be able to choose collisions.
/// Time is in microseconds of any clock that never goes back.
/// </summary>
public sealed class MacTable
{
    private const ulong AddressMask = 0xFFFF_FFFF_FFFF;
    private const long SweepUnderPressure = 1_000_000;

    private readonly ulong _seed = BitConverter.ToUInt64(RandomNumberGenerator.GetBytes(8));
    private readonly ulong _multiplier = BitConverter.ToUInt64(RandomNumberGenerator.GetBytes(8)) | 1;
    private readonly int _bound;
    private readonly int _shift;
    private readonly Slot[] _slots;
    private int[] _perPort = new int[16];
    private long _lastSweep;

    /// <param name="bound">Addresses at most, 1 to 65536.</param>
    /// <param name="ageing">Microseconds without a frame after which an address is forgotten.</param>
    public MacTable(int bound, long ageing)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(bound, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(bound, 65536);
        _bound = bound;
        Ageing = ageing;
        int capacity = (int)BitOperations.RoundUpToPowerOf2((uint)bound * 2);
        _slots = new Slot[capacity];
        _shift = 64 - BitOperations.Log2((uint)capacity);
    }

    public long Ageing { get; set; }

    /// <summary>Addresses held, those included whose time is over but which no sweep has met yet.</summary>
    public int Count { get; private set; }

    /// <summary>Addresses held for a port.</summary>
    public int CountOf(int port) => port < _perPort.Length ? _perPort[port] : 0;

    /// <returns>The port of an address, or −1 when it is not known or its time is over.</returns>
    public int Find(MacAddress address, long now)
    {
        ref Slot slot = ref _slots[Locate(address)];
        return slot.IsEmpty || now - slot.LastSeen > Ageing ? -1 : slot.Port;
    }

    /// <param name="port">0 to 65534.</param>
    /// <param name="portBound">Addresses that the port may have.</param>
    public LearnResult Learn(MacAddress address, int port, int portBound, long now)
    {
        ref Slot slot = ref _slots[Locate(address)];
        if (!slot.IsEmpty && slot.Port == port)
        {
            slot.LastSeen = now;
            return LearnResult.Known;
        }
        if (!HasRoom(slot.IsEmpty, port, portBound))
        {
            // What has aged may stand in the way; but a flood of new addresses must not cause a flood of sweeps.
            if (now - _lastSweep < SweepUnderPressure)
                return LearnResult.Full;
            Sweep(now);
            slot = ref _slots[Locate(address)];
            if (!HasRoom(slot.IsEmpty, port, portBound))
                return LearnResult.Full;
        }
        LearnResult result = slot.IsEmpty ? LearnResult.Added : LearnResult.Moved;
        if (slot.IsEmpty)
            Count++;
        else
            _perPort[slot.Port]--;
        if (port >= _perPort.Length)
            Array.Resize(ref _perPort, Math.Max(port + 1, _perPort.Length * 2));
        _perPort[port]++;
        slot = new Slot(address, port, now);
        return result;
    }

    /// <summary>Forgets addresses whose time is over.</summary>
    public void Sweep(long now)
    {
        _lastSweep = now;
        for (int i = 0; Count > 0 && i < _slots.Length; i++)
        {
            // Deletion may shift another entry into this slot: look at it again.
            while (!_slots[i].IsEmpty && now - _slots[i].LastSeen > Ageing)
                RemoveAt(i);
        }
    }

    /// <summary>Forgets all addresses of a port.</summary>
    public void RemovePort(int port)
    {
        for (int i = 0; CountOf(port) > 0 && i < _slots.Length; i++)
        {
            while (!_slots[i].IsEmpty && _slots[i].Port == port)
                RemoveAt(i);
        }
    }

    /// <summary>Addresses whose time is not over, in no order.</summary>
    public IEnumerable<(MacAddress Address, int Port, long LastSeen)> Entries(long now)
    {
        foreach (Slot slot in _slots)
        {
            if (!slot.IsEmpty && now - slot.LastSeen <= Ageing)
                yield return (slot.Address, slot.Port, slot.LastSeen);
        }
    }

    private bool HasRoom(bool isNew, int port, int portBound) => CountOf(port) < portBound && (!isNew || Count < _bound);

    /// <summary>Where the address is, or the empty slot where it would go.</summary>
    private int Locate(MacAddress address)
    {
        int index = Home(address.Value);
        while (!_slots[index].IsEmpty && _slots[index].Address != address)
            index = (index + 1) & (_slots.Length - 1);
        return index;
    }

    private int Home(ulong address)
    {
        ulong mixed = (address ^ _seed) * 0x9E37_79B9_7F4A_7C15;
        mixed = (mixed ^ (mixed >> 32)) * _multiplier;
        return (int)((mixed ^ (mixed >> 29)) * 0xBF58_476D_1CE4_E5B9 >> _shift);
    }

    private void RemoveAt(int hole)
    {
        _perPort[_slots[hole].Port]--;
        Count--;
        int mask = _slots.Length - 1;
        for (int next = (hole + 1) & mask; !_slots[next].IsEmpty; next = (next + 1) & mask)
        {
            // An entry may fill the hole unless its home lies cyclically after the hole.
            int home = Home(_slots[next].Address.Value);
            if (((next - home) & mask) < ((next - hole) & mask))
                continue;
            _slots[hole] = _slots[next];
            hole = next;
        }
        _slots[hole] = default;
    }

    /// <summary>Sixteen octets: address in the low 48 bits, port + 1 in the high 16 (zero: empty), and the time.</summary>
    private struct Slot(MacAddress address, int port, long lastSeen)
    {
        private readonly ulong _key = (address.Value & AddressMask) | ((ulong)(port + 1) << 48);

        public long LastSeen = lastSeen;

        public readonly bool IsEmpty => _key >> 48 == 0;

        public readonly MacAddress Address => new(_key & AddressMask);

        public readonly int Port => (int)(_key >> 48) - 1;
    }
}
