using System.Collections.Concurrent;
using System.Threading.Channels;
using Grpc.Net.Client;
using Microsoft.Extensions.Logging.Abstractions;
using VNetMesh.Hosting;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Links.Tests;

[Collection(CountsDescriptors.Name)]
public sealed class PortClientTests : IAsyncLifetime
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);
    private readonly FakeSwitch _switch = new();
    private readonly Service _service = new();
    private readonly CancellationTokenSource _stop = new();
    private GrpcChannel? _channel;
    private Task _run = Task.CompletedTask;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public ValueTask InitializeAsync() => ValueTask.CompletedTask;

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _run.WaitAsync(Patience, CancellationToken.None);
        _channel?.Dispose();
        _service.Dispose();
        await _switch.DisposeAsync();
        _stop.Dispose();
    }

    [Fact]
    public async Task Waits_for_a_switch_that_is_not_up_yet_and_carries_frames_by_a_ring()
    {
        Run();
        await Task.Delay(300, Cancellation);
        Assert.Empty(_service.Events);
        await _switch.StartAsync();
        Assert.IsType<RingLink>(await _service.NextUpAsync());
        await _service.EchoAsync("one");
        V1.RegisterPortRequest request = Assert.Single(_switch.Registered);
        Assert.Equal(("networks/vmnet8", "nat", "02:56:4e:00:00:01", "nat"), (request.Parent, request.PortId, request.Port.Mac, request.Port.Owner));
        Assert.True(request.Port.Offloads.Tso4);
    }

    [Fact]
    public async Task Comes_back_each_time_the_switch_dies()
    {
        Run();
        for (int i = 0; i < 3; i++)
        {
            await _switch.StartAsync();
            await _service.NextUpAsync();
            await _service.EchoAsync($"life {i}");
            await _switch.StopAsync();
            Assert.Contains("switch is gone", await _service.NextDownAsync(), StringComparison.Ordinal);
        }
        // Each life was registered anew, and nothing was left registered with the loop.
        Assert.Equal(3, _switch.Registered.Count);
    }

    [Fact]
    public async Task Comes_back_when_the_switch_lets_go_of_the_ring_alone()
    {
        await _switch.StartAsync();
        Run();
        await _service.NextUpAsync();
        _switch.CloseRings();
        await _service.NextDownAsync();
        await _service.NextUpAsync();
        await _service.EchoAsync("again");
    }

    [Fact]
    public async Task A_ring_whose_rules_are_broken_is_given_up_by_name_and_replaced()
    {
        await _switch.StartAsync();
        Run();
        await _service.NextUpAsync();
        Spoil(_switch.RingMemories.Single());
        Assert.Contains("produced_out_of_range", await _service.NextDownAsync(), StringComparison.Ordinal);
        await _service.NextUpAsync();
        await _service.EchoAsync("sound again");
    }

    [Fact]
    public async Task Falls_back_to_the_stream_where_rings_are_refused()
    {
        _switch.RefusesRings = true;
        await _switch.StartAsync();
        Run();
        Assert.IsType<StreamLink>(await _service.NextUpAsync());
        await _service.EchoAsync("by stream");
        Assert.Equal("nat", Assert.Single(_switch.Attached).PortId);
        await _switch.StopAsync();
        await _service.NextDownAsync();
        // Where the switch that comes back gives rings, a ring it is again.
        _switch.RefusesRings = false;
        await _switch.StartAsync();
        Assert.IsType<RingLink>(await _service.NextUpAsync());
        await _service.EchoAsync("by ring");
    }

    [Fact]
    public async Task Uses_the_stream_when_told_to_and_comes_back_when_it_ends()
    {
        await _switch.StartAsync();
        Run(options => options with { PreferStream = true });
        Assert.IsType<StreamLink>(await _service.NextUpAsync());
        await _service.EchoAsync("one");
        _service.Send([.. new byte[14], 0xEE]); // upon which the far side ends the stream
        Assert.Contains("ended the stream", await _service.NextDownAsync(), StringComparison.Ordinal);
        await _service.NextUpAsync();
        await _service.EchoAsync("two");
        Assert.Empty(_switch.Registered);
    }

    [Fact]
    public async Task Stopped_it_takes_the_link_down_and_the_port_away()
    {
        await _switch.StartAsync();
        Run();
        await _service.NextUpAsync();
        await _stop.CancelAsync();
        await _run.WaitAsync(Patience, Cancellation);
        Assert.Equal("stopped", await _service.NextDownAsync());
        Assert.Equal("networks/vmnet8/ports/nat", Assert.Single(_switch.Deleted));
    }

    [Fact]
    public async Task A_handler_that_fails_is_taken_down_and_asked_again()
    {
        await _switch.StartAsync();
        _service.FailNextUp = true;
        Run();
        Assert.Contains("not now", await _service.NextDownAsync(), StringComparison.Ordinal);
        await _service.NextUpAsync();
        await _service.EchoAsync("now");
    }

    [Fact]
    public async Task Many_lives_leave_no_descriptor_open()
    {
        await _switch.StartAsync();
        Run();
        await _service.NextUpAsync();
        int before = 0;
        for (int i = 0; i < 7; i++)
        {
            _switch.CloseRings();
            await _service.NextDownAsync();
            await _service.NextUpAsync();
            if (i == 1)
                before = OpenRings();
        }
        // The far side keeps what it made until it is stopped: memory, twice two doorbells, and duplicates. This side keeps nothing.
        Assert.Equal(before + (5 * _switch.DescriptorsPerRing), OpenRings());
    }

    /// <summary>Descriptors of rings, among all that this process has.</summary>
    private static int OpenRings() => Directory.GetFiles("/proc/self/fd").Select(path => new FileInfo(path).LinkTarget ?? "")
        .Count(target => target.Contains("vnetmesh-ring", StringComparison.Ordinal) || target.Contains("eventfd", StringComparison.Ordinal));

    private void Run(Func<PortClientOptions, PortClientOptions>? change = null)
    {
        _channel = UnixChannel.Create(_switch.Socket);
        var options = new PortClientOptions { Network = "networks/vmnet8", PortId = "nat", Owner = "nat", Mac = MacAddress.Parse("02:56:4e:00:00:01"), RingCapacity = 256 * 1024 };
        var client = new PortClient(_service.Loop, _channel, _switch.HandoffSocket, change?.Invoke(options) ?? options, _service, NullLogger.Instance);
        _run = Task.Run(() => client.RunAsync(_stop.Token), CancellationToken.None);
    }

    private static unsafe void Spoil(FileDescriptor memory)
    {
        using var raw = new RawMapping(memory, 256 * 1024);
        *(ulong*)raw.Address = 3; // what the switch published
        // The client sleeps; the switch would ring. A frame of the client's own makes it look.
    }

    /// <summary>A service's loop with one port: sends what the test says, and gives it what comes.</summary>
    private sealed class Service : IPortHandler, ILoopWork, IReadyHandler, IDisposable
    {
        private readonly Channel<IFrameLink> _ups = Channel.CreateUnbounded<IFrameLink>();
        private readonly Channel<string> _downs = Channel.CreateUnbounded<string>();
        private readonly Channel<byte[]> _frames = Channel.CreateUnbounded<byte[]>();
        private IFrameLink? _link;
        private EventLoop.Registration _watch;

        public Service()
        {
            Loop = new EventLoop("service", exception => Events.Enqueue(exception.ToString()));
            Loop.Add(this);
            Loop.Start();
        }

        public EventLoop Loop { get; }

        public ConcurrentQueue<string> Events { get; } = new();

        public bool FailNextUp { get; set; }

        public void OnLinkUp(IFrameLink link)
        {
            Assert.True(Loop.IsCurrent);
            Assert.Null(_link);
            if (FailNextUp)
            {
                FailNextUp = false;
                throw new InvalidOperationException("not now");
            }
            _link = link;
            _watch = Loop.Register(link.Descriptor, SysEpoll.EPOLLIN, this);
            Events.Enqueue("up");
            _ups.Writer.TryWrite(link);
        }

        public void OnLinkDown(string reason)
        {
            Loop.Unregister(_watch);
            _link = null;
            Events.Enqueue("down");
            _downs.Writer.TryWrite(reason);
        }

        public void OnReady(uint events, long now)
        {
        }

        public long OnTurn(long now)
        {
            while (_link?.TryReceive(out ReadOnlySpan<byte> record, out _) == ReceiveStatus.Received)
                _frames.Writer.TryWrite(record[VirtioNetHeader.Length..].ToArray());
            _link?.Flush();
            return 20_000 + now;
        }

        public bool PrepareToSleep() => _link?.PrepareToSleep() ?? true;

        public async Task<IFrameLink> NextUpAsync() => await _ups.Reader.ReadAsync(Cancellation).AsTask().WaitAsync(Patience, Cancellation);

        public async Task<string> NextDownAsync() => await _downs.Reader.ReadAsync(Cancellation).AsTask().WaitAsync(Patience, Cancellation);

        public void Send(byte[] frame) => Loop.Post(() => _link?.TrySend([.. new byte[VirtioNetHeader.Length], .. frame], default));

        public async Task EchoAsync(string text)
        {
            byte[] frame = [.. new byte[14], .. System.Text.Encoding.UTF8.GetBytes(text)];
            Send(frame);
            Assert.Equal(frame, await _frames.Reader.ReadAsync(Cancellation).AsTask().WaitAsync(Patience, Cancellation));
        }

        public void Dispose() => Loop.Dispose();
    }
}
