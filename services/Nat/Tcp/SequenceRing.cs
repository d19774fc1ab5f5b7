using System.Numerics;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tcp;

/// <summary>
/// A circular buffer in which each octet lies where its sequence number says. It comes from the pool with the first
/// octet, grows by powers of two as far as it is needed, and goes back when it is empty: ten thousand
/// connections with a few octets each must not cost ten thousand full buffers.
/// </summary>
internal struct SequenceRing(TcpBufferPool pool, int capacity)
{
    /// <summary>Octets of the smallest buffer.</summary>
    public const int SmallestSize = 16 * 1024;

    private byte[]? _bytes;
    private int _lastSize = Math.Min(SmallestSize, capacity);

    public readonly int Capacity => capacity;

    /// <summary>Octets it can hold as it is now; 0: it holds no buffer.</summary>
    public readonly int Size => _bytes?.Length ?? 0;

    /// <summary>
    /// Makes it hold the octets from <paramref name="first"/>, the oldest still in use, up to that many behind it
    /// (at most the capacity).
    /// </summary>
    /// <returns>False: all connections together hold as much as they may; it is as it was.</returns>
    public bool Reserve(SequenceNumber first, int octets)
    {
        if (octets <= Size)
            return true;
        int smallest = Math.Min(SmallestSize, capacity);
        int needed = Math.Min(capacity, Math.Max(smallest, (int)BitOperations.RoundUpToPowerOf2((uint)octets)));
        // A connection that once needed much needs it again: no growing step by step the second time.
        int size = Math.Max(_lastSize, needed);
        if (!pool.Allows(size - Size))
        {
            if (needed > smallest && !pool.Allows(needed - Size))
            {
                pool.CountRefusal();
                return false;
            }
            size = needed;
        }
        byte[] grown = pool.Rent(size);
        byte[]? old = _bytes;
        _bytes = grown;
        _lastSize = size;
        if (old is null)
            return true;
        for (int done = 0; done < old.Length;)
        {
            int offset = Offset(first.Add(done), old.Length);
            int part = Math.Min(old.Length - done, old.Length - offset);
            Write(first.Add(done), old.AsSpan(offset, part));
            done += part;
        }
        pool.Return(old);
        return true;
    }

    /// <summary>The octets from a number on, as far as they lie in one piece.</summary>
    public readonly Span<byte> At(SequenceNumber first, int octets)
    {
        int offset = Offset(first, _bytes!.Length);
        return _bytes.AsSpan(offset, Math.Min(octets, _bytes.Length - offset));
    }

    /// <summary>Writes octets for which room was reserved.</summary>
    public readonly void Write(SequenceNumber first, ReadOnlySpan<byte> octets)
    {
        Span<byte> head = At(first, octets.Length);
        octets[..head.Length].CopyTo(head);
        octets[head.Length..].CopyTo(_bytes);
    }

    public void Release()
    {
        if (_bytes is null)
            return;
        pool.Return(_bytes);
        _bytes = null;
    }

    private static int Offset(SequenceNumber sequence, int size) => (int)(sequence.Value & (uint)(size - 1));
}
