using VNetMesh.Links;
using VNetMesh.Native;

namespace VNetMesh.Agent.Guests;

/// <summary>
/// The socket that one VM's monitor connects to, and its connection. One VM at a time has the port: the next one that connects
/// waits in the kernel's backlog until the connection before it has ended. The agent never reads from a connection.
/// </summary>
internal unsafe class VmSocket : IReadyHandler, IDisposable
{
    private const int Backlog = 4;

    private readonly EventLoop? _loop;
    private readonly Action? _wake;
    private EventLoop.Registration _registration;

    /// <param name="path">Where it is made, for its owner alone; what has the place is replaced.</param>
    /// <param name="type">SOCK_STREAM or SOCK_SEQPACKET; for SOCK_DGRAM there is another constructor.</param>
    /// <param name="wake">Called on the loop's thread when somebody connects.</param>
    /// <exception cref="IOException">It cannot be made.</exception>
    public VmSocket(string path, int type, EventLoop loop, Action wake)
    {
        (Path, _loop, _wake) = (path, loop, wake);
        Listener = Listen(path, type);
        // By edges: one that waits in the backlog is not to wake the loop for ever.
        _loop.Post(() => _registration = _loop.Register(Listener.Number, SysEpoll.EPOLLIN | SysEpoll.EPOLLET, this));
    }

    /// <summary>One that nobody has to be woken for.</summary>
    protected VmSocket(string path, int type) => (Path, Listener) = (path, Listen(path, type));

    public string Path { get; }

    /// <summary>Whether the connection is there without a monitor.</summary>
    public virtual bool IsAlwaysThere => false;

    /// <summary>Whether a monitor is at the other end.</summary>
    public virtual bool HasMonitor => Connection is not null;

    protected FileDescriptor Listener { get; }

    /// <summary>The VM's connection; null while there is none, or only the switch has it.</summary>
    public FileDescriptor? Connection { get; protected set; }

    /// <summary>Whether the switch has the connection.</summary>
    public bool IsHandedOver { get; set; }

    /// <summary>Why the switch does not have it; empty where there is no reason.</summary>
    public string Condition { get; set; } = "";

    public void OnReady(uint events, long now) => _wake?.Invoke();

    /// <summary>Lets go of a connection that has ended.</summary>
    /// <returns>Whether one had.</returns>
    public virtual bool DropEnded()
    {
        if (Connection is null)
            return false;
        // Nothing is sent: the kernel says EPIPE where the far side, or the switch, has ended the connection.
        byte none = 0;
        nint result;
        do
        {
            result = SysSocket.send(Connection.Number, &none, 0, SysSocket.MSG_DONTWAIT | SysSocket.MSG_NOSIGNAL);
        }
        while (result < 0 && Syscall.Errno == NativeErrno.EINTR);
        if (result >= 0 || Syscall.Errno == NativeErrno.EAGAIN)
            return false;
        Drop();
        return true;
    }

    /// <summary>Takes the VM that waits, if one does.</summary>
    public virtual bool TryAccept()
    {
        if (Accept() is not { } connection)
            return false;
        Drop();
        Connection = connection;
        return true;
    }

    /// <summary>Whoever waits, if one does; the caller's.</summary>
    public FileDescriptor? Accept()
    {
        int socket = SysSocket.accept4(Listener.Number, null, null, SysSocket.SOCK_CLOEXEC | SysSocket.SOCK_NONBLOCK);
        return socket < 0 ? null : new FileDescriptor(socket);
    }

    public void Dispose()
    {
        Drop();
        if (_loop is null)
        {
            Listener.Dispose();
            return;
        }
        _loop.Post(() =>
        {
            _loop.Unregister(_registration);
            Listener.Dispose();
        });
    }

    private void Drop()
    {
        Connection?.Dispose();
        Connection = null;
        IsHandedOver = false;
        Condition = "";
    }

    private static FileDescriptor Listen(string path, int type)
    {
        var socket = new FileDescriptor(Syscall.Check(
            SysSocket.socket(SysSocket.AF_UNIX, type | SysSocket.SOCK_CLOEXEC | SysSocket.SOCK_NONBLOCK, 0), "socket(AF_UNIX)"));
        try
        {
            // Bound beside its place and closed to others before anyone can find it there.
            string staging = path + ".new";
            File.Delete(staging);
            uint length = SysSocket.WriteUnixAddress(staging, out SysSocket.sockaddr_un address);
            Syscall.Check(SysSocket.bind(socket.Number, &address, length), $"bind({staging})");
            File.SetUnixFileMode(staging, UnixFileMode.UserRead | UnixFileMode.UserWrite);
            if (type != SysSocket.SOCK_DGRAM)
                Syscall.Check(SysSocket.listen(socket.Number, Backlog), "listen");
            File.Move(staging, path, overwrite: true);
            return socket;
        }
        catch (ArgumentException exception)
        {
            socket.Dispose();
            throw new IOException(exception.Message, exception);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}
