using System.Runtime.InteropServices;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Links;

/// <summary>
/// A frame link over a Unix datagram socket: each frame a datagram, as QEMU's `-netdev dgram` has it. Nothing is left to the
/// far side: no partial checksum, no large segment. The kernel keeps frames apart, so that a duplicate can be gone on with at any moment.
/// </summary>
/// <remarks>
/// The socket need not be connected, nor stay so: whoever holds a duplicate connects it when the far side is there, and the link
/// never ends by itself. Without a far side what is sent is <see cref="SendStatus.Refused"/>. The kernel lets ten datagrams
/// wait (net.unix.max_dgram_qlen); more wait here.
/// </remarks>
public sealed unsafe class DatagramSocketLink : IFrameLink
{
    /// <summary>Octets that wait for the far side at most; what comes then is refused as <see cref="SendStatus.Full"/>.</summary>
    public const int QueueCapacity = 1024 * 1024;

    private readonly FileDescriptor _socket;
    private readonly FileDescriptor _epoll;
    private readonly SocketQueue _queue = new(QueueCapacity);
    private readonly byte* _receive = (byte*)NativeMemory.AlignedAlloc(FrameRecord.MaxLength + 1, 64);
    private readonly byte* _send = (byte*)NativeMemory.AlignedAlloc(FrameRecord.MaxLength, 64);
    private int _reserved = -1;
    private bool _isWaitingForRoom;
    private bool _disposed;

    /// <param name="socket">A bound SOCK_DGRAM socket; owned from now on. See <see cref="Inspect"/>.</param>
    public DatagramSocketLink(FileDescriptor socket)
    {
        _socket = socket;
        // The loop watches this set: so it wakes for room as well, when there was none.
        _epoll = new FileDescriptor(Syscall.Check(SysEpoll.epoll_create1(SysEpoll.EPOLL_CLOEXEC), "epoll_create1"));
        Watch(SysEpoll.EPOLL_CTL_ADD);
    }

    public int Descriptor => _epoll.Number;

    public LinkOffloads Offloads => LinkOffloads.None;

    /// <summary>Whether a descriptor is a Unix datagram socket.</summary>
    public static bool Inspect(FileDescriptor descriptor)
    {
        const int SO_TYPE = 3, SO_DOMAIN = 39;
        return SysSocket.GetOption(descriptor.Number, SysSocket.SOL_SOCKET, SO_DOMAIN) == SysSocket.AF_UNIX
            && SysSocket.GetOption(descriptor.Number, SysSocket.SOL_SOCKET, SO_TYPE) == SysSocket.SOCK_DGRAM;
    }

    public ReceiveStatus TryReceive(out ReadOnlySpan<byte> record, out TraceContext trace)
    {
        record = default;
        trace = default;
        if (_disposed)
            return ReceiveStatus.Closed;
        if (_isWaitingForRoom)
            WriteOut();
        nint count;
        do
        {
            // A datagram of no octets, or of more than a frame can have, makes a record that the switch counts as what it is.
            count = SysSocket.recv(_socket.Number, _receive + VirtioNetHeader.Length, FrameRecord.MaxLength + 1 - VirtioNetHeader.Length, SysSocket.MSG_DONTWAIT);
        }
        while (count < 0 && Syscall.Errno is NativeErrno.EINTR or NativeErrno.ECONNREFUSED or NativeErrno.ECONNRESET);
        if (count < 0)
            return Syscall.Errno == NativeErrno.EAGAIN ? ReceiveStatus.Empty : ReceiveStatus.Closed;
        var room = new Span<byte>(_receive, VirtioNetHeader.Length + (int)count);
        new VirtioNetHeader { BufferCount = 1 }.Write(room);
        record = room;
        return ReceiveStatus.Received;
    }

    public SendStatus TrySend(ReadOnlySpan<byte> record, in TraceContext trace)
    {
        if (_disposed)
            return SendStatus.Closed;
        if (record.Length is < FrameRecord.MinLength or > FrameRecord.MaxLength)
            return SendStatus.Refused;
        ReadOnlySpan<byte> frame = record[VirtioNetHeader.Length..];
        if (!_queue.IsEmpty)
            return _queue.TryAdd(frame) ? SendStatus.Sent : SendStatus.Full;
        return Send(frame) switch
        {
            Outcome.Sent => SendStatus.Sent,
            Outcome.NoRoom => Keep(frame),
            _ => SendStatus.Refused,
        };
    }

    public Span<byte> Reserve(int length)
    {
        _reserved = -1;
        if (_disposed || length is < FrameRecord.MinLength or > FrameRecord.MaxLength)
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
    }

    /// <summary>Readiness is told as long as there is something: nothing can be missed.</summary>
    public bool PrepareToSleep() => true;

    public void Dispose()
    {
        if (_disposed)
            return;
        _disposed = true;
        _epoll.Dispose();
        _socket.Dispose();
        _queue.Dispose();
        NativeMemory.AlignedFree(_receive);
        NativeMemory.AlignedFree(_send);
    }

    private enum Outcome
    {
        Sent,
        NoRoom,
        NobodyThere,
    }

    private SendStatus Keep(ReadOnlySpan<byte> frame)
    {
        WaitForRoom(true);
        return _queue.TryAdd(frame) ? SendStatus.Sent : SendStatus.Full;
    }

    private Outcome Send(ReadOnlySpan<byte> frame)
    {
        nint count;
        do
        {
            fixed (byte* octets = frame)
                count = SysSocket.send(_socket.Number, octets, (nuint)frame.Length, SysSocket.MSG_DONTWAIT | SysSocket.MSG_NOSIGNAL);
        }
        while (count < 0 && Syscall.Errno == NativeErrno.EINTR);
        if (count >= 0)
            return Outcome.Sent;
        return Syscall.Errno is NativeErrno.EAGAIN or NativeErrno.ENOBUFS or NativeErrno.ENOMEM ? Outcome.NoRoom : Outcome.NobodyThere;
    }

    private void WriteOut()
    {
        while (!_queue.IsEmpty)
        {
            ReadOnlySpan<byte> first = _queue.Peek(0);
            if (Send(first[SocketQueue.PrefixLength..]) == Outcome.NoRoom)
                return;
            // What waited for somebody who has gone is lost with it.
            _queue.Advance(first.Length);
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
        var wanted = new SysEpoll.epoll_event { events = SysEpoll.EPOLLIN | (_isWaitingForRoom ? SysEpoll.EPOLLOUT : 0) };
        Syscall.Check(SysEpoll.epoll_ctl(_epoll.Number, operation, _socket.Number, &wanted), "epoll_ctl");
    }
}
