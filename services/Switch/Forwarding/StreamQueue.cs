using System.Runtime.InteropServices;
using VNetMesh.Links;

namespace VNetMesh.Switch.Forwarding;

/// <summary>
/// A bounded queue of records from one thread to another, in memory of this process: the ring, with a bound on the number
/// of records beside that on octets. One side produces, the other consumes; neither allocates.
/// </summary>
internal sealed unsafe class StreamQueue : IDisposable
{
    private readonly int _maxRecords;
    private byte* _memory;
    private long _sent;
    private long _taken;

    /// <param name="capacity">Octets: a power of two, 128 KiB to 64 MiB. Pages that are never written to cost nothing.</param>
    public StreamQueue(int capacity, int maxRecords)
    {
        _maxRecords = maxRecords;
        _memory = (byte*)NativeMemory.AlignedAlloc((nuint)Ring.SizeOf(capacity), 64);
        NativeMemory.Clear(_memory, Ring.HeaderLength);
        Producer = new Ring(_memory, capacity);
        Consumer = new Ring(_memory, capacity);
    }

    /// <summary>The producer's side alone may use it.</summary>
    public Ring Producer { get; }

    /// <summary>The consumer's side alone may use it.</summary>
    public Ring Consumer { get; }

    /// <summary>Room for a record; empty when there is none now. Producer's side.</summary>
    public Span<byte> Reserve(int length) => _sent - Volatile.Read(ref _taken) >= _maxRecords ? default : Producer.Reserve(length);

    /// <summary>All that was put here has been taken. Producer's side.</summary>
    public bool IsDrained => Volatile.Read(ref _taken) == _sent;

    public bool Commit(int length, in TraceContext trace)
    {
        if (!Producer.Commit(length, trace))
            return false;
        _sent++;
        return true;
    }

    /// <summary>The next record, valid until the next call. Consumer's side.</summary>
    public ReceiveStatus TryTake(out ReadOnlySpan<byte> record, out TraceContext trace)
    {
        ReceiveStatus status = Consumer.TryTake(out record, out trace);
        if (status == ReceiveStatus.Received)
            Volatile.Write(ref _taken, _taken + 1);
        return status;
    }

    /// <summary>Frees the memory; neither side may use the queue from now on.</summary>
    public void Dispose()
    {
        NativeMemory.AlignedFree(_memory);
        _memory = null;
    }
}
