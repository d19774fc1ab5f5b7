namespace VNetMesh.Nat.Tcp;

/// <summary>
/// Buffers for connections that have data in hand, so that an idle connection holds none. One thread. Keeps a bounded number of
/// free buffers of each size, and bounds what all connections together hold.
/// </summary>
/// <param name="maxFree">Free buffers of each size at the most.</param>
/// <param name="limit">Octets in use from which on no connection gets more than its smallest buffer, without which nothing would move.</param>
public sealed class TcpBufferPool(int maxFree = 64, long limit = long.MaxValue)
{
    /// <summary>Octets of free buffers at the most.</summary>
    public const long MaxFreeOctets = 32 * 1024 * 1024;

    private readonly Dictionary<int, Stack<byte[]>> _free = [];
    private long _freeOctets;

    /// <summary>Buffers handed out and not returned.</summary>
    public int Rented { get; private set; }

    /// <summary>Octets of them.</summary>
    public long Octets { get; private set; }

    /// <summary>Times that a connection did not get the buffer that it needed.</summary>
    public long Refusals { get; private set; }

    /// <summary>Whether that many octets more stay within the limit.</summary>
    public bool Allows(int octets) => Octets + octets <= limit;

    public void CountRefusal() => Refusals++;

    /// <param name="size">A power of two.</param>
    public byte[] Rent(int size)
    {
        Rented++;
        Octets += size;
        if (!_free.TryGetValue(size, out Stack<byte[]>? stack) || !stack.TryPop(out byte[]? buffer))
            return GC.AllocateUninitializedArray<byte>(size);
        _freeOctets -= size;
        return buffer;
    }

    public void Return(byte[] buffer)
    {
        Rented--;
        Octets -= buffer.Length;
        if (!_free.TryGetValue(buffer.Length, out Stack<byte[]>? stack))
            _free[buffer.Length] = stack = new Stack<byte[]>();
        if (stack.Count >= maxFree || _freeOctets + buffer.Length > MaxFreeOctets)
            return;
        stack.Push(buffer);
        _freeOctets += buffer.Length;
    }
}
