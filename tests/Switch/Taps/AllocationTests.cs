using System.Net;
using System.Net.Sockets;
using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.Packets;
using VNetMesh.Switch.Forwarding;
using VNetMesh.Switch.Registry;
using VNetMesh.Switch.Tests.Support;

namespace VNetMesh.Switch.Tests.Taps;

/// <summary>The switch's data path with links as they are in service: no frame allocates anything.</summary>
public sealed class AllocationTests : IDisposable
{
    private const int Frames = 400;
    private static readonly MacAddress Guest = MacAddress.Parse("02:56:4e:00:00:01");
    private readonly NetworkForwarder _forwarder = new("networks/test", new ForwardingSettings(1500, 300_000_000, 1000, 100, false), null, new Nobody());
    private readonly List<IDisposable> _owned = [];
    private long _connection;

    [Fact]
    public void FromATapToATapARingAndAStreamNothingIsAllocated()
    {
        if (!Tap.Available)
            Assert.Skip("needs root and /dev/net/tun");
        using var one = new Namespace("switch-alloc1");
        using var two = new Namespace("switch-alloc2");
        (ForwardingPort first, _) = PlugTap(one, "switch-al1", "10.99.0.1/24", Guest);
        (ForwardingPort second, TapLink secondTap) = PlugTap(two, "switch-al2", "10.99.0.2/24", MacAddress.Parse("02:56:4e:00:00:02"));
        (ForwardingPort ring, RingLink peer) = PlugRing();
        var stream = new AttachLink(LinkOffloads.None);
        ForwardingPort attached = Plug("stream", stream);
        using Socket socket = OpenSocket(one);

        long allocated = 0;
        // The first rounds compile what runs.
        for (int round = 0; round < 4; round++)
        {
            Broadcast(socket);
            long before = GC.GetAllocatedBytesForCurrentThread();
            Drain(first);
            allocated = GC.GetAllocatedBytesForCurrentThread() - before;
            Empty(peer, stream);
        }
        Assert.Equal(0, allocated);
        Assert.True(second.Counters.TxFrames >= Frames * 3, $"{second.Counters.TxFrames} frames to the other TAP");
        Assert.True(ring.Counters.TxFrames >= Frames * 3, $"{ring.Counters.TxFrames} frames to the ring");
        Assert.True(attached.Counters.TxFrames >= Frames * 3, $"{attached.Counters.TxFrames} frames to the stream");
        Assert.Equal(0, secondTap.SendError);

        // And back: from a ring to one TAP.
        byte[] record = Support.Frames.Record(Guest, Support.Frames.B, 1400);
        for (int round = 0; round < 4; round++)
        {
            for (int i = 0; i < 100; i++)
                Assert.Equal(SendStatus.Sent, peer.TrySend(record, default));
            long before = GC.GetAllocatedBytesForCurrentThread();
            Drain(ring);
            allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        }
        Assert.Equal(0, allocated);
        Assert.True(first.Counters.TxFrames >= 400);
    }

    public void Dispose()
    {
        _forwarder.Close();
        _owned.ForEach(owned => owned.Dispose());
    }

    private void Drain(ForwardingPort port)
    {
        for (int turn = 0; turn < 40; turn++)
        {
            _forwarder.Serve(port, turn);
            _forwarder.OnTurn(turn);
        }
    }

    private static void Empty(RingLink peer, AttachLink stream)
    {
        while (peer.TryReceive(out _, out _) == ReceiveStatus.Received)
        {
        }
        while (stream.TryTakeForClient(out _, out _))
        {
        }
    }

    /// <summary>Datagrams of two sizes, with partial checksums, into the TAP's queue.</summary>
    private static void Broadcast(Socket socket)
    {
        byte[] payload = new byte[1200];
        for (int i = 0; i < Frames; i++)
            socket.SendTo(payload.AsSpan(0, i % 2 == 0 ? 20 : 1200), new IPEndPoint(IPAddress.Parse("10.99.0.255"), 4242));
    }

    private static Socket OpenSocket(Namespace space)
    {
        Socket? socket = null;
        // A thread that enters a namespace stays there, so it is one of its own.
        var thread = new Thread(() =>
        {
            using var place = new FileDescriptor(Syscall.Check(Fcntl.open("/run/netns/" + space.Name, Fcntl.O_RDONLY | Fcntl.O_CLOEXEC), "open"));
            Syscall.Check(Sched.setns(place.Number, Sched.CLONE_NEWNET), "setns");
            socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp) { EnableBroadcast = true, SendBufferSize = 4 * 1024 * 1024 };
        });
        thread.Start();
        thread.Join();
        return socket!;
    }

    private (ForwardingPort, TapLink) PlugTap(Namespace space, string device, string address, MacAddress mac)
    {
        FileDescriptor tap = Tap.Create(device);
        space.Adopt(device, address, mac.ToString());
        Assert.Null(TapLink.Inspect(tap, out _));
        var link = new TapLink(tap, LinkOffloads.Tcp);
        return (Plug(device, link), link);
    }

    private (ForwardingPort, RingLink) PlugRing()
    {
        RingMemory memory = RingMemory.Create(2 * 1024 * 1024);
        FileDescriptor own = SysEpoll.CreateEvent(), far = SysEpoll.CreateEvent();
        var peer = new RingLink(RingMemory.Map(memory.Descriptor.Duplicate(), memory.Capacity), isMaker: false, far.Duplicate(), own.Duplicate(), LinkOffloads.All);
        _owned.Add(peer);
        return (Plug("ring", new RingLink(memory, isMaker: true, own, far, LinkOffloads.Tcp)), peer);
    }

    private ForwardingPort Plug(string id, IFrameLink link)
    {
        ForwardingPort port = _forwarder.CreatePort("networks/test/ports/" + id, PortRole.Guest);
        _forwarder.AddPort(port);
        _forwarder.Connect(port, link, ++_connection, null);
        return port;
    }

    private sealed class Nobody : ILinkObserver
    {
        public void OnLinkLost(ForwardingPort port, long connection, string reason) => throw new InvalidOperationException(reason);
    }
}
