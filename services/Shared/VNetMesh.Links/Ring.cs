using System.Runtime.CompilerServices;
using VNetMesh.Native;

namespace VNetMesh.Links;

/// <summary>
/// A single-producer, single-consumer ring of records in shared memory, and the far side is not trusted.
///
/// Layout, all in the machine's byte order, each group on a cache line of its own:
/// <code>
///    0  produced   u64  octets ever published; only the producer writes it
///   64  consumed   u64  octets ever released; only the consumer writes it
///  128  consumer sleeps  u32  1: the consumer wants a doorbell when something is published
///  192  producer waits   u32  1: the producer wants a doorbell when room is made
///  256  records …
/// </code>
/// A record is a header of 32 octets and its payload, begins at a multiple of 64 and never wraps: where it
/// would, a record of length <see cref="WrapMark"/> sends the consumer back to the start.
/// <code>
///  0 length u32 | 4 flags u32 | 8 trace id 16 | 24 span id 8 | 32 payload …
/// </code>
/// Each side keeps its own index privately and only ever publishes it; the other side's index and every
/// length are input from another process: they are read once and checked, and a value out of range ends
/// the link (<see cref="Fault"/>), never the process. A producer that dies in the middle of a record has
/// not published it, so it was never there.
/// </summary>
public sealed unsafe class Ring
{
    /// <summary>Octets in front of the records.</summary>
    public const int HeaderLength = 256;

    /// <summary>Octets in front of a record's payload.</summary>
    public const int RecordHeaderLength = 32;

    private const int ProducedOffset = 0;
    private const int ConsumedOffset = 64;
    private const int ConsumerSleepsOffset = 128;
    private const int ProducerWaitsOffset = 192;
    private const int Alignment = 64;
    private const uint WrapMark = 0xFFFF_FFFF;
    private const uint FlagTrace = 1;
    private const uint FlagSampled = 2;

    private readonly byte* _header;
    private readonly byte* _records;
    private readonly ulong _capacity;

    // The producer's side.
    private ulong _produced;
    private ulong _consumedSeen;
    private uint _reservedPadding;
    private int _reservedLength = -1;
    private ulong _awaitedRoom;
    private ulong _producedTold;

    // The consumer's side.
    private ulong _consumed;
    private ulong _producedSeen;
    private uint _unreleased;
    private ulong _consumedTold;

    /// <summary>Both sides begin at index zero: they open a ring once, when it is new, and believe nothing that they find in it.</summary>
    /// <param name="memory">Start of the ring, at a multiple of 64, <see cref="SizeOf"/> octets long, zero at first.</param>
    /// <param name="capacity">Octets for records: a power of two, 256 KiB to 64 MiB.</param>
    public Ring(byte* memory, int capacity)
    {
        ThrowIfBadCapacity(capacity);
        _header = memory;
        _records = memory + HeaderLength;
        _capacity = (ulong)capacity;
    }

    /// <summary>How the far side broke the rules; null while it has not.</summary>
    public string? Fault { get; private set; }

    public static int SizeOf(int capacity) => HeaderLength + capacity;

    /// <summary>
    /// A power of two from 256 KiB to 64 MiB. Half of that would not do: the largest record and the room skipped in front
    /// of it, when it must not wrap, are together more than 128 KiB, and such a record would wait for ever.
    /// </summary>
    public static bool IsGoodCapacity(int capacity) => capacity is >= 256 * 1024 and <= 64 * 1024 * 1024 && (capacity & (capacity - 1)) == 0;

    /// <exception cref="ArgumentOutOfRangeException">See <see cref="IsGoodCapacity"/>.</exception>
    public static void ThrowIfBadCapacity(int capacity)
    {
        if (!IsGoodCapacity(capacity))
            throw new ArgumentOutOfRangeException(nameof(capacity), capacity, "a ring's capacity is a power of two from 256 KiB to 64 MiB");
    }

    /// <summary>Room for a payload of that many octets; empty when there is none now.</summary>
    public Span<byte> Reserve(int length)
    {
        _reservedLength = -1;
        if (Fault is not null || length <= 0 || length > FrameRecord.MaxLength)
            return default;
        ulong needed = Round((uint)length + RecordHeaderLength);
        ulong offset = _produced & (_capacity - 1);
        ulong toEnd = _capacity - offset;
        ulong padding = needed > toEnd ? toEnd : 0;
        if (!HasRoom(needed + padding))
        {
            _awaitedRoom = needed + padding;
            return default;
        }
        _reservedPadding = (uint)padding;
        _reservedLength = length;
        return new Span<byte>(_records + (padding != 0 ? 0 : offset) + RecordHeaderLength, length);
    }

    /// <summary>Publishes the first octets of what was reserved.</summary>
    public bool Commit(int length, in TraceContext trace)
    {
        if (_reservedLength < 0 || length <= 0 || length > _reservedLength)
            return false;
        _reservedLength = -1;
        ulong offset = _produced & (_capacity - 1);
        if (_reservedPadding != 0)
        {
            Unsafe.WriteUnaligned(_records + offset, WrapMark);
            offset = 0;
        }
        byte* record = _records + offset;
        Unsafe.WriteUnaligned(record, (uint)length);
        Unsafe.WriteUnaligned(record + 4, trace.IsPresent ? trace.IsSampled ? FlagTrace | FlagSampled : FlagTrace : 0u);
        if (trace.IsPresent)
        {
            Unsafe.WriteUnaligned(record + 8, trace.TraceIdHigh);
            Unsafe.WriteUnaligned(record + 16, trace.TraceIdLow);
            Unsafe.WriteUnaligned(record + 24, trace.SpanId);
        }
        _produced += _reservedPadding + Round((uint)length + RecordHeaderLength);
        Volatile.Write(ref At(ProducedOffset), _produced);
        return true;
    }

    /// <summary>How far the consumer is, in octets, and how much it has not released yet. Producer's side.</summary>
    public (ulong Taken, ulong Pending) Progress
    {
        get
        {
            if (_produced != _consumedSeen && Fault is null)
                ReadConsumed();
            return (_consumedSeen, Fault is null ? _produced - _consumedSeen : 0);
        }
    }

    /// <summary>Octets published that the consumer has not released yet. Consumer's side.</summary>
    public ulong Waiting => Fault is null && (ReadProduced() || Fault is null) ? _producedSeen - _consumed : 0;

    /// <summary>True once after something was published while the consumer slept: ring its doorbell.</summary>
    public bool TakeConsumerDoorbell()
    {
        // One look after each publication is enough: a consumer that was awake then sees it before it sleeps. To look again would wake
        // a consumer for nothing, which does the same in turn when it is woken: two idle sides would keep each other awake for ever.
        if (_producedTold == _produced)
            return false;
        _producedTold = _produced;
        return TakeFlag(ConsumerSleepsOffset);
    }

    /// <summary>After a reservation that found no room: asks for a doorbell when room is made. False: there is room now.</summary>
    public bool WaitForRoom()
    {
        Interlocked.Exchange(ref FlagAt(ProducerWaitsOffset), 1);
        return !HasRoom(_awaitedRoom);
    }

    /// <summary>
    /// True once after the room that a reservation did not find has been made; until then it keeps the doorbell asked
    /// for, which a smaller release may have used up.
    /// </summary>
    public bool TakeRoom()
    {
        if (_awaitedRoom == 0 || Fault is not null || WaitForRoom())
            return false;
        _awaitedRoom = 0;
        return true;
    }

    /// <summary>Releases the record taken before, and takes the next. It stays valid until the next call.</summary>
    public ReceiveStatus TryTake(out ReadOnlySpan<byte> payload, out TraceContext trace)
    {
        payload = default;
        trace = default;
        Release();
        while (Fault is null)
        {
            if (_consumed == _producedSeen && !ReadProduced())
                return Fault is null ? ReceiveStatus.Empty : ReceiveStatus.Broken;
            ulong available = _producedSeen - _consumed;
            ulong offset = _consumed & (_capacity - 1);
            ulong toEnd = _capacity - offset;
            byte* record = _records + offset;
            uint length = Volatile.Read(ref Unsafe.AsRef<uint>(record));
            if (length == WrapMark)
            {
                if (toEnd > available || offset == 0)
                    return Break("wrap_out_of_range");
                Advance(toEnd);
                continue;
            }
            if (length is 0 or > FrameRecord.MaxLength)
                return Break("length_out_of_range");
            ulong size = Round(length + RecordHeaderLength);
            if (size > available || size > toEnd)
                return Break("record_out_of_range");
            uint flags = Unsafe.ReadUnaligned<uint>(record + 4);
            if ((flags & FlagTrace) != 0)
                trace = new TraceContext(Unsafe.ReadUnaligned<ulong>(record + 8), Unsafe.ReadUnaligned<ulong>(record + 16), Unsafe.ReadUnaligned<ulong>(record + 24), (flags & FlagSampled) != 0);
            payload = new ReadOnlySpan<byte>(record + RecordHeaderLength, (int)length);
            _unreleased = (uint)size;
            return ReceiveStatus.Received;
        }
        return ReceiveStatus.Broken;
    }

    /// <summary>Gives the room of the record taken last back to the producer.</summary>
    public void Release()
    {
        if (_unreleased == 0)
            return;
        Advance(_unreleased);
        _unreleased = 0;
    }

    /// <summary>True once after room was made while the producer waited for it: ring its doorbell.</summary>
    public bool TakeProducerDoorbell()
    {
        if (_consumedTold == _consumed)
            return false;
        _consumedTold = _consumed;
        return TakeFlag(ProducerWaitsOffset);
    }

    /// <summary>Asks for a doorbell at the next record. False: one is there now.</summary>
    public bool PrepareToSleep()
    {
        Release();
        Interlocked.Exchange(ref FlagAt(ConsumerSleepsOffset), 1);
        if (Fault is null && (_consumed != _producedSeen || ReadProduced() || Fault is not null))
        {
            Volatile.Write(ref FlagAt(ConsumerSleepsOffset), 0);
            return false;
        }
        return true;
    }

    private static ulong Round(ulong length) => (length + (Alignment - 1)) & ~(ulong)(Alignment - 1);

    private bool HasRoom(ulong needed)
    {
        if (_capacity - (_produced - _consumedSeen) >= needed)
            return true;
        return ReadConsumed() && _capacity - (_produced - _consumedSeen) >= needed;
    }

    private bool ReadConsumed()
    {
        ulong consumed = Volatile.Read(ref At(ConsumedOffset));
        if (consumed - _consumedSeen > _produced - _consumedSeen || consumed % Alignment != 0)
        {
            Fault = "consumed_out_of_range";
            return false;
        }
        _consumedSeen = consumed;
        return true;
    }

    private bool ReadProduced()
    {
        ulong produced = Volatile.Read(ref At(ProducedOffset));
        if (produced - _consumed > _capacity || produced % Alignment != 0 || produced - _consumed < _producedSeen - _consumed)
        {
            Fault = "produced_out_of_range";
            return false;
        }
        _producedSeen = produced;
        return produced != _consumed;
    }

    private void Advance(ulong octets)
    {
        _consumed += octets;
        Volatile.Write(ref At(ConsumedOffset), _consumed);
    }

    private ReceiveStatus Break(string fault)
    {
        Fault = fault;
        return ReceiveStatus.Broken;
    }

    private bool TakeFlag(int offset)
    {
        // The index was published before; the flag must be read after it, on the other side the reverse.
        Interlocked.MemoryBarrier();
        ref uint flag = ref FlagAt(offset);
        return Volatile.Read(ref flag) != 0 && Interlocked.Exchange(ref flag, 0) != 0;
    }

    private ref ulong At(int offset) => ref Unsafe.AsRef<ulong>(_header + offset);

    private ref uint FlagAt(int offset) => ref Unsafe.AsRef<uint>(_header + offset);
}

/// <summary>The shared memory of two rings, one each way, mapped into this process.</summary>
public sealed unsafe class RingMemory : IDisposable
{
    private readonly nuint _length;
    private byte* _address;

    private RingMemory(FileDescriptor memory, int capacity, nint address, nuint length)
    {
        Descriptor = memory;
        Capacity = capacity;
        _address = (byte*)address;
        _length = length;
    }

    public FileDescriptor Descriptor { get; }

    public int Capacity { get; }

    /// <summary>Makes the memory, sealed so that nobody can shrink it under the other's feet.</summary>
    public static RingMemory Create(int capacity)
    {
        Ring.ThrowIfBadCapacity(capacity);
        var memory = new FileDescriptor(Syscall.Check(SysMman.memfd_create("vnetmesh-ring", SysMman.MFD_CLOEXEC | SysMman.MFD_ALLOW_SEALING), "memfd_create"));
        Syscall.Check(Unistd.ftruncate(memory.Number, 2L * Ring.SizeOf(capacity)), "ftruncate");
        Syscall.Check(Fcntl.fcntl(memory.Number, Fcntl.F_ADD_SEALS, Fcntl.F_SEAL_SHRINK | Fcntl.F_SEAL_GROW | Fcntl.F_SEAL_SEAL), "fcntl(F_ADD_SEALS)");
        return Map(memory, capacity);
    }

    /// <summary>Maps memory that the other side made; it must be of the right size and sealed against change, or reading it could kill this process.</summary>
    /// <param name="memory">Owned from now on.</param>
    /// <exception cref="InvalidDataException">The memory is not what it must be.</exception>
    /// <exception cref="SyscallException">It cannot be mapped.</exception>
    public static RingMemory Map(FileDescriptor memory, int capacity)
    {
        if (!Ring.IsGoodCapacity(capacity))
            throw new InvalidDataException($"a ring's capacity cannot be {capacity}");
        long length = 2L * Ring.SizeOf(capacity);
        int seals = Fcntl.fcntl(memory.Number, Fcntl.F_GET_SEALS, 0);
        if (seals < 0 || (seals & Fcntl.F_SEAL_SHRINK) == 0)
            throw new InvalidDataException("the ring's memory is not sealed against shrinking");
        if (Unistd.lseek(memory.Number, 0, Unistd.SEEK_END) != length)
            throw new InvalidDataException($"the ring's memory is not {length} octets");
        nint address = Syscall.Check(SysMman.mmap(0, (nuint)length, SysMman.PROT_READ | SysMman.PROT_WRITE, SysMman.MAP_SHARED, memory.Number, 0), "mmap");
        return new RingMemory(memory, capacity, address, (nuint)length);
    }

    /// <summary>Ring 0 goes from the one who made the memory to the other, ring 1 back.</summary>
    public Ring Open(int index)
    {
        ObjectDisposedException.ThrowIf(_address == null, this);
        return new Ring(_address + ((long)index * Ring.SizeOf(Capacity)), Capacity);
    }

    public void Dispose()
    {
        if (_address == null)
            return;
        _ = SysMman.munmap((nint)_address, _length);
        _address = null;
        Descriptor.Dispose();
    }
}

/// <summary>A frame link over a pair of rings with a doorbell each way.</summary>
public sealed class RingLink : IFrameLink
{
    private readonly RingMemory _memory;
    private readonly Ring _send;
    private readonly Ring _receive;
    private readonly FileDescriptor _ownDoorbell;
    private readonly FileDescriptor _farDoorbell;
    private bool _disposed;

    /// <param name="memory">Owned from now on.</param>
    /// <param name="isMaker">This side made the memory.</param>
    /// <param name="ownDoorbell">eventfd that wakes this side; owned from now on.</param>
    /// <param name="farDoorbell">eventfd that wakes the far side; owned from now on.</param>
    /// <param name="offloads">What the far side accepts.</param>
    public RingLink(RingMemory memory, bool isMaker, FileDescriptor ownDoorbell, FileDescriptor farDoorbell, LinkOffloads offloads)
    {
        _memory = memory;
        _send = memory.Open(isMaker ? 0 : 1);
        _receive = memory.Open(isMaker ? 1 : 0);
        _ownDoorbell = ownDoorbell;
        _farDoorbell = farDoorbell;
        Offloads = offloads;
    }

    public int Descriptor => _ownDoorbell.Number;

    public LinkOffloads Offloads { get; }

    /// <summary>How the far side broke the ring's rules; null while it has not.</summary>
    public string? Fault => _receive.Fault ?? _send.Fault;

    /// <summary>Octets that the far side has taken since the ring was made, and those that it has not taken yet.</summary>
    public (ulong Taken, ulong Pending) Progress => _disposed ? default : _send.Progress;

    public LinkOccupancy? Occupancy => _disposed ? null : new LinkOccupancy((double)_receive.Waiting / _memory.Capacity, (double)_send.Progress.Pending / _memory.Capacity);

    public ReceiveStatus TryReceive(out ReadOnlySpan<byte> record, out TraceContext trace)
    {
        if (!_disposed && _send.Fault is null)
            return _receive.TryTake(out record, out trace);
        record = default;
        trace = default;
        return _disposed ? ReceiveStatus.Closed : ReceiveStatus.Broken;
    }

    public SendStatus TrySend(ReadOnlySpan<byte> record, in TraceContext trace)
    {
        Span<byte> room = Reserve(record.Length);
        if (!room.IsEmpty)
        {
            record.CopyTo(room);
            return Commit(record.Length, trace);
        }
        if (_disposed || Fault is not null)
            return SendStatus.Closed;
        return record.Length is 0 or > FrameRecord.MaxLength ? SendStatus.Refused : SendStatus.Full;
    }

    public Span<byte> Reserve(int length)
    {
        if (_disposed || length is <= 0 or > FrameRecord.MaxLength)
            return default;
        Span<byte> room = _send.Reserve(length);
        // Asking for the doorbell may find that room was just made.
        if (room.IsEmpty && !_send.WaitForRoom())
            room = _send.Reserve(length);
        return room;
    }

    public SendStatus Commit(int length, in TraceContext trace)
    {
        if (_disposed || Fault is not null)
            return SendStatus.Closed;
        return _send.Commit(length, trace) ? SendStatus.Sent : SendStatus.Refused;
    }

    public void Flush()
    {
        if (_disposed)
            return;
        _receive.Release();
        bool published = _send.TakeConsumerDoorbell();
        bool released = _receive.TakeProducerDoorbell();
        if (published || released)
            SysEpoll.Signal(_farDoorbell.Number);
    }

    public bool PrepareToSleep()
    {
        if (_disposed)
            return true;
        // What the far side rings for from here on wakes this side again; what it rang for before is looked for now.
        SysEpoll.Drain(_ownDoorbell.Number);
        Flush();
        bool wasSound = Fault is null;
        bool nothingCame = _receive.PrepareToSleep();
        bool roomCame = _send.TakeRoom();
        return nothingCame && !roomCame && wasSound == Fault is null;
    }

    public void Dispose()
    {
        if (_disposed)
            return;
        _disposed = true;
        _memory.Dispose();
        _ownDoorbell.Dispose();
        _farDoorbell.Dispose();
    }
}
