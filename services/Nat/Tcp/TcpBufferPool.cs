namespace VNetMesh.Nat.Tcp;

/// <summary>
/// Buffers for connections that have data in hand, so that an idle connection holds none. One thread.
/// Keeps a bounded number of free buffers of each size.
/// </summary>
public sealed class TcpBufferPool(int maxFree = 64)
{
    private readonly Dictionary<int, Stack<byte[]>> _free = [];

    /// <summary>Buffers handed out and not returned.</summary>
    public int Rented { get; private set; }

    /// <param name="size">A power of two.</param>
    public byte[] Rent(int size)
    {
        Rented++;
        return _free.TryGetValue(size, out Stack<byte[]>? stack) && stack.TryPop(out byte[]? buffer)
            ? buffer
            : GC.AllocateUninitializedArray<byte>(size);
    }

    public void Return(byte[] buffer)
    {
        Rented--;
        if (!_free.TryGetValue(buffer.Length, out Stack<byte[]>? stack))
            _free[buffer.Length] = stack = new Stack<byte[]>();
        if (stack.Count < maxFree)
            stack.Push(buffer);
    }
}
