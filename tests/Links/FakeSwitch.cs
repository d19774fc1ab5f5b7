using System.Collections.Concurrent;
using System.Threading.Channels;
using Google.Protobuf;
using Grpc.Core;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using VNetMesh.Native;
using VNetMesh.V1;

namespace VNetMesh.Links.Tests;

/// <summary>
/// As much of a switch as its clients see: registers ports, hands out rings, answers Attach, tells of networks. It can be
/// stopped and started at the same place, and each frame that reaches it is sent back.
/// </summary>
internal sealed class FakeSwitch : IAsyncDisposable
{
    private readonly List<RingEcho> _echoes = [];
    private WebApplication? _app;
    private HandoffServerStub? _handoff;
    private EventLoop? _loop;

    public FakeSwitch() => Directory.CreateDirectory(Folder);

    public string Folder { get; } = Path.Combine(Path.GetTempPath(), $"vnsw-{Guid.NewGuid():N}");

    public string Socket => Path.Combine(Folder, "switch.sock");

    public string HandoffSocket => Path.Combine(Folder, "handoff.sock");

    public bool RefusesRings { get; set; }

    public bool HasHandoff { get; set; } = true;

    public ConcurrentQueue<RegisterPortRequest> Registered { get; } = new();

    public ConcurrentQueue<string> Deleted { get; } = new();

    public ConcurrentQueue<AttachHello> Attached { get; } = new();

    public Channel<WatchNetworksResponse> Networks { get; private set; } = Channel.CreateUnbounded<WatchNetworksResponse>();

    public ConcurrentQueue<string> ResumeTokens { get; } = new();

    /// <summary>Memory of the rings that were given out, for those who want to spoil it.</summary>
    public ConcurrentQueue<FileDescriptor> RingMemories { get; } = new();

    /// <summary>What this keeps open for each ring: memory and two doorbells, the same again as they were sent, and memory for spoiling.</summary>
    public int DescriptorsPerRing => 7;

    public async Task StartAsync()
    {
        File.Delete(Socket);
        WebApplicationBuilder builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.Services.AddGrpc();
        builder.Services.AddSingleton(this);
        builder.WebHost.UseKestrelCore().ConfigureKestrel(options => options.ListenUnixSocket(Socket, listen => listen.Protocols = HttpProtocols.Http2));
        _app = builder.Build();
        _app.MapGrpcService<Ports>();
        _app.MapGrpcService<NetworksRpc>();
        await _app.StartAsync();
        _loop = new EventLoop("fake-switch", _ => { });
        _loop.Start();
        if (HasHandoff)
            _handoff = new HandoffServerStub(HandoffSocket) { Answer = GiveRing };
    }

    /// <summary>As by kill -9: all sockets close.</summary>
    public async Task StopAsync()
    {
        if (_app is null)
            return;
        _handoff?.Dispose();
        _handoff = null;
        using var now = new CancellationTokenSource(TimeSpan.FromMilliseconds(1));
        Networks.Writer.TryComplete();
        try
        {
            await _app.StopAsync(now.Token);
        }
        catch (OperationCanceledException)
        {
        }
        await _app.DisposeAsync();
        _app = null;
        _loop!.Dispose();
        lock (_echoes)
        {
            _echoes.ForEach(echo => echo.Dispose());
            _echoes.Clear();
        }
        Networks = Channel.CreateUnbounded<WatchNetworksResponse>();
    }

    public void CloseRings() => _handoff?.CloseLives();

    public async ValueTask DisposeAsync()
    {
        await StopAsync();
        while (RingMemories.TryDequeue(out FileDescriptor? memory))
            memory.Dispose();
        Directory.Delete(Folder, recursive: true);
    }

    private (HandoffResponse Response, FileDescriptor[] Descriptors) GiveRing(HandoffRequest request)
    {
        if (RefusesRings)
            return (new HandoffResponse(HandoffStatus.Failed, 0, LinkOffloads.None, "no rings today"), []);
        RingMemory memory = RingMemory.Create(request.RingCapacity);
        RingMemories.Enqueue(memory.Descriptor.Duplicate());
        FileDescriptor own = SysEpoll.CreateEvent(), far = SysEpoll.CreateEvent();
        FileDescriptor[] sent = [memory.Descriptor.Duplicate(), far.Duplicate(), own.Duplicate()];
        var echo = new RingEcho(new RingLink(memory, isMaker: true, own, far, LinkOffloads.All));
        lock (_echoes)
            _echoes.Add(echo);
        EventLoop loop = _loop!;
        loop.Post(() => echo.Start(loop));
        return (new HandoffResponse(HandoffStatus.Ok, request.RingCapacity, request.Offloads, ""), sent);
    }

    private sealed class RingEcho(RingLink link) : ILoopWork, IReadyHandler, IDisposable
    {
        public void Start(EventLoop loop)
        {
            loop.Register(link.Descriptor, SysEpoll.EPOLLIN, this);
            loop.Add(this);
        }

        public void OnReady(uint events, long now)
        {
        }

        public long OnTurn(long now)
        {
            while (link.TryReceive(out ReadOnlySpan<byte> record, out TraceContext trace) == ReceiveStatus.Received)
                link.TrySend(record, trace);
            link.Flush();
            return long.MaxValue;
        }

        public bool PrepareToSleep() => link.PrepareToSleep();

        public void Dispose() => link.Dispose();
    }

    private sealed class Ports(FakeSwitch owner) : PortService.PortServiceBase
    {
        public override Task<RegisterPortResponse> RegisterPort(RegisterPortRequest request, ServerCallContext context)
        {
            owner.Registered.Enqueue(request);
            return Task.FromResult(new RegisterPortResponse { Port = request.Port, HandoffToken = ByteString.CopyFrom(new byte[16]) });
        }

        public override Task<DeletePortResponse> DeletePort(DeletePortRequest request, ServerCallContext context)
        {
            owner.Deleted.Enqueue(request.Name);
            return Task.FromResult(new DeletePortResponse());
        }

        public override async Task Attach(IAsyncStreamReader<AttachRequest> requests, IServerStreamWriter<AttachResponse> responses, ServerCallContext context)
        {
            await requests.MoveNext(context.CancellationToken);
            owner.Attached.Enqueue(requests.Current.Hello);
            if (requests.Current.Hello.PortId == "refused")
                throw new RpcException(new Status(StatusCode.AlreadyExists, "there is such a port"));
            if (requests.Current.Hello.PortId == "mute")
                await Task.Delay(Timeout.Infinite, context.CancellationToken);
            await responses.WriteAsync(new AttachResponse { Welcome = new AttachWelcome() }, context.CancellationToken);
            while (await requests.MoveNext(context.CancellationToken))
            {
                if (requests.Current.Frames.Frames.Any(frame => frame.Data.Span[^1] == 0xEE))
                    return;
                await responses.WriteAsync(new AttachResponse { Frames = requests.Current.Frames }, context.CancellationToken);
            }
        }
    }

    private sealed class NetworksRpc(FakeSwitch owner) : NetworkService.NetworkServiceBase
    {
        public override async Task WatchNetworks(WatchNetworksRequest request, IServerStreamWriter<WatchNetworksResponse> responses, ServerCallContext context)
        {
            owner.ResumeTokens.Enqueue(request.ResumeToken);
            await foreach (WatchNetworksResponse response in owner.Networks.Reader.ReadAllAsync(context.CancellationToken))
                await responses.WriteAsync(response, context.CancellationToken);
        }
    }
}
