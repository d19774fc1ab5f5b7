using System.Buffers.Binary;
using System.Runtime.InteropServices;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Links;

/// <summary>
/// A frame link over a connected Unix stream socket: each frame behind its length in four octets, big-endian, as QEMU's
/// `-netdev stream` has it (and passt and gvproxy). Nothing is left to the far side: no partial checksum, no large segment.
/// </summary>
/// <remarks>
/// Whoever holds a duplicate of the socket can go on with it after this process was killed, for the stream is left between
/// two frames at every moment. What is read stays in the socket (MSG_PEEK) until it has been forwarded; the worst that a kill
/// brings is that a few frames come twice. What is written are whole frames, in portions that the kernel takes whole or not at
/// all (unix_stream_sendmsg makes one buffer of up to 32 KiB). Frames larger than that, which only an MTU beyond 32 KiB
/// allows, are the exception.
/// </remarks>
public sealed unsafe class StreamSocketLink : IFrameLink
{
    /// <summary>Octets that wait for the far side at most; what comes then is refused as <see cref="SendStatus.Full"/>.</summary>
    public const int QueueCapacity = 1024 * 1024;

    private const int ReceiveRoom = 256 * 1024;
    private const int Portion = 32 * 1024;

    /// <summary>Of the header in front of a frame only four octets have room in the frame's prefix; the others lie in the frame before.</summary>
    private const int Headroom = VirtioNetHeader.Length - SocketQueue.PrefixLength;

    /// <summary>
    /// So often a frame may be found unfinished. A far side that sends it in crumbs would else fill the socket with them
    /// before it is whole; from then on its crumbs are taken off the socket as they come.
    /// </summary>
    private const int MaxLooks = 8;

    private readonly FileDescriptor _socket;
    private readonly FileDescriptor _epoll;
    private readonly SocketQueue _queue = new(QueueCapacity);
    private readonly byte* _receive = (byte*)NativeMemory.AlignedAlloc(Headroom + ReceiveRoom, 64);
    private readonly byte* _send = (byte*)NativeMemory.AlignedAlloc(FrameRecord.MaxLength, 64);
    private int _reserved = -1;
    private int _length;   // octets in the receive buffer
    private int _next;     // how far they have been given out
    private int _absorbed; // how many of them are off the socket already
    private int _looks;
    private bool _isWaitingForRoom;
    private bool _hungUp;  // the far side sends nothing more
    private bool _closed;
    private bool _disposed;

    /// <param name="socket">A connected SOCK_STREAM socket; owned from now on. See <see cref="Inspect"/>.</param>
    public StreamSocketLink(FileDescriptor socket)
    {
        _socket = socket;
        // The loop watches this set, in which the socket is watched by edges: half a frame, left in the socket, wakes nobody.
        _epoll = new FileDescriptor(Syscall.Check(SysEpoll.epoll_create1(SysEpoll.EPOLL_CLOEXEC), "epoll_create1"));
        Watch(SysEpoll.EPOLL_CTL_ADD);
    }

    public int Descriptor => _epoll.Number;

    public LinkOffloads Offloads => LinkOffloads.None;

    /// <summary>Which rule the far side broke; null while it has broken none.</summary>
    public string? Fault { get; private set; }

    /// <summary>Checks that a descriptor is a Unix stream socket that is connected.</summary>
    /// <returns>What is wrong with it, in plain words; null when all is well.</returns>
    public static string? Inspect(FileDescriptor descriptor)
    {
        const int SO_TYPE = 3, SO_DOMAIN = 39;
        if (SysSocket.GetOption(descriptor.Number, SysSocket.SOL_SOCKET, SO_DOMAIN) != SysSocket.AF_UNIX || SysSocket.GetOption(descriptor.Number, SysSocket.SOL_SOCKET, SO_TYPE) != SysSocket.SOCK_STREAM)
            return "the descriptor is not a Unix stream socket";
        byte none;
        nint peeked = SysSocket.recv(descriptor.Number, &none, 1, SysSocket.MSG_PEEK | SysSocket.MSG_DONTWAIT);
        return peeked >= 0 || Syscall.Errno == NativeErrno.EAGAIN ? null : "the socket is not connected";
    }

    public ReceiveStatus TryReceive(out ReadOnlySpan<byte> record, out TraceContext trace)
    {
        record = default;
        trace = default;
        if (_disposed || _closed)
            return ReceiveStatus.Closed;
        if (!HasWhole(out int frame) && Fault is null)
        {
            ReceiveStatus status = Refill();
            if (status != ReceiveStatus.Received)
                return status;
            HasWhole(out frame);
        }
        if (Fault is not null)
            return ReceiveStatus.Broken;
        byte* start = _receive + Headroom + _next + SocketQueue.PrefixLength - VirtioNetHeader.Length;
        var room = new Span<byte>(start, VirtioNetHeader.Length + frame);
        new VirtioNetHeader { BufferCount = 1 }.Write(room);
        _next += SocketQueue.PrefixLength + frame;
        record = room;
        return ReceiveStatus.Received;
    }

    public SendStatus TrySend(ReadOnlySpan<byte> record, in TraceContext trace)
    {
        if (_disposed || _closed)
            return SendStatus.Closed;
        if (record.Length is < FrameRecord.MinLength or > FrameRecord.MaxLength)
            return SendStatus.Refused;
        ReadOnlySpan<byte> frame = record[VirtioNetHeader.Length..];
        if (_queue.TryAdd(frame))
            return SendStatus.Sent;
        if (!_isWaitingForRoom)
            WriteOut();
        if (_closed)
            return SendStatus.Closed;
        return _queue.TryAdd(frame) ? SendStatus.Sent : SendStatus.Full;
    }

    public Span<byte> Reserve(int length)
    {
        _reserved = -1;
        if (_disposed || _closed || length is < FrameRecord.MinLength or > FrameRecord.MaxLength)
            return default;
        _reserved = length;
        return new Span<byte>(_send, length);
    }

    public SendStatus Commit(int length, in TraceContext trace)
    {
        if (length <= 0 || length > _reserved)
            return SendStatus.Refused;
        _reserved = -1;
        return TrySend(new ReadOnlySpan<byte>(_send, length), trace);
    }

    public void Flush()
    {
        if (!_disposed && !_closed && !_isWaitingForRoom)
            WriteOut();
    }

    public bool PrepareToSleep()
    {
        if (_disposed || _closed || Fault is not null)
            return true;
        // Takes the edges that have come. Whoever sleeps has looked at the socket since the last of them.
        SysEpoll.epoll_event edge;
        if (SysEpoll.epoll_wait(_epoll.Number, &edge, 1, 0) <= 0)
            return true;
        _hungUp |= (edge.events & (SysEpoll.EPOLLRDHUP | SysEpoll.EPOLLHUP | SysEpoll.EPOLLERR)) != 0;
        return false;
    }

    public void Dispose()
    {
        if (_disposed)
            return;
        _disposed = true;
        // A far side that broke the rules is told: a duplicate elsewhere would keep it waiting.
        if (Fault is not null)
            _ = SysSocket.shutdown(_socket.Number, SysSocket.SHUT_RDWR);
        _epoll.Dispose();
        _socket.Dispose();
        _queue.Dispose();
        NativeMemory.AlignedFree(_receive);
        NativeMemory.AlignedFree(_send);
    }

    /// <summary>Whether a whole frame is next in the buffer; a length that no frame has is the link's fault.</summary>
    private bool HasWhole(out int frame)
    {
        frame = 0;
        int left = _length - _next;
        if (left < SocketQueue.PrefixLength)
            return false;
        uint length = BinaryPrimitives.ReadUInt32BigEndian(new ReadOnlySpan<byte>(_receive + Headroom + _next, SocketQueue.PrefixLength));
        if (length is 0 or > FrameRecord.MaxFrameLength)
        {
            Fault = length == 0 ? "it sent a frame of length 0" : $"it sent the length {length}, which is more than any frame has";
            return false;
        }
        frame = (int)length;
        return left >= SocketQueue.PrefixLength + frame;
    }

    private ReceiveStatus Refill()
    {
        WriteOut();
        if (_closed || !TakeOff(_next - _absorbed))
            return End();
        // What was given out is gone from buffer and socket; of a frame that was absorbed in part, the part is still in front.
        if (_next > 0)
            _absorbed = _next = 0;
        nint count = Receive(_receive + Headroom + _absorbed, ReceiveRoom - _absorbed, SysSocket.MSG_PEEK);
        if (count == 0)
            return End();
        if (count < 0)
        {
            _length = _absorbed;
            return Syscall.Errno == NativeErrno.EAGAIN ? ReceiveStatus.Empty : End();
        }
        _length = _absorbed + (int)count;
        if (HasWhole(out _))
        {
            _looks = 0;
            return ReceiveStatus.Received;
        }
        if (Fault is not null)
            return ReceiveStatus.Broken;
        // The rest of it will never come.
        if (_hungUp)
            return End();
        if (++_looks >= MaxLooks)
            Absorb((int)count);
        return ReceiveStatus.Empty;
    }

    private ReceiveStatus End()
    {
        _closed = true;
        return ReceiveStatus.Closed;
    }

    private void Absorb(int count)
    {
        nint taken = Receive(_receive + Headroom + _absorbed, count, 0);
        if (taken > 0)
            _absorbed += (int)taken;
        _length = _absorbed;
    }

    /// <summary>Takes what has been forwarded off the socket; it lies there, for nobody else reads it.</summary>
    private bool TakeOff(int count)
    {
        while (count > 0)
        {
            nint taken = Receive(_receive + Headroom, count, 0);
            if (taken <= 0)
                return false;
            count -= (int)taken;
        }
        return true;
    }

    private nint Receive(byte* at, int length, int flags)
    {
        nint count;
        do
        {
            count = SysSocket.recv(_socket.Number, at, (nuint)length, flags | SysSocket.MSG_DONTWAIT);
        }
        while (count < 0 && Syscall.Errno == NativeErrno.EINTR);
        return count;
    }

    private void WriteOut()
    {
        while (!_queue.IsEmpty)
        {
            ReadOnlySpan<byte> portion = _queue.Peek(Portion);
            nint count;
            fixed (byte* octets = portion)
                count = SysSocket.send(_socket.Number, octets, (nuint)portion.Length, SysSocket.MSG_DONTWAIT | SysSocket.MSG_NOSIGNAL);
            if (count >= 0)
            {
                _queue.Advance((int)count);
                continue;
            }
            if (Syscall.Errno == NativeErrno.EINTR)
                continue;
            if (Syscall.Errno is NativeErrno.EAGAIN or NativeErrno.ENOBUFS or NativeErrno.ENOMEM)
                WaitForRoom(true);
            else
                _closed = true;
            return;
        }
        WaitForRoom(false);
    }

    private void WaitForRoom(bool isWaiting)
    {
        if (_isWaitingForRoom == isWaiting)
            return;
        _isWaitingForRoom = isWaiting;
        Watch(SysEpoll.EPOLL_CTL_MOD);
    }

    private void Watch(int operation)
    {
        var wanted = new SysEpoll.epoll_event { events = SysEpoll.EPOLLIN | SysEpoll.EPOLLRDHUP | SysEpoll.EPOLLET | (_isWaitingForRoom ? SysEpoll.EPOLLOUT : 0) };
        Syscall.Check(SysEpoll.epoll_ctl(_epoll.Number, operation, _socket.Number, &wanted), "epoll_ctl");
    }
}
