using System.Diagnostics;
using System.Net.Sockets;
using Microsoft.Extensions.Logging.Abstractions;
using VNetMesh.Hosting;
using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.Switch.Forwarding;
using VNetMesh.Switch.Handoff;
using VNetMesh.Switch.Registry;
using VNetMesh.Switch.Tests.Support;

namespace VNetMesh.Switch.Tests.Handoff;

/// <summary>The hand-off server with real sockets, rings and descriptors.</summary>
public sealed class HandoffServerTests : IAsyncLifetime
{
    private const string Network = "networks/vmnet8";

    private readonly string _directory = Directory.CreateTempSubdirectory("vnms").FullName;
    private readonly NetworkRegistry _registry;
    private readonly ForwardingPlane _plane = new(NullLogger<ForwardingPlane>.Instance);
    private readonly PortDirectory _ports;
    private readonly HandoffTokens _tokens = new(TimeProvider.System);
    private readonly HandoffServer _server;

    public HandoffServerTests()
    {
        _registry = new NetworkRegistry(new NetworkStore(Path.Combine(_directory, "registry.db")), TimeProvider.System, NullLogger<NetworkRegistry>.Instance);
        _ports = new PortDirectory(_registry, _plane, TimeProvider.System, NullLogger<PortDirectory>.Instance);
        _server = new HandoffServer(new RuntimePaths(_directory, _directory), _tokens, _ports, NullLogger<HandoffServer>.Instance);
    }

    private string SocketPath => Path.Combine(_directory, "handoff.sock");

    public async ValueTask InitializeAsync() => await _server.StartAsync(default);

    public async ValueTask DisposeAsync()
    {
        await _server.StopAsync(default);
        _server.Dispose();
        await _ports.DisposeAsync();
        _plane.Dispose();
        _registry.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    [Fact]
    public void TheSocketIsForItsOwnerAlone() => Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(SocketPath));

    [Fact]
    public async Task RingsCarryFramesFromOnePeerToAnother()
    {
        (PortEntry one, RingLink first, FileDescriptor firstLife) = OpenRing("one");
        (PortEntry two, RingLink second, FileDescriptor secondLife) = OpenRing("two");
        using (firstLife)
        using (secondLife)
        using (first)
        using (second)
        {
            byte[] record = Frames.Record(Frames.B, Frames.A, 1400);
            Assert.Equal(SendStatus.Sent, first.TrySend(record, new TraceContext(7, 8, 9, true)));
            first.Flush();
            Assert.Equal(record, await ReceiveAsync(second));
            second.TrySend(Frames.Record(Frames.A, Frames.B), default);
            second.Flush();
            Assert.Equal(Frames.Record(Frames.A, Frames.B), await ReceiveAsync(first));
            Assert.Equal((PortState.Up, PortState.Up), (one.Info.State, two.Info.State));
            Assert.Equal((1, 1), (one.Forwarding.Counters.RxFrames, one.Forwarding.Counters.TxFrames));
        }
        await UntilAsync(() => one.Info.State == PortState.Down && two.Info.State == PortState.Down);
    }

    [Fact]
    public async Task ABrokenRingTakesItsPortDownAndNothingElse()
    {
        PortEntry one = Register("one", PortTransport.Ring);
        using RawRing broken = AskRaw(one);
        FileDescriptor firstLife = broken.Life;
        (PortEntry two, RingLink second, FileDescriptor secondLife) = OpenRing("two");
        using (secondLife)
        using (second)
        {
            broken.Break();
            await UntilAsync(() => one.Info.State == PortState.Down);
            Assert.Equal(1, one.Forwarding.Drops(DropCause.RingFault));
            Assert.Equal(PortState.Up, two.Info.State);
            // The socket that was its sign of life is closed as well.
            byte[] nothing = new byte[1];
            Assert.Equal(0, DescriptorMessage.Receive(firstLife.Number, nothing, [], out _));
        }
        (one, RingLink again, FileDescriptor life) = OpenRing("one");
        again.Dispose();
        life.Dispose();
    }

    [Fact]
    public async Task ANewRingReplacesTheOldAtTheMomentItIsConnected()
    {
        (PortEntry one, RingLink old, FileDescriptor oldLife) = OpenRing("one");
        byte[] token = _tokens.Issue(_ports.Register(one.Info));
        Assert.True(IsOpen(oldLife));
        (RingLink link, FileDescriptor life) = HandoffClient.AskForRing(SocketPath, token, 512 * 1024, LinkOffloads.None);
        await UntilAsync(() => !IsOpen(oldLife));
        Assert.Equal(PortState.Up, one.Info.State);
        old.Dispose();
        oldLife.Dispose();
        await Task.Delay(100);
        Assert.Equal(PortState.Up, one.Info.State);
        link.Dispose();
        life.Dispose();
        await UntilAsync(() => one.Info.State == PortState.Down);
    }

    [Fact]
    public void ATokenWorksOnce()
    {
        PortEntry port = Register("one", PortTransport.Ring);
        byte[] token = _tokens.Issue(port);
        (RingLink link, FileDescriptor life) = HandoffClient.AskForRing(SocketPath, token, 256 * 1024, LinkOffloads.All);
        Assert.Equal(HandoffStatus.TokenUnknown, Refusal(() => HandoffClient.AskForRing(SocketPath, token, 256 * 1024, LinkOffloads.All)));
        Assert.Equal(HandoffStatus.TokenUnknown, Refusal(() => HandoffClient.AskForRing(SocketPath, new byte[16], 256 * 1024, LinkOffloads.All)));
        link.Dispose();
        life.Dispose();
    }

    [Fact]
    public void ATokenIsReplacedByTheNextAndDiesWithItsPort()
    {
        PortEntry port = Register("one", PortTransport.Ring);
        byte[] old = _tokens.Issue(port);
        byte[] current = _tokens.Issue(port);
        Assert.Equal(1, _tokens.Count);
        Assert.Equal(HandoffStatus.TokenUnknown, Refusal(() => HandoffClient.AskForRing(SocketPath, old, 256 * 1024, LinkOffloads.All)));
        _ports.Delete(port.Info.Name);
        Assert.Equal(HandoffStatus.Failed, Refusal(() => HandoffClient.AskForRing(SocketPath, current, 256 * 1024, LinkOffloads.All)));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1000)]
    [InlineData(200_000)]
    [InlineData(1 << 30)]
    [InlineData(-1)]
    public void ARingOfABadSizeIsRefused(int capacity)
    {
        byte[] token = _tokens.Issue(Register("one", PortTransport.Ring));
        Assert.Equal(HandoffStatus.Mismatch, Refusal(() => HandoffClient.AskForRing(SocketPath, token, capacity, LinkOffloads.All)));
    }

    [Fact]
    public void WhatIsNoTapIsRefused()
    {
        PortEntry port = Register("tap", PortTransport.Tap);
        Assert.Equal(HandoffStatus.Mismatch, Refusal(() => HandoffClient.AskForRing(SocketPath, _tokens.Issue(port), 256 * 1024, LinkOffloads.All)));
        using var file = new FileDescriptor(Syscall.Check(Fcntl.open("/dev/null", Fcntl.O_RDWR), "open"));
        Assert.Equal(HandoffStatus.Mismatch, Refusal(() => HandoffClient.HandOverTap(SocketPath, _tokens.Issue(port), file, LinkOffloads.All)));
        // No descriptor at all.
        using FileDescriptor socket = Connect();
        byte[] request = new byte[HandoffRequest.Length];
        new HandoffRequest(HandoffKind.Tap, System.Buffers.Binary.BinaryPrimitives.ReadUInt128BigEndian(_tokens.Issue(port)), 0, LinkOffloads.All).Write(request);
        Assert.Equal(HandoffStatus.Mismatch, Ask(socket, request));
        Assert.Equal(PortState.Waiting, port.Info.State);
    }

    [Fact]
    public async Task AVmsSocketCarriesFramesAndALengthThatNoneHasEndsIt()
    {
        (_, RingLink ring, FileDescriptor life) = OpenRing("peer");
        using (life)
        using (ring)
        {
            PortEntry vm = Register("vm", PortTransport.VmSocket);
            (Socket far, Socket near) = ConnectedPair();
            using (far)
            using (near)
            using (var kept = new FileDescriptor(Syscall.Check(Fcntl.fcntl((int)near.SafeHandle.DangerousGetHandle(), Fcntl.F_DUPFD_CLOEXEC, 0), "fcntl")))
            {
                HandoffClient.HandOverVmSocket(SocketPath, _tokens.Issue(vm), kept);
                Assert.Equal(PortState.Up, vm.Info.State);
                byte[] frame = Frames.Record(Frames.B, Frames.A, 1400)[12..];
                far.Send([0, 0, (byte)(frame.Length >> 8), (byte)frame.Length, .. frame]);
                Assert.Equal(frame, (await ReceiveAsync(ring))[12..]);

                byte[] answer = Frames.Record(Frames.A, Frames.B, 900);
                Assert.Equal(SendStatus.Sent, ring.TrySend(answer, default));
                ring.Flush();
                byte[] received = new byte[4 + answer.Length - 12];
                far.ReceiveTimeout = 5000;
                for (int at = 0; at < received.Length;)
                    at += far.Receive(received, at, received.Length - at, SocketFlags.None);
                Assert.Equal([0, 0, (byte)((answer.Length - 12) >> 8), (byte)(answer.Length - 12), .. answer[12..]], received);

                far.Send(new byte[4]);
                await UntilAsync(() => vm.Info.State == PortState.Down);
                Assert.Equal(1, vm.Forwarding.Drops(DropCause.SocketFault));
                Assert.Equal(0, far.Receive(received));
            }
        }
    }

    [Fact]
    public void WhatIsNoConnectedSocketIsRefused()
    {
        PortEntry port = Register("vm", PortTransport.VmSocket);
        using var file = new FileDescriptor(Syscall.Check(Fcntl.open("/dev/null", Fcntl.O_RDWR), "open"));
        Assert.Equal(HandoffStatus.Mismatch, Refusal(() => HandoffClient.HandOverVmSocket(SocketPath, _tokens.Issue(port), file)));
        using var alone = new FileDescriptor(Syscall.Check(SysSocket.socket(SysSocket.AF_UNIX, SysSocket.SOCK_STREAM | SysSocket.SOCK_CLOEXEC, 0), "socket"));
        Assert.Equal(HandoffStatus.Mismatch, Refusal(() => HandoffClient.HandOverVmSocket(SocketPath, _tokens.Issue(port), alone)));
        Assert.Equal(HandoffStatus.Mismatch, Refusal(() => HandoffClient.AskForRing(SocketPath, _tokens.Issue(port), 256 * 1024, LinkOffloads.All)));
        Assert.Equal(PortState.Waiting, port.Info.State);
    }

    [Theory]
    [InlineData((short)(IfTun.IFF_TAP | IfTun.IFF_NO_PI), 12, "IFF_VNET_HDR")]
    [InlineData((short)(IfTun.IFF_TAP | IfTun.IFF_NO_PI | IfTun.IFF_VNET_HDR), 10, "12 octets")]
    public void ATapThatIsMadeOtherwiseIsRefused(short flags, int headerSize, string what)
    {
        if (!Tap.Available)
            Assert.Skip("needs root and /dev/net/tun");
        using FileDescriptor tap = Tap.Create("switch-h%d", offloads: false, flags, headerSize);
        byte[] token = _tokens.Issue(Register("tap", PortTransport.Tap));
        HandoffException refusal = Assert.Throws<HandoffException>(() => HandoffClient.HandOverTap(SocketPath, token, tap, LinkOffloads.All));
        Assert.Equal(HandoffStatus.Mismatch, refusal.Status);
        Assert.Contains(what, refusal.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void GarbageGetsAnAnswerAndIsForgotten()
    {
        var random = new Random(1);
        for (int i = 0; i < 200; i++)
        {
            using FileDescriptor socket = Connect();
            byte[] bytes = new byte[random.Next(1, 400)];
            random.NextBytes(bytes);
            if (i % 2 == 0 && bytes.Length >= 6)
                new byte[] { 0x56, 0x4E, 0x48, 0x4F, 0, 1 }.CopyTo(bytes, 0);
            Assert.Contains(Ask(socket, bytes), new[] { HandoffStatus.Malformed, HandoffStatus.TokenUnknown });
        }
        ATokenWorksOnce();
    }

    [Fact]
    public async Task ASilentClientIsDroppedAndKeepsNobodyWaiting()
    {
        var watch = Stopwatch.StartNew();
        using FileDescriptor silent = Connect();
        ATokenWorksOnce();
        Assert.True(watch.Elapsed < TimeSpan.FromSeconds(3));
        await UntilAsync(() => !IsOpen(silent), seconds: 8);
        Assert.InRange(watch.Elapsed, TimeSpan.FromSeconds(4.5), TimeSpan.FromSeconds(8));
    }

    private (PortEntry, RingLink, FileDescriptor) OpenRing(string id)
    {
        PortEntry port = Register(id, PortTransport.Ring);
        (RingLink link, FileDescriptor life) = HandoffClient.AskForRing(SocketPath, _tokens.Issue(port), 256 * 1024, LinkOffloads.All);
        Assert.Equal(PortState.Up, port.Info.State);
        return (port, link, life);
    }

    private RawRing AskRaw(PortEntry port)
    {
        FileDescriptor socket = Connect();
        byte[] request = new byte[HandoffRequest.Length];
        new HandoffRequest(HandoffKind.Ring, System.Buffers.Binary.BinaryPrimitives.ReadUInt128BigEndian(_tokens.Issue(port)), 256 * 1024, LinkOffloads.All).Write(request);
        DescriptorMessage.Send(socket.Number, request, []);
        var descriptors = new FileDescriptor[3];
        DescriptorMessage.Receive(socket.Number, new byte[HandoffResponse.MaxLength], descriptors, out int count);
        Assert.Equal(3, count);
        return new RawRing(RingMemory.Map(descriptors[0], 256 * 1024), descriptors[1], descriptors[2], socket);
    }

    private (Socket Far, Socket Near) ConnectedPair()
    {
        var place = new UnixDomainSocketEndPoint(Path.Combine(_directory, "vm.sock"));
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(place);
        listener.Listen(1);
        var far = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        far.Connect(place);
        return (far, listener.Accept());
    }

    private PortEntry Register(string id, PortTransport transport) =>
        _ports.Register(new PortInfo { Network = Network, Id = id, Role = PortRole.Guest, Transport = transport, Owner = "test" });

    private static HandoffStatus Refusal(Action action) => Assert.Throws<HandoffException>(action).Status;

    private unsafe FileDescriptor Connect()
    {
        var socket = new FileDescriptor(Syscall.Check(SysSocket.socket(SysSocket.AF_UNIX, SysSocket.SOCK_SEQPACKET | SysSocket.SOCK_CLOEXEC, 0), "socket"));
        uint length = SysSocket.WriteUnixAddress(SocketPath, out SysSocket.sockaddr_un address);
        Syscall.Check(SysSocket.connect(socket.Number, &address, length), "connect");
        return socket;
    }

    private static HandoffStatus Ask(FileDescriptor socket, byte[] request)
    {
        DescriptorMessage.Send(socket.Number, request, []);
        byte[] answer = new byte[HandoffResponse.MaxLength];
        int length = DescriptorMessage.Receive(socket.Number, answer, [], out _);
        Assert.True(HandoffResponse.TryParse(answer.AsSpan(0, length), out HandoffResponse response));
        return response.Status;
    }

    /// <summary>Whether the far side has not closed.</summary>
    private static unsafe bool IsOpen(FileDescriptor socket)
    {
        byte nothing;
        return SysSocket.recv(socket.Number, &nothing, 1, SysSocket.MSG_DONTWAIT | SysSocket.MSG_PEEK) < 0 && Syscall.Errno == NativeErrno.EAGAIN;
    }

    private static async Task<byte[]> ReceiveAsync(RingLink link)
    {
        byte[]? received = null;
        await UntilAsync(() =>
        {
            if (link.TryReceive(out ReadOnlySpan<byte> record, out _) == ReceiveStatus.Received)
                received = record.ToArray();
            return received is not null;
        });
        return received!;
    }

    private static async Task UntilAsync(Func<bool> condition, int seconds = 5)
    {
        for (var watch = Stopwatch.StartNew(); !condition(); await Task.Delay(5))
            Assert.True(watch.Elapsed < TimeSpan.FromSeconds(seconds), "it did not happen in time");
    }

    /// <summary>A peer that writes what it likes.</summary>
    private sealed class RawRing(RingMemory memory, FileDescriptor own, FileDescriptor far, FileDescriptor life) : IDisposable
    {
        public FileDescriptor Life { get; } = life;

        /// <summary>Publishes a record whose length is beyond every bound.</summary>
        public unsafe void Break()
        {
            nint address = Syscall.Check(SysMman.mmap(0, (nuint)(2 * Ring.SizeOf(memory.Capacity)), SysMman.PROT_READ | SysMman.PROT_WRITE, SysMman.MAP_SHARED, memory.Descriptor.Number, 0), "mmap");
            byte* ring = (byte*)address + Ring.SizeOf(memory.Capacity);
            *(uint*)(ring + Ring.HeaderLength) = 0x7FFF_FFFF;
            Volatile.Write(ref *(ulong*)ring, 64);
            SysEpoll.Signal(far.Number);
            _ = SysMman.munmap(address, (nuint)(2 * Ring.SizeOf(memory.Capacity)));
        }

        public void Dispose()
        {
            memory.Dispose();
            own.Dispose();
            far.Dispose();
            Life.Dispose();
        }
    }
}
