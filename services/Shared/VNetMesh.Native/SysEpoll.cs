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

    // linux/eventpoll.h packs struct epoll_event on x86-64 alone; elsewhere data is at 8 and the whole is 16 octets.
    private static readonly bool IsPacked = RuntimeInformation.ProcessArchitecture is Architecture.X64 or Architecture.X86;

    /// <summary>struct epoll_event, packed as on x86-64; the calls below turn it into what another processor's kernel has.</summary>
    [StructLayout(LayoutKind.Sequential, Pack = 1)]
    public struct epoll_event
    {
        public uint events;
        public ulong data;
    }

    [LibraryImport("libc", SetLastError = true)]
    public static partial int epoll_create1(int flags);

    public static int epoll_ctl(int epoll, int operation, int fd, epoll_event* @event)
    {
        if (IsPacked)
            return epoll_ctl_native(epoll, operation, fd, @event);
        var aligned = new AlignedEvent { events = @event->events, data = @event->data };
        return epoll_ctl_native(epoll, operation, fd, &aligned);
    }

    /// <param name="count">Room at <paramref name="events"/>, 1 to 1024.</param>
    public static int epoll_wait(int epoll, epoll_event* events, int count, int timeoutMilliseconds)
    {
        if (IsPacked)
            return epoll_wait_native(epoll, events, count, timeoutMilliseconds);
        count = Math.Min(count, 1024);
        AlignedEvent* aligned = stackalloc AlignedEvent[count];
        int ready = epoll_wait_native(epoll, aligned, count, timeoutMilliseconds);
        for (int i = 0; i < ready; i++)
            events[i] = new epoll_event { events = aligned[i].events, data = aligned[i].data };
        return ready;
    }

    [LibraryImport("libc", EntryPoint = "epoll_ctl", SetLastError = true)]
    private static partial int epoll_ctl_native(int epoll, int operation, int fd, void* @event);

    [LibraryImport("libc", EntryPoint = "epoll_wait", SetLastError = true)]
    private static partial int epoll_wait_native(int epoll, void* events, int count, int timeoutMilliseconds);

    private struct AlignedEvent
    {
        public uint events;
        public ulong data;
    }

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

    /// <summary>As above, from any thread: does nothing once the descriptor was closed, when its number may be another's.</summary>
    public static void Signal(FileDescriptor descriptor)
    {
        bool held = false;
        try
        {
            descriptor.DangerousAddRef(ref held);
            Signal(descriptor.Number);
        }
        catch (ObjectDisposedException)
        {
        }
        finally
        {
            if (held)
                descriptor.DangerousRelease();
        }
    }

    /// <summary>Takes the counter back to zero.</summary>
    public static void Drain(int fd)
    {
        ulong count;
        _ = Unistd.read(fd, &count, 8);
    }
}
