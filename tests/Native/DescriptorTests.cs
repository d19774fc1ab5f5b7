namespace VNetMesh.Native.Tests;

public sealed class DescriptorTests
{
    [Fact]
    public void A_duplicate_outlives_the_first_and_is_closed_on_exec()
    {
        FileDescriptor first = SysEpoll.CreateEvent();
        using FileDescriptor second = first.Duplicate();
        first.Dispose();
        SysEpoll.Signal(second.Number);
        Assert.Equal(1UL, Take(second));
        const int F_GETFD = 1, FD_CLOEXEC = 1;
        Assert.Equal(FD_CLOEXEC, Fcntl.fcntl(second.Number, F_GETFD, 0));
    }

    [Fact]
    public void A_signal_to_what_is_closed_does_nothing()
    {
        FileDescriptor descriptor = SysEpoll.CreateEvent();
        descriptor.Dispose();
        SysEpoll.Signal(descriptor);
    }

    [Fact]
    public void Signals_add_up_and_a_drain_takes_all()
    {
        using FileDescriptor descriptor = SysEpoll.CreateEvent();
        SysEpoll.Signal(descriptor);
        SysEpoll.Signal(descriptor.Number);
        Assert.Equal(2UL, Take(descriptor));
        SysEpoll.Signal(descriptor);
        SysEpoll.Drain(descriptor.Number);
        SysEpoll.Drain(descriptor.Number); // does not block
        Assert.Equal(0UL, Take(descriptor));
    }

    [Fact]
    public void A_failed_call_says_which_and_why()
    {
        SyscallException exception = Assert.Throws<SyscallException>(() => Syscall.Check(Fcntl.open("/nonexistent", Fcntl.O_RDONLY), "open"));
        Assert.Equal(("open", NativeErrno.ENOENT), (exception.Call, exception.Errno));
        Assert.Contains("errno 2", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Names_that_do_not_fit_are_refused()
    {
        IfTun.ifreq request = default;
        request.SetName("fifteen-letters");
        Assert.Equal("fifteen-letters", request.GetName());
        request.SetName("short");
        Assert.Equal("short", request.GetName());
        Assert.Throws<ArgumentException>(() => request.SetName("sixteen-letters-"));
        Assert.Equal(110U, SysSocket.WriteUnixAddress(new string('a', 107), out _));
        Assert.Throws<ArgumentException>(() => SysSocket.WriteUnixAddress(new string('a', 108), out _));
    }

    private static unsafe ulong Take(FileDescriptor descriptor)
    {
        ulong count = 0;
        return Unistd.read(descriptor.Number, &count, 8) == 8 ? count : 0;
    }
}
