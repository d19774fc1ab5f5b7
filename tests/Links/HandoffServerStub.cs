using VNetMesh.Native;

namespace VNetMesh.Links.Tests;

/// <summary>The switch's side of the hand-off socket, one connection after the other, with an answer of the test's choice.</summary>
internal sealed class HandoffServerStub : IDisposable
{
    private readonly FileDescriptor _listener;
    private readonly Thread _thread;
    private readonly List<FileDescriptor> _lives = [];
    private volatile bool _stop;

    public HandoffServerStub(string? path = null)
    {
        Path = path ?? System.IO.Path.Combine(System.IO.Path.GetTempPath(), $"vnho-{Guid.NewGuid():N}.sock");
        _listener = Listen(Path);
        _thread = new Thread(Serve) { IsBackground = true };
        _thread.Start();
    }

    public string Path { get; }

    public Func<HandoffRequest, (HandoffResponse Response, FileDescriptor[] Descriptors)> Answer { get; set; } =
        _ => (new HandoffResponse(HandoffStatus.Failed, 0, LinkOffloads.None, "no answer is set"), []);

    /// <summary>Octets to answer with, whatever was asked; empty: the socket is closed.</summary>
    public byte[]? Raw { get; set; }

    public List<FileDescriptor> Received { get; } = [];

    /// <summary>Sockets of rings that were given out stay open, as the sign of life; this closes them.</summary>
    public void CloseLives()
    {
        lock (_lives)
        {
            _lives.ForEach(life => life.Dispose());
            _lives.Clear();
        }
    }

    public void Dispose()
    {
        _stop = true;
        _ = SysSocket.shutdown(_listener.Number, SysSocket.SHUT_RDWR);
        _thread.Join(TimeSpan.FromSeconds(5));
        _listener.Dispose();
        CloseLives();
        Received.ForEach(descriptor => descriptor.Dispose());
        File.Delete(Path);
    }

    private static unsafe FileDescriptor Listen(string path)
    {
        File.Delete(path);
        uint length = SysSocket.WriteUnixAddress(path, out SysSocket.sockaddr_un address);
        var socket = new FileDescriptor(Syscall.Check(SysSocket.socket(SysSocket.AF_UNIX, SysSocket.SOCK_SEQPACKET | SysSocket.SOCK_CLOEXEC, 0), "socket"));
        Syscall.Check(SysSocket.bind(socket.Number, &address, length), "bind");
        Syscall.Check(SysSocket.listen(socket.Number, 16), "listen");
        return socket;
    }

    private unsafe void Serve()
    {
        while (!_stop)
        {
            int number = SysSocket.accept4(_listener.Number, null, null, SysSocket.SOCK_CLOEXEC);
            if (number >= 0)
                Handle(new FileDescriptor(number));
        }
    }

    private void Handle(FileDescriptor socket)
    {
        var descriptors = new FileDescriptor[4];
        byte[] request = new byte[64];
        int length = DescriptorMessage.Receive(socket.Number, request, descriptors, out int count);
        lock (_lives)
            Received.AddRange(descriptors[..count]);
        if (!HandoffRequest.TryParse(request.AsSpan(0, length), out HandoffRequest parsed))
        {
            socket.Dispose();
            return;
        }
        byte[] answer = new byte[HandoffResponse.MaxLength];
        (HandoffResponse response, FileDescriptor[] sent) = Answer(parsed);
        length = response.Write(answer);
        // Under the lock: the asker may have its ring, and the test may close all lives, before this thread goes on.
        lock (_lives)
        {
            try
            {
                if (Raw is not { Length: 0 })
                    DescriptorMessage.Send(socket.Number, Raw ?? answer.AsSpan(0, length), [.. sent.Select(descriptor => descriptor.Number)]);
            }
            catch (SyscallException)
            {
                // The asker has gone.
            }
            if (Raw is null && response.Status == HandoffStatus.Ok)
                _lives.Add(socket);
            else
                socket.Dispose();
        }
    }
}

internal sealed class SeqPacketPair : IDisposable
{
    public SeqPacketPair()
    {
        string path = System.IO.Path.Combine(System.IO.Path.GetTempPath(), $"vnho-{Guid.NewGuid():N}.sock");
        (Left, Right) = Connect(path);
        File.Delete(path);
    }

    public FileDescriptor Left { get; }

    public FileDescriptor Right { get; }

    public void Dispose()
    {
        Left.Dispose();
        Right.Dispose();
    }

    private static unsafe (FileDescriptor Left, FileDescriptor Right) Connect(string path)
    {
        uint length = SysSocket.WriteUnixAddress(path, out SysSocket.sockaddr_un address);
        using var listener = new FileDescriptor(Syscall.Check(SysSocket.socket(SysSocket.AF_UNIX, SysSocket.SOCK_SEQPACKET | SysSocket.SOCK_CLOEXEC, 0), "socket"));
        Syscall.Check(SysSocket.bind(listener.Number, &address, length), "bind");
        Syscall.Check(SysSocket.listen(listener.Number, 1), "listen");
        var left = new FileDescriptor(Syscall.Check(SysSocket.socket(SysSocket.AF_UNIX, SysSocket.SOCK_SEQPACKET | SysSocket.SOCK_CLOEXEC, 0), "socket"));
        Syscall.Check(SysSocket.connect(left.Number, &address, length), "connect");
        return (left, new FileDescriptor(Syscall.Check(SysSocket.accept4(listener.Number, null, null, SysSocket.SOCK_CLOEXEC), "accept4")));
    }
}
