using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Sockets;

/// <summary>An error that the host's kernel noted on a socket (IP_RECVERR), and the datagram that met it.</summary>
/// <param name="Offender">Who reported it; Any when the host itself did.</param>
/// <param name="Mtu">The next hop's, for "fragmentation needed"; else zero.</param>
/// <param name="DataLength">Octets of the datagram's payload that are quoted.</param>
public readonly record struct SocketError(int Errno, bool IsIcmp, byte Type, byte Code, uint Mtu, Ipv4Address Offender, Ipv4Address Destination, ushort DestinationPort, int DataLength);

/// <summary>Non-blocking sockets of the host: errors come back as errno, never as exceptions.</summary>
internal static unsafe class HostSocket
{
    private const int ControlLength = 256;

    /// <summary>A non-blocking socket, or null and errno.</summary>
    public static FileDescriptor? Open(int family, int type, int protocol, out int errno)
    {
        int fd = SysSocket.socket(family, type | SysSocket.SOCK_NONBLOCK | SysSocket.SOCK_CLOEXEC, protocol);
        errno = fd < 0 ? Syscall.Errno : 0;
        return fd < 0 ? null : new FileDescriptor(fd);
    }

    /// <returns>0 or errno; EINPROGRESS is what a TCP connect gives.</returns>
    public static int Connect(int fd, HostEndpoint endpoint)
    {
        fixed (byte* raw = endpoint.Raw.Span)
            return SysSocket.connect(fd, raw, (uint)endpoint.Raw.Length) == 0 ? 0 : Syscall.Errno;
    }

    /// <returns>0 or errno.</returns>
    public static int Bind(int fd, Ipv4Address address, int port)
    {
        SysSocket.sockaddr_in raw = Ipv4SocketAddress.Make(address, port);
        return SysSocket.bind(fd, &raw, (uint)sizeof(SysSocket.sockaddr_in)) == 0 ? 0 : Syscall.Errno;
    }

    /// <summary>The socket's pending error, taken away.</summary>
    public static int TakeError(int fd)
    {
        int error = 0;
        uint length = sizeof(int);
        return SysSocket.getsockopt(fd, SysSocket.SOL_SOCKET, SysSocket.SO_ERROR, &error, &length) == 0 ? error : Syscall.Errno;
    }

    /// <summary>Makes closing send a RST (socket(7), SO_LINGER of zero).</summary>
    public static void ResetOnClose(int fd)
    {
        var linger = new SysSocket.linger { l_onoff = 1, l_linger = 0 };
        _ = SysSocket.setsockopt(fd, SysSocket.SOL_SOCKET, SysSocket.SO_LINGER, &linger, (uint)sizeof(SysSocket.linger));
    }

    /// <summary>The socket's own address and port, in whichever family; null when it has none.</summary>
    public static HostEndpoint? LocalEndpoint(int fd)
    {
        byte* raw = stackalloc byte[28];
        uint length = 28;
        if (SysSocket.getsockname(fd, raw, &length) != 0)
            return null;
        int family = *(ushort*)raw;
        int port = (raw[2] << 8) | raw[3];
        return family switch
        {
            SysSocket.AF_INET => new HostEndpoint(Ipv4SocketAddress.AddressOf(*(SysSocket.sockaddr_in*)raw), port),
            SysSocket.AF_INET6 => new HostEndpoint(new System.Net.IPAddress(new ReadOnlySpan<byte>(raw + 8, 16)), port),
            _ => null,
        };
    }

    /// <returns>Octets sent, or −errno.</returns>
    public static int SendTo(int fd, ReadOnlySpan<byte> data, Ipv4Address address, int port)
    {
        SysSocket.sockaddr_in raw = Ipv4SocketAddress.Make(address, port);
        fixed (byte* bytes = data)
        {
            // An empty span has no address; the kernel wants one even for an empty datagram.
            byte none;
            nint sent = SysSocket.sendto(fd, bytes == null ? &none : bytes, (nuint)data.Length, SysSocket.MSG_NOSIGNAL, &raw, (uint)sizeof(SysSocket.sockaddr_in));
            return sent >= 0 ? (int)sent : -Syscall.Errno;
        }
    }

    /// <summary>Sends on a connected socket.</summary>
    /// <returns>Octets sent, or −errno.</returns>
    public static int Send(int fd, ReadOnlySpan<byte> data)
    {
        fixed (byte* bytes = data)
        {
            nint sent = SysSocket.send(fd, bytes, (nuint)data.Length, SysSocket.MSG_NOSIGNAL);
            return sent >= 0 ? (int)sent : -Syscall.Errno;
        }
    }

    /// <summary>Receives from a connected socket.</summary>
    /// <returns>Octets received, 0 at the end of a stream, or −errno.</returns>
    public static int Receive(int fd, Span<byte> room)
    {
        fixed (byte* bytes = room)
        {
            nint received = SysSocket.recv(fd, bytes, (nuint)room.Length, 0);
            return received >= 0 ? (int)received : -Syscall.Errno;
        }
    }

    /// <summary>Receives a datagram, who sent it and, where IP_RECVTTL is on, with which time to live it came.</summary>
    /// <returns>Octets received, or −errno.</returns>
    public static int ReceiveFrom(int fd, Span<byte> room, out Ipv4Address source, out ushort port, out byte timeToLive)
    {
        source = default;
        port = 0;
        timeToLive = 0;
        SysSocket.sockaddr_in name;
        byte* control = stackalloc byte[ControlLength];
        fixed (byte* bytes = room)
        {
            var vector = new SysSocket.iovec { iov_base = bytes, iov_len = (nuint)room.Length };
            var message = new SysSocket.msghdr
            {
                msg_name = &name,
                msg_namelen = (uint)sizeof(SysSocket.sockaddr_in),
                msg_iov = &vector,
                msg_iovlen = 1,
                msg_control = control,
                msg_controllen = ControlLength,
            };
            nint received = SysSocket.recvmsg(fd, &message, 0);
            if (received < 0)
                return -Syscall.Errno;
            source = Ipv4SocketAddress.AddressOf(name);
            port = Ipv4SocketAddress.PortOf(name);
            nint data = Find(message, SysSocket.SOL_IP, SysSocket.IP_TTL);
            if (data != 0)
                timeToLive = (byte)*(int*)data;
            return (int)received;
        }
    }

    /// <summary>Takes the oldest error off the socket's queue, with the payload of the datagram that met it. False: none is there.</summary>
    public static bool TryTakeQueuedError(int fd, Span<byte> room, out SocketError error)
    {
        error = default;
        SysSocket.sockaddr_in destination = default;
        byte* control = stackalloc byte[ControlLength];
        fixed (byte* bytes = room)
        {
            var vector = new SysSocket.iovec { iov_base = bytes, iov_len = (nuint)room.Length };
            var message = new SysSocket.msghdr
            {
                msg_name = &destination,
                msg_namelen = (uint)sizeof(SysSocket.sockaddr_in),
                msg_iov = &vector,
                msg_iovlen = 1,
                msg_control = control,
                msg_controllen = ControlLength,
            };
            nint received = SysSocket.recvmsg(fd, &message, SysSocket.MSG_ERRQUEUE);
            if (received < 0)
                return false;
            nint data = Find(message, SysSocket.SOL_IP, SysSocket.IP_RECVERR);
            if (data == 0)
                return true;
            var extended = (LinuxErrqueue.sock_extended_err*)data;
            var offender = (SysSocket.sockaddr_in*)(extended + 1);
            bool isIcmp = extended->ee_origin == LinuxErrqueue.SO_EE_ORIGIN_ICMP;
            error = new SocketError((int)extended->ee_errno, isIcmp, extended->ee_type, extended->ee_code, extended->ee_info,
                isIcmp && offender->sin_family == SysSocket.AF_INET ? Ipv4SocketAddress.AddressOf(*offender) : default,
                Ipv4SocketAddress.AddressOf(destination), Ipv4SocketAddress.PortOf(destination), (int)received);
            return true;
        }
    }

    /// <summary>Sends many datagrams of one size to one address in one call (UDP_SEGMENT); the last may be shorter.</summary>
    /// <returns>Octets sent, or −errno: EINVAL and EIO where the kernel or the way there cannot.</returns>
    public static int SendSegments(int fd, ReadOnlySpan<byte> data, int segment, Ipv4Address address, int port)
    {
        SysSocket.sockaddr_in name = Ipv4SocketAddress.Make(address, port);
        int header = sizeof(SysSocket.cmsghdr), room = header + 8;
        byte* control = stackalloc byte[room];
        *(SysSocket.cmsghdr*)control = new SysSocket.cmsghdr { cmsg_len = (nuint)(header + sizeof(ushort)), cmsg_level = LinuxUdp.SOL_UDP, cmsg_type = LinuxUdp.UDP_SEGMENT };
        *(ulong*)(control + header) = 0;
        *(ushort*)(control + header) = (ushort)segment;
        fixed (byte* bytes = data)
        {
            var vector = new SysSocket.iovec { iov_base = bytes, iov_len = (nuint)data.Length };
            var message = new SysSocket.msghdr
            {
                msg_name = &name,
                msg_namelen = (uint)sizeof(SysSocket.sockaddr_in),
                msg_iov = &vector,
                msg_iovlen = 1,
                msg_control = control,
                msg_controllen = (nuint)room,
            };
            nint sent = SysSocket.sendmsg(fd, &message, SysSocket.MSG_NOSIGNAL);
            return sent >= 0 ? (int)sent : -Syscall.Errno;
        }
    }

    /// <summary>The control message of that level and type, as the address of its data; 0 when there is none.</summary>
    internal static nint Find(in SysSocket.msghdr message, int level, int type)
    {
        var at = (byte*)message.msg_control;
        byte* end = at + message.msg_controllen;
        while (at + sizeof(SysSocket.cmsghdr) <= end)
        {
            var header = (SysSocket.cmsghdr*)at;
            if (header->cmsg_len < (nuint)sizeof(SysSocket.cmsghdr) || at + header->cmsg_len > end)
                return 0;
            if (header->cmsg_level == level && header->cmsg_type == type)
                return (nint)(at + sizeof(SysSocket.cmsghdr));
            at += ((int)header->cmsg_len + 7) & ~7;
        }
        return 0;
    }
}

/// <summary>How errors of the host's sockets are told to a guest.</summary>
internal static class SocketErrors
{
    /// <summary>The code of "destination unreachable" for an errno; null: nothing is to be told.</summary>
    public static byte? UnreachableCode(int errno) => errno switch
    {
        NativeErrno.ENETUNREACH or NativeErrno.ENETDOWN => Icmpv4Type.CodeNetUnreachable,
        NativeErrno.EHOSTUNREACH or NativeErrno.EHOSTDOWN => Icmpv4Type.CodeHostUnreachable,
        NativeErrno.EACCES or NativeErrno.EPERM => Icmpv4Type.CodeAdministrativelyProhibited,
        NativeErrno.ECONNREFUSED => Icmpv4Type.CodePortUnreachable,
        _ => null,
    };
}
