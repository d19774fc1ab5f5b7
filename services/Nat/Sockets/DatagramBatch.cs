using System.Runtime.InteropServices;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Sockets;

/// <summary>
/// Room for the datagrams that one call takes off a socket (recvmmsg). One for all sockets of a thread: what it holds is used before
/// the next call. Memory that is never written to is never there, so 64 places of 64 KiB cost what small datagrams need.
/// </summary>
public sealed unsafe class DatagramBatch : IDisposable
{
    public const int Capacity = 64;

    private const int Room = 65536;
    private const int ControlLength = 64;

    private readonly byte* _memory;
    private readonly SysSocket.mmsghdr* _messages;
    private bool _disposed;

    public DatagramBatch()
    {
        int each = sizeof(SysSocket.mmsghdr) + sizeof(SysSocket.iovec) + sizeof(SysSocket.sockaddr_in) + ControlLength + Room;
        _memory = (byte*)NativeMemory.AlignedAlloc((nuint)(each * Capacity), 4096);
        byte* rooms = _memory;
        byte* controls = rooms + (Room * Capacity);
        _messages = (SysSocket.mmsghdr*)(controls + (ControlLength * Capacity));
        var vectors = (SysSocket.iovec*)(_messages + Capacity);
        var names = (SysSocket.sockaddr_in*)(vectors + Capacity);
        for (int i = 0; i < Capacity; i++)
        {
            vectors[i] = new SysSocket.iovec { iov_base = rooms + (i * Room), iov_len = Room };
            _messages[i] = default;
            _messages[i].msg_hdr.msg_iov = vectors + i;
            _messages[i].msg_hdr.msg_iovlen = 1;
            _messages[i].msg_hdr.msg_name = names + i;
            _messages[i].msg_hdr.msg_control = controls + (i * ControlLength);
        }
    }

    /// <summary>Takes what is there.</summary>
    /// <returns>Datagrams, or −errno.</returns>
    public int Receive(int fd)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        for (int i = 0; i < Capacity; i++)
        {
            _messages[i].msg_hdr.msg_namelen = (uint)sizeof(SysSocket.sockaddr_in);
            _messages[i].msg_hdr.msg_controllen = ControlLength;
        }
        int count = SysSocket.recvmmsg(fd, _messages, Capacity, SysSocket.MSG_DONTWAIT, null);
        return count >= 0 ? count : -Syscall.Errno;
    }

    public ReadOnlySpan<byte> Data(int index) => new(_messages[index].msg_hdr.msg_iov->iov_base, (int)_messages[index].msg_len);

    public Ipv4Address Source(int index) => Ipv4SocketAddress.AddressOf(*Name(index));

    public ushort Port(int index) => Ipv4SocketAddress.PortOf(*Name(index));

    /// <summary>Octets of each datagram, where the kernel put several of one sender together (UDP_GRO); else the length.</summary>
    public int SegmentSize(int index)
    {
        nint data = HostSocket.Find(_messages[index].msg_hdr, LinuxUdp.SOL_UDP, LinuxUdp.UDP_GRO);
        int size = data == 0 ? 0 : *(int*)data;
        int length = (int)_messages[index].msg_len;
        return size > 0 && size < length ? size : length;
    }

    public void Dispose()
    {
        if (_disposed)
            return;
        _disposed = true;
        NativeMemory.AlignedFree(_memory);
    }

    private SysSocket.sockaddr_in* Name(int index) => (SysSocket.sockaddr_in*)_messages[index].msg_hdr.msg_name;
}
