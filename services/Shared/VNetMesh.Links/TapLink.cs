using System.Runtime.InteropServices;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Links;

/// <summary>
/// A frame link over one queue of a TAP device with a virtio_net_hdr of 12 octets in front of each frame.
/// The kernel takes every offload in what is written to it, and cuts and completes where the far end needs it.
/// </summary>
public sealed unsafe class TapLink : IFrameLink
{
    private readonly FileDescriptor _tap;
    private readonly byte* _receive;
    private readonly byte* _send;
    private int _reserved = -1;
    private bool _disposed;

    /// <param name="tap">A non-blocking descriptor of a TAP queue; owned from now on. See <see cref="Inspect"/>.</param>
    /// <param name="offloads">What is to be sent to it as it is.</param>
    public TapLink(FileDescriptor tap, LinkOffloads offloads)
    {
        _tap = tap;
        Offloads = offloads;
        _receive = (byte*)NativeMemory.AlignedAlloc(FrameRecord.MaxLength + 1, 64);
        _send = (byte*)NativeMemory.AlignedAlloc(FrameRecord.MaxLength, 64);
    }

    public int Descriptor => _tap.Number;

    public LinkOffloads Offloads { get; }

    /// <summary>errno of the last send that was not <see cref="SendStatus.Sent"/>.</summary>
    public int SendError { get; private set; }

    /// <summary>
    /// Checks that a descriptor is what the fabric needs (TAP, no packet information, virtio_net_hdr of 12 octets) and
    /// makes it non-blocking.
    /// </summary>
    /// <param name="device">The device's name, as its own network namespace has it.</param>
    /// <returns>What is wrong with it, in plain words; null when all is well.</returns>
    public static string? Inspect(FileDescriptor descriptor, out string device)
    {
        device = "";
        IfTun.ifreq request = default;
        if (IfTun.ioctl(descriptor.Number, IfTun.TUNGETIFF, &request) < 0)
            return "the descriptor is not attached to a TAP device";
        device = request.GetName();
        const short Needed = IfTun.IFF_TAP | IfTun.IFF_NO_PI | IfTun.IFF_VNET_HDR;
        if ((request.ifr_flags & Needed) != Needed)
            return $"the device {device} must be made with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR";
        int headerSize = 0;
        if (IfTun.ioctl(descriptor.Number, IfTun.TUNGETVNETHDRSZ, &headerSize) < 0 || headerSize != VirtioNetHeader.Length)
            return $"the device {device} must have a virtio_net_hdr of {VirtioNetHeader.Length} octets (TUNSETVNETHDRSZ)";
        Fcntl.SetNonBlocking(descriptor.Number);
        return null;
    }

    public ReceiveStatus TryReceive(out ReadOnlySpan<byte> record, out TraceContext trace)
    {
        trace = default;
        record = default;
        if (_disposed)
            return ReceiveStatus.Closed;
        nint length;
        do
        {
            length = Unistd.read(_tap.Number, _receive, FrameRecord.MaxLength + 1);
        }
        while (length < 0 && Syscall.Errno == NativeErrno.EINTR);
        if (length < 0)
            return Syscall.Errno == NativeErrno.EAGAIN ? ReceiveStatus.Empty : ReceiveStatus.Closed;
        if (length == 0)
            return ReceiveStatus.Closed;
        // The kernel fills the ten octets of the old header and leaves num_buffers as it was.
        if (length >= VirtioNetHeader.Length)
            ((VirtioNetHeader*)_receive)->BufferCount = 1;
        record = new ReadOnlySpan<byte>(_receive, (int)length);
        return ReceiveStatus.Received;
    }

    public SendStatus TrySend(ReadOnlySpan<byte> record, in TraceContext trace)
    {
        if (_disposed)
            return SendStatus.Closed;
        fixed (byte* octets = record)
            return Write(octets, record.Length);
    }

    public Span<byte> Reserve(int length)
    {
        _reserved = -1;
        if (_disposed || length is <= 0 or > FrameRecord.MaxLength)
            return default;
        _reserved = length;
        return new Span<byte>(_send, length);
    }

    public SendStatus Commit(int length, in TraceContext trace)
    {
        if (_disposed)
            return SendStatus.Closed;
        if (length <= 0 || length > _reserved)
            return SendStatus.Refused;
        _reserved = -1;
        return Write(_send, length);
    }

    public void Flush()
    {
    }

    public bool PrepareToSleep() => true;

    public void Dispose()
    {
        if (_disposed)
            return;
        _disposed = true;
        _tap.Dispose();
        NativeMemory.AlignedFree(_receive);
        NativeMemory.AlignedFree(_send);
    }

    private SendStatus Write(byte* octets, int length)
    {
        nint written;
        do
        {
            written = Unistd.write(_tap.Number, octets, (nuint)length);
        }
        while (written < 0 && Syscall.Errno == NativeErrno.EINTR);
        if (written >= 0)
            return SendStatus.Sent;
        SendError = Syscall.Errno;
        return SendError switch
        {
            NativeErrno.EAGAIN or NativeErrno.ENOBUFS or NativeErrno.ENOMEM => SendStatus.Full,
            // tun_chr_write_iter: the queue is detached, or its device is gone.
            NativeErrno.EBADFD or NativeErrno.EBADF or NativeErrno.ENODEV => SendStatus.Closed,
            // EIO: the device is not up. EINVAL: the kernel finds the header or the frame malformed.
            _ => SendStatus.Refused,
        };
    }
}
