using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace VNetMesh.Links;

/// <summary>
/// A bounded queue of frames, each behind its length in four octets, big-endian: as they go down a stream socket. A frame
/// never wraps, so that what is at the front can be sent from where it lies. For one thread; does not allocate.
/// </summary>
internal sealed unsafe class SocketQueue : IDisposable
{
    public const int PrefixLength = 4;

    private readonly int _capacity;
    private byte* _memory;
    private int _head;
    private int _tail;

    /// <summary>Where the octets before the wrap end; meaningful while the tail is behind the head.</summary>
    private int _end;

    /// <summary>Octets from the head on that are sent already: a part of what is at the front.</summary>
    private int _sent;

    /// <param name="capacity">Octets. Pages that are never written to cost nothing.</param>
    public SocketQueue(int capacity)
    {
        _capacity = capacity;
        _memory = (byte*)NativeMemory.AlignedAlloc((nuint)capacity, 64);
    }

    public bool IsEmpty => _head == _tail;

    /// <returns>False: there is no room.</returns>
    public bool TryAdd(ReadOnlySpan<byte> frame)
    {
        int needed = PrefixLength + frame.Length;
        // The tail never catches up with the head from behind: that would look empty.
        if (_tail < _head)
        {
            if (needed >= _head - _tail)
                return false;
        }
        else if (needed > _capacity - _tail)
        {
            if (needed >= _head)
                return false;
            _end = _tail;
            _tail = 0;
        }
        BinaryPrimitives.WriteInt32BigEndian(new Span<byte>(_memory + _tail, PrefixLength), frame.Length);
        frame.CopyTo(new Span<byte>(_memory + _tail + PrefixLength, frame.Length));
        _tail += needed;
        return true;
    }

    /// <summary>What is next to be sent: as many whole frames as are within the limit (one at least), less what was sent of them.</summary>
    public ReadOnlySpan<byte> Peek(int limit)
    {
        if (IsEmpty)
            return default;
        int length = Run(limit);
        return new ReadOnlySpan<byte>(_memory + _head + _sent, length - _sent);
    }

    /// <summary>That many octets of what <see cref="Peek"/> gave are sent.</summary>
    public void Advance(int count)
    {
        _sent += count;
        while (!IsEmpty && _sent > 0)
        {
            int first = LengthAt(_head);
            if (_sent < first)
                return;
            _sent -= first;
            _head += first;
            if (_tail < _head && _head == _end)
                _head = 0;
        }
        if (_head == _tail)
            _head = _tail = 0;
    }

    public void Dispose()
    {
        NativeMemory.AlignedFree(_memory);
        _memory = null;
    }

    private int Run(int limit)
    {
        int end = _tail < _head ? _end : _tail;
        int length = LengthAt(_head);
        while (_head + length < end)
        {
            int next = LengthAt(_head + length);
            if (length + next > limit)
                break;
            length += next;
        }
        return length;
    }

    private int LengthAt(int offset) => PrefixLength + BinaryPrimitives.ReadInt32BigEndian(new ReadOnlySpan<byte>(_memory + offset, PrefixLength));
}
