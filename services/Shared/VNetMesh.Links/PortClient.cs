using Google.Protobuf;
using Grpc.Core;
using Grpc.Net.Client;
using Microsoft.Extensions.Logging;
using VNetMesh.Native;
using VNetMesh.Packets;
using VNetMesh.V1;

namespace VNetMesh.Links;

/// <summary>Told on the loop's thread when a port's link comes and goes.</summary>
public interface IPortHandler
{
    /// <summary>
    /// Frames can be sent and received from now on. The handler registers <see cref="IFrameLink.Descriptor"/> with the
    /// loop. It must not dispose the link; one that says Broken or Closed is taken down by the port client in the same
    /// turn of the loop.
    /// </summary>
    void OnLinkUp(IFrameLink link);

    /// <summary>The link is gone, and disposed right after this call: the handler ends its watch and forgets it.</summary>
    /// <param name="reason">Why, in plain words.</param>
    void OnLinkDown(string reason);
}

/// <summary>Which port, and how it is to be connected.</summary>
public sealed record PortClientOptions
{
    /// <summary>"networks/{id}".</summary>
    public required string Network { get; init; }

    public required string PortId { get; init; }

    /// <summary>The service's name.</summary>
    public required string Owner { get; init; }

    /// <summary>The port leads to a NIC; else it is a service's.</summary>
    public bool IsUplink { get; init; }

    public MacAddress Mac { get; init; }

    /// <summary>What this side accepts in frames that it receives.</summary>
    public LinkOffloads AcceptedOffloads { get; init; } = LinkOffloads.Tcp;

    /// <summary>Octets of the ring of each direction: a power of two, 256 KiB to 64 MiB.</summary>
    public int RingCapacity { get; init; } = 1024 * 1024;

    /// <summary>Attach rather than a ring.</summary>
    public bool PreferStream { get; init; }

    /// <summary>Takes the port away when the client is stopped.</summary>
    public bool DeletePortWhenStopped { get; init; } = true;
}

/// <summary>
/// Keeps one port of a service connected, through any death of the switch: register, ask for the ring, carry frames until
/// the link ends, wait, begin again. Where the switch refuses the ring, or its hand-off socket cannot be reached for 5 s
/// though it answers by gRPC, the Attach stream is used until that ends in turn.
/// <code>
/// what ends a link                                       seen by
/// the switch dies, or lets go of the port                 the hand-off socket, the "life" of a ring, closes
/// the switch breaks the ring's rules                      RingLink.Fault
/// the stream ends                                         StreamLink.EndReason
/// the client is stopped                                   cancellation
/// </code>
/// A switch that lives but hangs keeps its end of everything: nothing is to be gained by another link. It is told by
/// frames that it leaves untaken for two seconds (<see cref="IsStalled"/>, and the log); frames that find no room are
/// <see cref="SendStatus.Full"/> meanwhile, and the same link goes on when the switch does.
///
/// Waits are 50 ms, doubled up to 1 s; a link that lived for a second sets them back.
/// </summary>
public sealed class PortClient : ILoopWork, IReadyHandler
{
    private static readonly TimeSpan FirstWait = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan LongestWait = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);
    private const long StallPatience = 2_000_000; // microseconds
    private static readonly Action<ILogger, string, string, Exception?> LogStalled =
        LoggerMessage.Define<string, string>(LogLevel.Warning, new EventId(3, "PortStalled"), "port {Port} of {Network}: the switch has taken no frame for 2 s");
    private static readonly Action<ILogger, string, string, Exception?> LogGoesOn =
        LoggerMessage.Define<string, string>(LogLevel.Information, new EventId(4, "PortGoesOn"), "port {Port} of {Network}: the switch takes frames again");
    private static readonly Action<ILogger, string, string, string, Exception?> LogUp =
        LoggerMessage.Define<string, string, string>(LogLevel.Information, new EventId(1, "PortUp"), "port {Port} of {Network} is up by {Way}");
    private static readonly Action<ILogger, string, string, string, Exception?> LogDown =
        LoggerMessage.Define<string, string, string>(LogLevel.Warning, new EventId(2, "PortDown"), "port {Port} of {Network} is not connected, trying again: {Reason}");

    private readonly EventLoop _loop;
    private readonly PortService.PortServiceClient _client;
    private readonly string _handoffSocket;
    private readonly PortClientOptions _options;
    private readonly IPortHandler _handler;
    private readonly ILogger _logger;
    private long _handoffFailedSince;
    private bool _registered;

    // Of the loop's thread.
    private IFrameLink? _link;
    private FileDescriptor? _life;
    private EventLoop.Registration _lifeWatch;
    private TaskCompletionSource<string> _down = new();
    private ulong _taken;
    private bool _wasPending;
    private long _pendingSince;
    private volatile bool _isStalled;

    public PortClient(EventLoop loop, GrpcChannel switchChannel, string handoffSocket, PortClientOptions options, IPortHandler handler, ILogger logger)
    {
        Ring.ThrowIfBadCapacity(options.RingCapacity);
        _loop = loop;
        _client = new PortService.PortServiceClient(switchChannel);
        _handoffSocket = handoffSocket;
        _options = options;
        _handler = handler;
        _logger = logger;
    }

    /// <summary>The switch is connected and has left frames untaken for two seconds. From any thread.</summary>
    public bool IsStalled => _isStalled;

    /// <summary>Keeps the port connected until cancelled, and then returns; the link is down by then. To be called once at a time.</summary>
    public async Task RunAsync(CancellationToken cancellation)
    {
        TimeSpan wait = FirstWait;
        string lastReason = "";
        while (!cancellation.IsCancellationRequested)
        {
            string reason;
            try
            {
                (IFrameLink link, FileDescriptor? life) = await ConnectAsync(cancellation).ConfigureAwait(false);
                LogUp(_logger, _options.PortId, _options.Network, life is null ? "stream" : "ring", null);
                lastReason = "";
                long began = Environment.TickCount64;
                reason = await CarryAsync(link, life, cancellation).ConfigureAwait(false);
                if (Environment.TickCount64 - began >= 1000)
                    wait = FirstWait;
            }
            catch (Exception exception) when (cancellation.IsCancellationRequested || exception is RpcException or IOException or ObjectDisposedException or OperationCanceledException)
            {
                reason = exception is RpcException rpc ? rpc.Status.Detail : exception.Message;
            }
            if (cancellation.IsCancellationRequested)
                break;
            if (reason != lastReason)
                LogDown(_logger, _options.PortId, _options.Network, reason, null);
            lastReason = reason;
            await Task.Delay(wait, cancellation).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            wait = wait * 2 < LongestWait ? wait * 2 : LongestWait;
        }
        await DeletePortAsync().ConfigureAwait(false);
    }

    /// <summary>Not for callers: the loop asks, and a link that has failed is taken down.</summary>
    long ILoopWork.OnTurn(long now)
    {
        if (Failure is { } reason)
            TakeDown(reason);
        return WatchForStall(now);
    }

    bool ILoopWork.PrepareToSleep() => Failure is null;

    /// <summary>Not for callers: the loop tells that the hand-off socket has something to say. The switch says nothing on it but that it is gone.</summary>
    unsafe void IReadyHandler.OnReady(uint events, long now)
    {
        if (_life is null)
            return;
        byte octet;
        nint length = SysSocket.recv(_life.Number, &octet, 1, SysSocket.MSG_DONTWAIT);
        if (length == 0 || (length < 0 && Syscall.Errno is not (NativeErrno.EAGAIN or NativeErrno.EINTR)))
            TakeDown("the switch is gone, or has let go of the port");
    }

    /// <returns>When to look again: only while frames wait does this ask for the time.</returns>
    private long WatchForStall(long now)
    {
        (ulong taken, ulong pending) = _link switch
        {
            RingLink ring => ring.Progress,
            StreamLink stream => stream.Progress,
            _ => default,
        };
        if (pending == 0 || taken != _taken || !_wasPending)
        {
            _taken = taken;
            _pendingSince = now;
        }
        _wasPending = pending != 0;
        bool isStalled = _wasPending && now - _pendingSince >= StallPatience;
        if (isStalled != _isStalled)
            (isStalled ? LogStalled : LogGoesOn)(_logger, _options.PortId, _options.Network, null);
        _isStalled = isStalled;
        return _wasPending ? Math.Max(_pendingSince, now - StallPatience / 2) + StallPatience : long.MaxValue;
    }

    private string? Failure => _link switch
    {
        RingLink { Fault: { } fault } => $"the switch broke the ring's rules: {fault}",
        StreamLink { EndReason: { } reason } => reason,
        _ => null,
    };

    private async Task<(IFrameLink Link, FileDescriptor? Life)> ConnectAsync(CancellationToken cancellation)
    {
        if (!_options.PreferStream)
        {
            try
            {
                (RingLink ring, FileDescriptor life) = await ConnectRingAsync(cancellation).ConfigureAwait(false);
                _handoffFailedSince = 0;
                return (ring, life);
            }
            catch (HandoffException exception) when (exception.Status != HandoffStatus.TokenUnknown)
            {
            }
            catch (SyscallException) when (HandoffIsHopeless())
            {
            }
            catch (RpcException exception) when (exception.StatusCode is StatusCode.InvalidArgument or StatusCode.Unimplemented)
            {
            }
        }
        return (await ConnectStreamAsync(cancellation).ConfigureAwait(false), null);
    }

    private bool HandoffIsHopeless()
    {
        long now = Environment.TickCount64;
        if (_handoffFailedSince == 0)
            _handoffFailedSince = now;
        return now - _handoffFailedSince >= Patience.TotalMilliseconds;
    }

    private async Task<(RingLink Link, FileDescriptor Life)> ConnectRingAsync(CancellationToken cancellation)
    {
        var request = new RegisterPortRequest
        {
            Parent = _options.Network,
            PortId = _options.PortId,
            Port = new Port
            {
                Role = _options.IsUplink ? PortRole.Uplink : PortRole.Service,
                Transport = PortTransport.Ring,
                Mac = _options.Mac.ToString(),
                Owner = _options.Owner,
                Offloads = AcceptedOffloads(),
            },
        };
        RegisterPortResponse response = await _client.RegisterPortAsync(request, deadline: DateTime.UtcNow + Patience, cancellationToken: cancellation).ConfigureAwait(false);
        _registered = true;
        ByteString token = response.HandoffToken;
        if (token.Length != 16)
            throw new IOException($"the switch gave a hand-off token of {token.Length} octets");
        // Blocks, for at most 5 s.
        return await Task.Run(() => HandoffClient.AskForRing(_handoffSocket, token.Span, _options.RingCapacity, _options.AcceptedOffloads), CancellationToken.None).ConfigureAwait(false);
    }

    private Task<StreamLink> ConnectStreamAsync(CancellationToken cancellation)
    {
        var hello = new AttachHello
        {
            Network = _options.Network,
            PortId = _options.PortId,
            Role = _options.IsUplink ? PortRole.Uplink : PortRole.Service,
            Mac = _options.Mac.ToString(),
            Owner = _options.Owner,
            Offloads = AcceptedOffloads(),
        };
        return StreamLink.AttachAsync(_client, hello, _options.RingCapacity, cancellation);
    }

    private Offloads AcceptedOffloads() => new()
    {
        Checksum = _options.AcceptedOffloads.HasFlag(LinkOffloads.Checksum),
        Tso4 = _options.AcceptedOffloads.HasFlag(LinkOffloads.Tso4),
        Tso6 = _options.AcceptedOffloads.HasFlag(LinkOffloads.Tso6),
        Uso = _options.AcceptedOffloads.HasFlag(LinkOffloads.Uso),
    };

    /// <returns>Why the link went down.</returns>
    private async Task<string> CarryAsync(IFrameLink link, FileDescriptor? life, CancellationToken cancellation)
    {
        var down = new TaskCompletionSource<string>(TaskCreationOptions.RunContinuationsAsynchronously);
        try
        {
            await _loop.InvokeAsync(() => BringUp(link, life, down)).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            // The loop has ended: nobody is left to be told.
            link.Dispose();
            life?.Dispose();
            throw;
        }
        await using (cancellation.Register(() => _ = StopAsync(down)).ConfigureAwait(false))
            return await down.Task.ConfigureAwait(false);
    }

    private async Task StopAsync(TaskCompletionSource<string> down)
    {
        try
        {
            await _loop.InvokeAsync(() =>
            {
                TakeDown("stopped");
                return true;
            }).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            down.TrySetResult("the loop has ended");
        }
    }

    private bool BringUp(IFrameLink link, FileDescriptor? life, TaskCompletionSource<string> down)
    {
        _link = link;
        _life = life;
        _down = down;
        _loop.Add(this);
        try
        {
            if (life is not null)
                _lifeWatch = _loop.Register(life.Number, SysEpoll.EPOLLIN | SysEpoll.EPOLLRDHUP, this);
            _handler.OnLinkUp(link);
        }
        catch (Exception exception)
        {
            TakeDown(exception.Message);
        }
        return true;
    }

    private void TakeDown(string reason)
    {
        if (_link is not { } link)
            return;
        _loop.Unregister(_lifeWatch);
        _lifeWatch = default;
        _loop.Remove(this);
        _link = null;
        try
        {
            _handler.OnLinkDown(reason);
        }
        finally
        {
            link.Dispose();
            _life?.Dispose();
            _life = null;
            _down.TrySetResult(reason);
        }
    }

    private async Task DeletePortAsync()
    {
        if (!_registered || !_options.DeletePortWhenStopped)
            return;
        try
        {
            await _client.DeletePortAsync(new DeletePortRequest { Name = $"{_options.Network}/ports/{_options.PortId}" }, deadline: DateTime.UtcNow + FirstWait * 20).ConfigureAwait(false);
        }
        catch (Exception exception) when (exception is RpcException or ObjectDisposedException)
        {
            // The switch is away, or the port went with its network: as it should be.
        }
    }
}
