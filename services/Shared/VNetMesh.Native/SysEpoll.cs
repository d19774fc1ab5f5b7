using System.Runtime.InteropServices;

namespace VNetMesh.Native;

/// <summary>sys/epoll.h and sys/eventfd.h</summary>
public static unsafe partial class SysEpoll
{
    public const uint EPOLLIN = 1;
    public const uint EPOLLOUT = 4;
    public const uint EPOLLERR = 8;
    public const uint EPOLLHUP = 16;
    public const uint EPOLLRDHUP = 0x2000;
    public const uint EPOLLET = 0x8000_0000;

    public const int EPOLL_CTL_ADD = 1;
    public const int EPOLL_CTL_DEL = 2;
    public const int EPOLL_CTL_MOD = 3;
    public const int EPOLL_CLOEXEC = 0x80000;

    public const int EFD_CLOEXEC = 0x80000;
    public const int EFD_NONBLOCK = 0x800;

    /// <summary>struct epoll_event, packed as the kernel has it on x86-64.</summary>
    [StructLayout(LayoutKind.Sequential, Pack = 1)]
    public struct epoll_event
    {
        public uint events;
        public ulong data;
    }

    [LibraryImport("libc", SetLastError = true)]
    public static partial int epoll_create1(int flags);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int epoll_ctl(int epoll, int operation, int fd, epoll_event* @event);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int epoll_wait(int epoll, epoll_event* events, int count, int timeoutMilliseconds);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int eventfd(uint initial, int flags);

    /// <summary>A non-blocking, close-on-exec eventfd.</summary>
    public static FileDescriptor CreateEvent() => new(Syscall.Check(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"));

    /// <summary>Adds one: wakes whoever polls it. A full counter is as good as a signal, so errors do not matter.</summary>
    public static void Signal(int fd)
    {
        ulong one = 1;
        _ = Unistd.write(fd, &one, 8);
    }

    /// <summary>Takes the counter back to zero.</summary>
    public static void Drain(int fd)
    {
        ulong count;
        _ = Unistd.read(fd, &count, 8);
    }
}
