using System.Collections.Concurrent;
using System.Diagnostics;
using Microsoft.Extensions.Logging.Abstractions;
using VNetMesh.Hosting;
using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.Packets;
using VNetMesh.Switch.Tests.Support;
using VNetMesh.V1;

namespace VNetMesh.Switch.Tests.Handoff;

/// <summary>Peers of rings that lie, hang and die, beside a real switch; and a switch that hangs and dies, beside a service's port.</summary>
public sealed class HostilePeerTests(SharedSwitch shared) : IClassFixture<SharedSwitch>
{
    private const string Network = "networks/vmnet1";
    private const int Produced = 0, Consumed = 64;

    public static TheoryData<string, bool, int, ulong, long> Lies => new()
    {
        // What is wrong; the ring and the index that is written, its value; and the length of the first record, −1: none.
        { "an index that is no multiple of 64", false, Produced, 1, -1 },
        { "more was published than the ring holds", false, Produced, RawRing.Capacity + 64, -1 },
        { "what was published goes back", false, Produced, ulong.MaxValue - 63, -1 },
        { "more was consumed than was published", true, Consumed, 1 << 20, -1 },
        { "a record without octets", false, Produced, 64, 0 },
        { "a record beyond every bound", false, Produced, 64, 0x7FFF_FFFF },
        { "a record that goes beyond what was published", false, Produced, 64, 1500 },
        { "a way back to the start that was not published whole", false, Produced, 64, 0xFFFF_FFFF },
    };

    [Theory]
    [MemberData(nameof(Lies))]
    public async Task ALieEndsItsPortAloneAndThePeerMayComeAgain(string what, bool fromSwitch, int index, ulong value, long length)
    {
        TestContext.Current.TestOutputHelper?.WriteLine(what);
        SwitchProcess process = shared.Process;
        using var good = new Pair(process);
        using RawRing liar = RawRing.Open(process, Network, "liar");
        if (length >= 0)
            liar.WriteLength(0, (uint)length);
        long before = await RingFaultsAsync(process);
        liar.Index(fromSwitch, index) = value;
        // The switch looks at what was published when it is rung for, and at what its peer consumed when it needs the room.
        liar.RingDoorbell();
        await good.CarryAsync();
        await UntilAsync(async () =>
        {
            for (int i = 0; i < 50; i++)
                good.Broadcast(1400);
            return (await PortAsync(process, "liar")).State == PortState.Down;
        });
        Assert.Equal(before + 1, await RingFaultsAsync(process));
        await good.CarryAsync();

        using RawRing better = RawRing.Open(process, Network, "liar");
        Assert.Equal(PortState.Up, (await PortAsync(process, "liar")).State);
        better.WriteRecord(Frames.Record(Frames.A, Frames.C));
        better.Index(fromSwitch: false, Produced) = 128;
        better.RingDoorbell();
        await UntilAsync(async () => (await PortAsync(process, "liar")).Counters.RxFrames > 0);
    }

    [Fact]
    public async Task APeerThatHangsOrDiesInTheMiddleOfARecordStopsNobody()
    {
        SwitchProcess process = shared.Process;
        using var good = new Pair(process);
        using RawRing hanging = RawRing.Open(process, Network, "hanging");
        // A record is half written, not published, and the doorbell rings all the same.
        hanging.WriteRecord(Frames.Record(MacAddress.Broadcast, Frames.C));
        hanging.RingDoorbell();
        await good.CarryAsync();
        // It takes nothing, either: its ring runs full, and what is for it is lost, by name.
        for (int i = 0; i < 400; i++)
        {
            good.Broadcast(1400);
            if (i % 64 == 63)
                await good.CarryAsync();
        }
        await UntilAsync(async () => (await PortAsync(process, "hanging")).Counters.Drops.ContainsKey("queue_full"));
        await good.CarryAsync();
        Port hung = await PortAsync(process, "hanging");
        Assert.Equal(PortState.Up, hung.State);
        Assert.Equal(0UL, (ulong)hung.Counters.RxFrames);
        hanging.Dispose();
        await UntilAsync(async () => (await PortAsync(process, "hanging")).State == PortState.Down);
        await good.CarryAsync();
    }

    [Fact]
    public async Task ASwitchThatHangsIsNoticedWithoutBlockingAndGoesOn()
    {
        await using SwitchProcess process = await SwitchProcess.StartAsync();
        using var service = new Service(process, "one");
        await service.ConnectedAsync(1);
        process.Signal("STOP");
        try
        {
            await UntilAsync(() =>
            {
                service.Send(Frames.Record(MacAddress.Broadcast, Frames.A));
                return Task.FromResult(service.Client.IsStalled);
            });
            // The loop goes around: it answers at once, though the ring may be full by now.
            for (int i = 0; i < 2000; i++)
                service.Send(Frames.Record(MacAddress.Broadcast, Frames.A, 1400));
            var watch = Stopwatch.StartNew();
            Assert.Contains(SendStatus.Full, await service.Loop.InvokeAsync(() => service.Statuses.ToArray()));
            Assert.True(watch.ElapsedMilliseconds < 500, $"the loop answered after {watch.ElapsedMilliseconds} ms");
        }
        finally
        {
            process.Signal("CONT");
        }
        await UntilAsync(() => Task.FromResult(!service.Client.IsStalled));
        Assert.Equal(1, service.Connections);
        long before = (long)(await PortAsync(process, "one")).Counters.RxFrames;
        service.Send(Frames.Record(MacAddress.Broadcast, Frames.A));
        await UntilAsync(async () => (long)(await PortAsync(process, "one")).Counters.RxFrames > before);
    }

    [Fact]
    public async Task ASwitchThatDiesInTheMiddleOfTrafficIsReplaced()
    {
        await using SwitchProcess process = await SwitchProcess.StartAsync();
        using var service = new Service(process, "one");
        for (int life = 1; life <= 3; life++)
        {
            await service.ConnectedAsync(life);
            for (int i = 0; i < 200; i++)
                service.Send(Frames.Record(MacAddress.Broadcast, Frames.A, 1400));
            await UntilAsync(async () => (await PortAsync(process, "one")).Counters.RxFrames >= 1);
            // Frames are under way, and a record is begun that never will be whole.
            for (int i = 0; i < 200; i++)
                service.Send(Frames.Record(MacAddress.Broadcast, Frames.A, 1400));
            await process.KillAsync();
            await process.LaunchAsync();
        }
    }

    private static async Task<Port> PortAsync(SwitchProcess process, string id) =>
        (await process.Ports.GetPortAsync(new GetPortRequest { Name = $"{Network}/ports/{id}" })).Port;

    private static async Task<long> RingFaultsAsync(SwitchProcess process) =>
        (await PortAsync(process, "liar")).Counters.Drops.TryGetValue("ring_fault", out var count) ? (long)count : 0;

    private static async Task UntilAsync(Func<Task<bool>> condition)
    {
        for (var watch = Stopwatch.StartNew(); !await condition(); await Task.Delay(10))
            Assert.True(watch.Elapsed < TimeSpan.FromSeconds(10), "it did not happen in time");
    }

    /// <summary>Two peers in good order.</summary>
    private sealed class Pair : IDisposable
    {
        private readonly (RingLink Link, FileDescriptor Life) _one;
        private readonly (RingLink Link, FileDescriptor Life) _two;

        public Pair(SwitchProcess process) => (_one, _two) = (Open(process, "good-one"), Open(process, "good-two"));

        /// <summary>A frame from one to the other and back.</summary>
        public async Task CarryAsync()
        {
            await PassAsync(_one.Link, _two.Link, Frames.Record(Frames.B, Frames.A, 100));
            await PassAsync(_two.Link, _one.Link, Frames.Record(Frames.A, Frames.B, 200));
        }

        public void Broadcast(int payload = 46)
        {
            _one.Link.TrySend(Frames.Record(MacAddress.Broadcast, Frames.A, payload), default);
            _one.Link.Flush();
        }

        public void Dispose()
        {
            foreach ((RingLink link, FileDescriptor life) in new[] { _one, _two })
            {
                link.Dispose();
                life.Dispose();
            }
        }

        private static (RingLink, FileDescriptor) Open(SwitchProcess process, string id)
        {
            RegisterPortResponse registered = process.Ports.RegisterPort(new RegisterPortRequest { Parent = Network, PortId = id, Port = new Port { Transport = PortTransport.Ring, Owner = "test" } });
            return HandoffClient.AskForRing(process.Paths.HandoffSocket, registered.HandoffToken.Span, RawRing.Capacity, LinkOffloads.All);
        }

        private static async Task PassAsync(RingLink from, RingLink to, byte[] record)
        {
            Assert.Equal(SendStatus.Sent, from.TrySend(record, default));
            from.Flush();
            await UntilAsync(() => Task.FromResult(TakeUntil(to, record.Length)));
        }

        private static bool TakeUntil(RingLink link, int length)
        {
            bool found = false;
            while (!found && link.TryReceive(out ReadOnlySpan<byte> record, out _) == ReceiveStatus.Received)
                found = record.Length == length;
            link.Flush();
            return found;
        }
    }

    /// <summary>A service's port, kept by <see cref="PortClient"/> on a loop of its own.</summary>
    private sealed class Service : IPortHandler, IDisposable
    {
        private readonly CancellationTokenSource _stop = new();
        private readonly Grpc.Net.Client.GrpcChannel _channel;
        private readonly Task _run;
        private IFrameLink? _link;
        private int _connections;

        public Service(SwitchProcess process, string id)
        {
            Loop = new EventLoop("service", _ => { });
            Loop.Start();
            _channel = UnixChannel.Create(process.Paths.Socket("switch"));
            var options = new PortClientOptions { Network = Network, PortId = id, Owner = "test", Mac = Frames.A, RingCapacity = RawRing.Capacity };
            Client = new PortClient(Loop, _channel, process.Paths.HandoffSocket, options, this, NullLogger.Instance);
            _run = Client.RunAsync(_stop.Token);
        }

        public EventLoop Loop { get; }

        public PortClient Client { get; }

        public int Connections => Volatile.Read(ref _connections);

        public ConcurrentQueue<SendStatus> Statuses { get; } = new();

        public void OnLinkUp(IFrameLink link)
        {
            _link = link;
            Interlocked.Increment(ref _connections);
        }

        public void OnLinkDown(string reason) => _link = null;

        public void Send(byte[] record) => Loop.Post(() =>
        {
            if (_link is null)
                return;
            Statuses.Enqueue(_link.TrySend(record, default));
            _link.Flush();
        });

        public Task ConnectedAsync(int times) => UntilAsync(() => Task.FromResult(Connections >= times && Loop.InvokeAsync(() => _link is not null).Result));

        public void Dispose()
        {
            _stop.Cancel();
            _run.Wait(5000);
            Loop.Dispose();
            _channel.Dispose();
            _stop.Dispose();
        }
    }
}
