using System.Diagnostics;
using VNetMesh.Hosting;
using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.Switch.Observability;
using VNetMesh.Switch.Registry;

namespace VNetMesh.Switch.Handoff;

/// <summary>
/// Takes TAP and socket descriptors and gives out rings on {run}/handoff.sock (SOCK_SEQPACKET, for its owner alone). A client sends
/// one message with its token and gets one answer. Everything runs on one event loop of its own: a client that
/// says nothing is dropped after five seconds and keeps nobody waiting, and there are never more than
/// <see cref="MaxPending"/> of them. The socket of a ring stays open as the sign of life of both sides.
/// </summary>
public sealed partial class HandoffServer : IHostedService, IReadyHandler, ILoopWork, IDisposable
{
    public const int MaxPending = 64;
    private const long SilenceAllowed = 5_000_000;
    private const long AcceptRetry = 100_000;

    private readonly string _path;
    private readonly HandoffTokens _tokens;
    private readonly PortDirectory _ports;
    private readonly ILogger<HandoffServer> _logger;
    private readonly EventLoop _loop;
    private readonly HashSet<HandoffConnection> _pending = [];
    private readonly HashSet<HandoffConnection> _alive = [];
    private FileDescriptor? _listener;
    private EventLoop.Registration _listening;
    private bool _accepting;
    private long _acceptAgainAt;

    public HandoffServer(RuntimePaths paths, HandoffTokens tokens, PortDirectory ports, ILogger<HandoffServer> logger)
    {
        _path = paths.HandoffSocket;
        _tokens = tokens;
        _ports = ports;
        _logger = logger;
        _loop = new EventLoop("handoff", LogFault);
    }

    public Task StartAsync(CancellationToken cancellationToken)
    {
        _listener = Listen(_path);
        _loop.Add(this);
        ResumeAccepting();
        _loop.Start();
        return Task.CompletedTask;
    }

    public Task StopAsync(CancellationToken cancellationToken)
    {
        File.Delete(_path);
        return Task.CompletedTask;
    }

    public void Dispose()
    {
        _loop.Dispose();
        foreach (HandoffConnection connection in _pending.Concat(_alive))
            connection.Socket.Dispose();
        _listener?.Dispose();
    }

    public unsafe void OnReady(uint events, long now)
    {
        while (_pending.Count < MaxPending)
        {
            int socket = SysSocket.accept4(_listener!.Number, null, null, SysSocket.SOCK_CLOEXEC | SysSocket.SOCK_NONBLOCK);
            if (socket < 0)
            {
                if (Syscall.Errno is not (NativeErrno.EAGAIN or NativeErrno.EINTR or NativeErrno.ECONNABORTED))
                {
                    // No descriptors or no memory left: they may come back.
                    _acceptAgainAt = now + AcceptRetry;
                    PauseAccepting();
                }
                return;
            }
            var connection = new HandoffConnection(this, new FileDescriptor(socket), now + SilenceAllowed);
            connection.Registration = _loop.Register(socket, SysEpoll.EPOLLIN, connection);
            _pending.Add(connection);
        }
        // The rest wait in the kernel's backlog until one of these is done.
        PauseAccepting();
    }

    public long OnTurn(long now)
    {
        foreach (HandoffConnection connection in _pending.Where(connection => !connection.IsAnswering && connection.Deadline <= now).ToList())
        {
            LogSilent();
            Close(connection);
        }
        long next = long.MaxValue;
        foreach (HandoffConnection connection in _pending.Where(connection => !connection.IsAnswering))
            next = Math.Min(next, connection.Deadline);
        if (_accepting || _pending.Count >= MaxPending)
            return next;
        if (_acceptAgainAt > now)
            return Math.Min(next, _acceptAgainAt);
        ResumeAccepting();
        return next;
    }

    public bool PrepareToSleep() => true;

    internal void OnConnectionReady(HandoffConnection connection)
    {
        if (connection.Port is not null)
        {
            // A ring's peer has nothing more to say: it has closed, or it breaks the rules.
            Close(connection);
            _ports.Disconnect(connection.Port, connection.Number, "its peer closed the ring");
            return;
        }
        if (connection.IsAnswering)
        {
            // Gone, or talking out of turn, while its hand-off is under way.
            _loop.Unregister(connection.Registration);
            return;
        }
        Span<byte> bytes = stackalloc byte[HandoffRequest.Length + 1];
        var descriptors = new FileDescriptor[1];
        int count = 0;
        try
        {
            int length = DescriptorMessage.Receive(connection.Socket.Number, bytes, descriptors, out count);
            if (length == 0 && count == 0)
                Close(connection);
            else if (!HandoffRequest.TryParse(bytes[..length], out HandoffRequest request))
                Reject(connection, HandoffStatus.Malformed, "the message could not be understood");
            else
                Take(connection, request, count == 1 ? Own(descriptors) : null);
        }
        catch (SyscallException exception) when (exception.Errno == NativeErrno.EAGAIN)
        {
        }
        catch (SyscallException exception) when (exception.Errno == NativeErrno.EMSGSIZE)
        {
            Reject(connection, HandoffStatus.Malformed, "the message is longer than a request, or bears too many descriptors");
        }
        catch (IOException exception)
        {
            LogFailed(exception.Message);
            Close(connection);
        }
        finally
        {
            if (count > 0)
                descriptors[0]?.Dispose();
        }
    }

    private static FileDescriptor Own(FileDescriptor[] descriptors)
    {
        FileDescriptor owned = descriptors[0];
        descriptors[0] = null!;
        return owned;
    }

    private void Take(HandoffConnection connection, HandoffRequest request, FileDescriptor? descriptor)
    {
        PortEntry? port = _tokens.Redeem(request.Token);
        PortTransport asked = request.Kind switch
        {
            HandoffKind.Tap => PortTransport.Tap,
            HandoffKind.VmSocket => PortTransport.VmSocket,
            _ => PortTransport.Ring,
        };
        if (port is null)
            Reject(connection, HandoffStatus.TokenUnknown, "the token is unknown, was used before, or is older than 30 s; register the port again");
        else if (port.Info.Transport != asked)
            Reject(connection, HandoffStatus.Mismatch, $"{port.Info.Name} was registered for {port.Info.Transport}, not {asked}");
        else if (asked != PortTransport.Ring)
        {
            if (descriptor is null)
                Reject(connection, HandoffStatus.Mismatch, "the message must bear one descriptor");
            else if (asked == PortTransport.Tap)
                TakeTap(connection, port, request, descriptor);
            else
                TakeSocket(connection, port, descriptor);
            return;
        }
        else
            MakeRing(connection, port, request);
        descriptor?.Dispose();
    }

    private void TakeTap(HandoffConnection connection, PortEntry port, HandoffRequest request, FileDescriptor descriptor)
    {
        if (TapLink.Inspect(descriptor, out string device) is { } fault)
        {
            descriptor.Dispose();
            Reject(connection, HandoffStatus.Mismatch, fault);
            return;
        }
        LogTap(device, port.Info.Name);
        LinkOffloads offloads = request.Offloads & (port.Info.Offloads ?? LinkOffloads.All);
        _ = FinishAsync(connection, port, new TapLink(descriptor, offloads), new HandoffResponse(HandoffStatus.Ok, 0, offloads, ""), null);
    }

    private void TakeSocket(HandoffConnection connection, PortEntry port, FileDescriptor descriptor)
    {
        bool isDatagram = DatagramSocketLink.Inspect(descriptor);
        if (!isDatagram && StreamSocketLink.Inspect(descriptor) is { } fault)
        {
            descriptor.Dispose();
            Reject(connection, HandoffStatus.Mismatch, fault);
            return;
        }
        LogSocket(port.Info.Name);
        IFrameLink link = isDatagram ? new DatagramSocketLink(descriptor) : new StreamSocketLink(descriptor);
        _ = FinishAsync(connection, port, link, new HandoffResponse(HandoffStatus.Ok, 0, LinkOffloads.None, ""), null);
    }

    private void MakeRing(HandoffConnection connection, PortEntry port, HandoffRequest request)
    {
        RingMemory? memory = null;
        try
        {
            memory = RingMemory.Create(request.RingCapacity);
            FileDescriptor own = SysEpoll.CreateEvent(), far = SysEpoll.CreateEvent();
            // The link owns its descriptors and may be let go at any moment: what is sent are duplicates.
            FileDescriptor[] sent = [memory.Descriptor.Duplicate(), far.Duplicate(), own.Duplicate()];
            LinkOffloads offloads = request.Offloads & (port.Info.Offloads ?? LinkOffloads.All);
            var link = new RingLink(memory, isMaker: true, own, far, offloads);
            // What the switch itself takes is not limited: each record says what is left to be done to it.
            _ = FinishAsync(connection, port, link, new HandoffResponse(HandoffStatus.Ok, request.RingCapacity, LinkOffloads.All, ""), sent);
        }
        catch (ArgumentOutOfRangeException exception)
        {
            Reject(connection, HandoffStatus.Mismatch, exception.Message);
        }
        catch (SyscallException exception)
        {
            memory?.Dispose();
            Reject(connection, HandoffStatus.Failed, exception.Message);
        }
    }

    /// <summary>Connects the link on the network's loop, then answers on this one.</summary>
    private async Task FinishAsync(HandoffConnection connection, PortEntry port, IFrameLink link, HandoffResponse response, FileDescriptor[]? sent)
    {
        connection.IsAnswering = true;
        using Activity? activity = SwitchTelemetry.Source.StartActivity("switch.handoff", ActivityKind.Internal, port.Forwarding.Birth?.Trace.ToParent() ?? default);
        activity?.SetTag("vnetmesh.port", port.Info.Name).SetTag("vnetmesh.transport", port.Info.Transport.ToString());
        Action<string>? released = sent is null ? null : _ => _loop.Post(() => Close(connection));
        string? failure = null;
        long number = 0;
        try
        {
            number = await _ports.ConnectAsync(port, link, released).ConfigureAwait(false);
        }
        catch (Exception exception)
        {
            failure = exception.Message;
            activity?.SetStatus(ActivityStatusCode.Error, failure);
        }
        _loop.Post(() => Answer(connection, port, number, failure is null ? response : new HandoffResponse(HandoffStatus.Failed, 0, LinkOffloads.None, failure), sent));
    }

    private void Answer(HandoffConnection connection, PortEntry port, long number, HandoffResponse response, FileDescriptor[]? sent)
    {
        connection.IsAnswering = false;
        bool isRing = sent is not null && response.Status == HandoffStatus.Ok;
        bool told = !connection.IsClosed && Reply(connection, response, isRing ? sent! : []);
        foreach (FileDescriptor descriptor in sent ?? [])
            descriptor.Dispose();
        if (!isRing)
        {
            Close(connection);
            return;
        }
        if (!told)
        {
            Close(connection);
            _ports.Disconnect(port, number, "its peer went away before the ring was handed out");
            return;
        }
        connection.Port = port;
        connection.Number = number;
        _pending.Remove(connection);
        _alive.Add(connection);
        // It may have closed meanwhile; a watch that was ended then is made again, and fires at once.
        _loop.Unregister(connection.Registration);
        connection.Registration = _loop.Register(connection.Socket.Number, SysEpoll.EPOLLIN | SysEpoll.EPOLLRDHUP, connection);
    }

    private void Reject(HandoffConnection connection, HandoffStatus status, string reason)
    {
        LogRefused(status, reason);
        Reply(connection, new HandoffResponse(status, 0, LinkOffloads.None, reason), []);
        Close(connection);
    }

    private static bool Reply(HandoffConnection connection, HandoffResponse response, FileDescriptor[] descriptors)
    {
        Span<byte> bytes = stackalloc byte[HandoffResponse.MaxLength];
        int length = response.Write(bytes);
        try
        {
            DescriptorMessage.Send(connection.Socket.Number, bytes[..length], [.. descriptors.Select(descriptor => descriptor.Number)]);
            return true;
        }
        catch (SyscallException)
        {
            return false;
        }
    }

    private void Close(HandoffConnection connection)
    {
        if (connection.IsClosed)
            return;
        connection.IsClosed = true;
        _loop.Unregister(connection.Registration);
        connection.Socket.Dispose();
        _pending.Remove(connection);
        _alive.Remove(connection);
    }

    private void ResumeAccepting()
    {
        _listening = _loop.Register(_listener!.Number, SysEpoll.EPOLLIN, this);
        _accepting = true;
    }

    private void PauseAccepting()
    {
        _loop.Unregister(_listening);
        _accepting = false;
    }

    private static unsafe FileDescriptor Listen(string path)
    {
        var socket = new FileDescriptor(Syscall.Check(
            SysSocket.socket(SysSocket.AF_UNIX, SysSocket.SOCK_SEQPACKET | SysSocket.SOCK_CLOEXEC | SysSocket.SOCK_NONBLOCK, 0), "socket(AF_UNIX)"));
        try
        {
            // Bound beside its place and closed to others before anyone can find it there.
            string staging = path + ".new";
            File.Delete(staging);
            uint length = SysSocket.WriteUnixAddress(staging, out SysSocket.sockaddr_un address);
            Syscall.Check(SysSocket.bind(socket.Number, &address, length), $"bind({staging})");
            File.SetUnixFileMode(staging, UnixFileMode.UserRead | UnixFileMode.UserWrite);
            Syscall.Check(SysSocket.listen(socket.Number, MaxPending), "listen");
            File.Move(staging, path, overwrite: true);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    [LoggerMessage(LogLevel.Error, "The hand-off loop met an unexpected error and goes on")]
    private partial void LogFault(Exception exception);

    [LoggerMessage(LogLevel.Information, "A hand-off was refused ({Status}): {Reason}")]
    private partial void LogRefused(HandoffStatus status, string reason);

    [LoggerMessage(LogLevel.Information, "The queue of device {Device} was handed over for {Port}")]
    private partial void LogTap(string device, string port);

    [LoggerMessage(LogLevel.Information, "A VM's socket was handed over for {Port}")]
    private partial void LogSocket(string port);

    [LoggerMessage(LogLevel.Information, "A hand-off failed: {Reason}")]
    private partial void LogFailed(string reason);

    [LoggerMessage(LogLevel.Information, "A client of the hand-off socket said nothing for 5 s and was dropped")]
    private partial void LogSilent();
}

/// <summary>One client of the hand-off socket. Belongs to the hand-off loop.</summary>
internal sealed class HandoffConnection(HandoffServer server, FileDescriptor socket, long deadline) : IReadyHandler
{
    public FileDescriptor Socket { get; } = socket;

    /// <summary>When a client that has said nothing is dropped.</summary>
    public long Deadline { get; } = deadline;

    public EventLoop.Registration Registration { get; set; }

    /// <summary>Its request is being carried out.</summary>
    public bool IsAnswering { get; set; }

    public bool IsClosed { get; set; }

    /// <summary>The port whose ring this socket keeps alive; null before the answer.</summary>
    public PortEntry? Port { get; set; }

    public long Number { get; set; }

    public void OnReady(uint events, long now) => server.OnConnectionReady(this);
}
