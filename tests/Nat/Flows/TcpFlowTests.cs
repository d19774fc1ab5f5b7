using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using OpenTelemetry.Trace;
using VNetMesh.Links;
using VNetMesh.Nat.Flows;
using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Tests.Support;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tests.Flows;

/// <summary>The proxy segment by segment: the test is the guest, a listener on loopback is the remote.</summary>
public sealed class TcpFlowTests
{
    private const ushort GuestPort = 40000;

    [Fact]
    public void A_refusal_is_a_reset_that_acknowledges_the_syn()
    {
        using var bench = new Bench();
        ushort closed;
        using (var listener = new Listener())
            closed = listener.Port;
        var guest = new Guest(bench, closed);
        guest.Send(TcpFlags.Syn);
        TcpView reset = Frames.TcpOf(bench.Next());
        Assert.Equal(TcpFlags.Rst | TcpFlags.Ack, reset.Flags);
        Assert.Equal(guest.Next, reset.Acknowledgment);
        Assert.Empty(bench.Nat.Flows());
    }

    [Fact]
    public void Data_and_ends_cross_in_both_directions()
    {
        using var bench = new Bench();
        using var listener = new Listener();
        var guest = new Guest(bench, listener.Port);
        using Socket server = guest.Connect(listener);
        guest.Send(TcpFlags.Ack | TcpFlags.Psh, "request"u8);
        Assert.Equal("request", listener.Read(server));
        guest.Send(TcpFlags.Ack | TcpFlags.Fin);
        Assert.Equal(0, server.Receive(new byte[10])); // the guest's half is over
        Assert.Equal(FlowState.HalfClosed, Assert.Single(bench.Nat.Flows()).State);

        server.Send("late answer"u8);
        TcpView segment = guest.Expect(view => view.Payload.Length > 0);
        Assert.Equal("late answer"u8.ToArray(), segment.Payload.ToArray());
        server.Shutdown(SocketShutdown.Send);
        segment = guest.Expect(view => (view.Flags & TcpFlags.Fin) != 0);
        guest.Send(TcpFlags.Ack);
        Assert.True(TestNat.Within(3, () => bench.Nat.Flows().Count == 0));
    }

    [Fact]
    public void A_connection_that_is_over_is_no_flow_any_more_and_still_answers_a_fin_sent_again()
    {
        using var bench = new Bench(limits: new NatLimits(2, 1));
        using var listener = new Listener();
        var guest = new Guest(bench, listener.Port);
        Socket server = guest.Connect(listener);
        server.Dispose(); // the remote ends first: TIME-WAIT is nat's
        guest.Expect(view => (view.Flags & TcpFlags.Fin) != 0);
        byte[] end = guest.Build(TcpFlags.Fin | TcpFlags.Ack, default);
        bench.Give(end);
        Assert.True(TestNat.Within(3, () => bench.Nat.Flows().Count == 0));
        SequenceNumber acknowledged = guest.Expect(view => (view.Flags & TcpFlags.Ack) != 0).Acknowledgment;
        Assert.Equal(guest.Next, acknowledged);

        bench.Give(end);
        TcpView again = guest.Expect(view => true);
        Assert.Equal((TcpFlags.Ack, guest.Next), (again.Flags, again.Acknowledgment));

        // One flow is all that this guest may have: what lingers does not count, and a newer SYN takes its place.
        guest.Next = guest.Next.Add(10);
        using Socket next = guest.Connect(listener);
        guest.Send(TcpFlags.Ack | TcpFlags.Psh, "again"u8);
        Assert.Equal("again", listener.Read(next));
        Assert.Equal(0UL, bench.Drops[DropCause.FlowLimitGuest]);
    }

    [Fact]
    public void What_lingers_is_forgotten_in_time()
    {
        using var bench = new Bench();
        using var listener = new Listener();
        var guest = new Guest(bench, listener.Port);
        guest.Connect(listener).Dispose();
        guest.Expect(view => (view.Flags & TcpFlags.Fin) != 0);
        guest.Send(TcpFlags.Fin | TcpFlags.Ack);
        Assert.True(TestNat.Within(3, () => bench.Nat.Flows().Count == 0));
        guest.Expect(view => view.Acknowledgment == guest.Next);
        guest.Send(TcpFlags.Ack);
        bench.ExpectSilence(50);
        Assert.Equal(0UL, bench.Drops[DropCause.TcpNoFlow]);
        // 2 MSL and one sweep later the same segment is a stranger's.
        Assert.True(TestNat.Within(6, () =>
        {
            guest.Send(TcpFlags.Ack);
            Thread.Sleep(100);
            return bench.Drops[DropCause.TcpNoFlow] > 0;
        }));
        guest.Expect(view => (view.Flags & TcpFlags.Rst) != 0);
    }

    [Fact]
    public void A_guests_reset_resets_the_remote()
    {
        using var bench = new Bench();
        using var listener = new Listener();
        var guest = new Guest(bench, listener.Port);
        using Socket server = guest.Connect(listener);
        guest.Send(TcpFlags.Rst);
        SocketException error = Assert.Throws<SocketException>(() => server.Receive(new byte[1]));
        Assert.Equal(SocketError.ConnectionReset, error.SocketErrorCode);
        Assert.Empty(bench.Nat.Flows());
    }

    [Fact]
    public void A_remotes_reset_resets_the_guest()
    {
        using var bench = new Bench();
        using var listener = new Listener();
        var guest = new Guest(bench, listener.Port);
        Socket server = guest.Connect(listener);
        server.LingerState = new LingerOption(true, 0);
        server.Dispose();
        guest.Expect(view => (view.Flags & TcpFlags.Rst) != 0);
        Assert.Empty(bench.Nat.Flows());
    }

    [Fact]
    public void A_remote_that_does_not_read_closes_the_guests_window()
    {
        using var bench = new Bench();
        using var listener = new Listener();
        var guest = new Guest(bench, listener.Port);
        using Socket server = guest.Connect(listener);
        byte[] data = new byte[1400];
        int window = int.MaxValue;
        // Memory on the way is bounded: kernel's socket buffers, and the connection's own.
        for (int i = 0; i < 20_000 && window > 0; i++)
        {
            guest.Send(TcpFlags.Ack, data);
            if (i % 16 == 15)
                window = guest.Drain(window);
        }
        Assert.Equal(0, window);
        var reader = new Thread(() =>
        {
            byte[] room = new byte[65536];
            server.ReceiveTimeout = 1000;
            try
            {
                while (server.Receive(room) > 0)
                {
                }
            }
            catch (SocketException)
            {
            }
        });
        reader.Start();
        TcpView update = guest.Expect(view => view.Window > 0);
        Assert.Equal(TcpFlags.Ack, update.Flags & TcpFlags.Ack);
        reader.Join();
    }

    [Fact]
    public void Deleting_a_flow_resets_both_sides()
    {
        using var bench = new Bench();
        using var listener = new Listener();
        var guest = new Guest(bench, listener.Port);
        using Socket server = guest.Connect(listener);
        long number = Assert.Single(bench.Nat.Flows()).Number;
        using FlowWatch watch = bench.Nat.Shared.Hub.Watch(null);
        bench.Nat.Ask(() => bench.Nat.Gateway.Flows.Find(number)!.End("deleted"));
        guest.Expect(view => (view.Flags & TcpFlags.Rst) != 0);
        Assert.Throws<SocketException>(() => server.Receive(new byte[1]));
        Assert.True(watch.Changes.TryRead(out FlowChange change));
        Assert.Equal((FlowChangeKind.Deleted, "deleted", FlowState.Closed), (change.Kind, change.Flow.EndReason, change.Flow.State));
    }

    [Fact]
    public void Segments_of_no_flow_are_reset_as_a_closed_port_does()
    {
        using var bench = new Bench();
        var guest = new Guest(bench, 80) { Acknowledged = new SequenceNumber(777) };
        guest.Send(TcpFlags.Ack, "hello?"u8);
        TcpView reset = Frames.TcpOf(bench.Next());
        Assert.Equal((TcpFlags.Rst, new SequenceNumber(777)), (reset.Flags, reset.Sequence));
        guest.Send(TcpFlags.Rst);
        bench.ExpectSilence(50);
    }

    [Theory]
    [InlineData(LinkOffloads.All)]
    [InlineData(LinkOffloads.Checksum)]
    [InlineData(LinkOffloads.None)]
    public void What_the_link_cannot_do_is_done_here(LinkOffloads offloads)
    {
        using var bench = new Bench(offloads: offloads);
        using var listener = new Listener();
        var guest = new Guest(bench, listener.Port);
        using Socket server = guest.Connect(listener);
        byte[] data = new byte[10_000];
        new Random(5).NextBytes(data);
        server.Send(data);
        var got = new List<byte>();
        bool large = false;
        while (got.Count < data.Length)
        {
            byte[] record = bench.Next();
            VirtioNetHeader header = VirtioNetHeader.Read(record);
            Assert.True(header.IsConsistentWith(record.Length - VirtioNetHeader.Length));
            TcpView view = Frames.TcpOf(record);
            if (view.Payload.IsEmpty)
                continue;
            large |= view.Payload.Length > 1460;
            Assert.Equal(view.Payload.Length > 1460, header.GsoKind == VirtioNetHeader.GsoTcpv4);
            Assert.Equal((offloads & LinkOffloads.Checksum) != 0, header.NeedsChecksum);
            got.AddRange(view.Payload.ToArray());
            guest.Acknowledge(view);
        }
        Assert.Equal(data, got);
        Assert.Equal(offloads == LinkOffloads.All, large);
    }

    /// <summary>Both directions of an established flow, link full or not: nothing is allocated on the loop's thread.</summary>
    [Fact]
    public void The_data_path_allocates_nothing()
    {
        using var bench = new Bench();
        using var listener = new Listener();
        var guest = new Guest(bench, listener.Port);
        using Socket server = guest.Connect(listener);
        byte[] room = new byte[65536];
        byte[] data = new byte[8192];
        bench.Link.Keep = false;
        long allocated = 0;
        for (int round = 0; round < 60; round++)
        {
            byte[] record = guest.Build(TcpFlags.Ack | TcpFlags.Psh, data.AsSpan(0, 1400));
            byte[] acknowledgement = [];
            server.Send(data);
            // The first rounds warm pools and tiers up.
            bool measured = round >= 30;
            bench.Nat.Ask(() =>
            {
                long before = GC.GetAllocatedBytesForCurrentThread();
                bench.Nat.Gateway.Receive(record, default, EventLoop.Now);
                bench.Nat.Gateway.OnTurn(EventLoop.Now);
                if (measured)
                    allocated += GC.GetAllocatedBytesForCurrentThread() - before;
            });
            for (int got = 0; got < 1400;)
                got += server.Receive(room);
            // The host's data has gone to the guest when the counter says so.
            ulong wanted = (ulong)(round + 1) * (ulong)data.Length;
            Assert.True(TestNat.Within(2, () => bench.Nat.Flows()[0].BytesToGuest == wanted));
            acknowledgement = guest.BuildAcknowledgement((int)wanted);
            bench.Nat.Ask(() =>
            {
                long before = GC.GetAllocatedBytesForCurrentThread();
                bench.Nat.Gateway.Receive(acknowledgement, default, EventLoop.Now);
                bench.Nat.Gateway.OnTurn(EventLoop.Now);
                if (measured)
                    allocated += GC.GetAllocatedBytesForCurrentThread() - before;
            });
        }
        Assert.Equal(0, allocated);
    }

    [Fact]
    public void Reading_the_host_allocates_nothing()
    {
        using var bench = new Bench();
        using var listener = new Listener();
        var guest = new Guest(bench, listener.Port);
        using Socket server = guest.Connect(listener);
        bench.Link.Keep = false;
        Flow flow = bench.Nat.Ask(() => bench.Nat.Gateway.Flows.Find(bench.Nat.Gateway.Flows.List(0, 1, 0)[0].Number)!);
        byte[] data = new byte[4096];
        ulong sent = 0;
        // What asking itself costs on the loop's thread, beside what the loop does meanwhile.
        long Step(bool send)
        {
            byte[] acknowledgement = guest.BuildAcknowledgement((int)sent);
            bench.Nat.Ask(() => bench.Nat.Gateway.Receive(acknowledgement, default, EventLoop.Now));
            long before = bench.Nat.Ask(GC.GetAllocatedBytesForCurrentThread);
            if (send)
            {
                server.Send(data);
                sent += (ulong)data.Length;
            }
            Assert.True(SpinWait.SpinUntil(() => flow.BytesToGuest == sent, 2000));
            return bench.Nat.Ask(GC.GetAllocatedBytesForCurrentThread) - before;
        }

        long idle = long.MaxValue, busy = long.MaxValue;
        for (int round = 0; round < 40; round++)
        {
            idle = Math.Min(idle, Step(send: false));
            busy = Math.Min(busy, Step(send: true));
        }
        Assert.Equal(idle, busy);
        Assert.Equal(40UL * (ulong)data.Length, flow.BytesToGuest);
    }

    [Fact]
    public void A_flow_is_one_trace_with_its_dial_as_child()
    {
        var ended = new List<Activity>();
        using var listen = new ActivityListener
        {
            ShouldListenTo = source => source.Name == "VNetMesh.Nat",
            Sample = static (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllDataAndRecorded,
            ActivityStopped = activity =>
            {
                lock (ended)
                    ended.Add(activity);
            },
        };
        ActivitySource.AddActivityListener(listen);
        using var bench = new Bench();
        using var listener = new Listener();
        var guest = new Guest(bench, listener.Port);
        var parent = new TraceContext(0x0102030405060708, 0x090A0B0C0D0E0F10, 0x1112131415161718, true);
        byte[] syn = guest.Build(TcpFlags.Syn, default);
        bench.Nat.Ask(() => bench.Nat.Gateway.Receive(syn, parent, EventLoop.Now));
        using Socket server = guest.Complete(listener);
        guest.Send(TcpFlags.Rst);
        Assert.True(TestNat.Within(2, () => bench.Nat.Flows().Count == 0));
        Activity root, dial;
        lock (ended)
        {
            root = ended.Single(activity => activity.OperationName == "nat.flow" && Equals(activity.GetTagItem("server.port"), (int)listener.Port));
            dial = ended.Single(activity => activity.OperationName == "nat.dial" && activity.ParentSpanId == root.SpanId);
        }
        Assert.Equal("0102030405060708090a0b0c0d0e0f10", root.TraceId.ToHexString());
        Assert.Equal("1112131415161718", root.ParentSpanId.ToHexString());
        Assert.Equal("vmnet8", root.GetTagItem("vnetmesh.network"));
        Assert.Equal("guest_reset", root.GetTagItem("vnetmesh.end_reason"));
        Assert.Contains(root.Events, named => named.Name == "established");
        Assert.Equal((int)listener.Port, dial.GetTagItem("network.peer.port"));
    }

    [Fact]
    public void A_flow_that_fails_is_traced_although_nobody_sampled_it_and_tells_its_story()
    {
        var ended = new List<Activity>();
        using var provider = OpenTelemetry.Sdk.CreateTracerProviderBuilder().AddSource("VNetMesh.Nat").SetSampler(new VNetMesh.Hosting.ServiceSampler(0, TimeProvider.System))
            .AddProcessor(new Collecting(ended)).Build();
        using var bench = new Bench();
        using var open = new Listener();
        ushort closed;
        using (var gone = new Listener())
            closed = gone.Port;
        var refused = new Guest(bench, closed);
        refused.Send(TcpFlags.Syn);
        Assert.True(TestNat.Within(2, () => bench.Nat.Ask(() => bench.Nat.Gateway.Flows.Describe(1, EventLoop.Now))?.Flow.EndReason == "dial_refused"));
        Assert.Equal(TcpFlags.Rst | TcpFlags.Ack, Frames.TcpOf(bench.Next()).Flags);
        var guest = new Guest(bench, open.Port);
        guest.Send(TcpFlags.Syn);
        using (guest.Complete(open))
            guest.Send(TcpFlags.Rst);
        Assert.True(TestNat.Within(2, () => bench.Nat.Flows().Count == 0));

        Activity[] ours = [.. ended.Where(activity => Equals(activity.GetTagItem("server.port"), (int)closed) || Equals(activity.GetTagItem("server.port"), (int)open.Port))];
        Activity root = Assert.Single(ours);
        Assert.Equal((int)closed, root.GetTagItem("server.port"));
        Assert.Equal((ActivityStatusCode.Error, "dial_refused"), (root.Status, root.GetTagItem("vnetmesh.sampling.reason")));
        Assert.Equal("refused", Assert.Single(ended, activity => activity.ParentSpanId == root.SpanId).GetTagItem("error.type"));
        List<FlowRecord> stories = bench.Nat.Ask(() => bench.Nat.Gateway.Flows.Recent(Frames.GuestAddress, 10, EventLoop.Now));
        Assert.Equal([2L, 1L], stories.Select(story => story.Flow.Number));
        Assert.Equal(["first_frame", "dial", "dial_failed", "ended"], stories[1].Events.Select(entry => entry.What));
        Assert.Equal(["first_frame", "dial", "dial_connected", "established", "ended"], stories[0].Events.Select(entry => entry.What));
        Assert.Empty(bench.Nat.Ask(() => bench.Nat.Gateway.Flows.Recent(TestNat.GatewayAddress, 10, EventLoop.Now)));
    }

    private sealed class Collecting(List<Activity> ended) : OpenTelemetry.BaseProcessor<Activity>
    {
        public override void OnEnd(Activity data)
        {
            lock (ended)
                ended.Add(data);
        }
    }

    private sealed class Listener : IDisposable
    {
        private readonly Socket _socket = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);

        public Listener()
        {
            _socket.Bind(new IPEndPoint(IPAddress.Loopback, 0));
            _socket.Listen();
        }

        public ushort Port => (ushort)((IPEndPoint)_socket.LocalEndPoint!).Port;

        public Socket Accept()
        {
            Assert.True(_socket.Poll(3_000_000, SelectMode.SelectRead));
            Socket accepted = _socket.Accept();
            accepted.ReceiveTimeout = 3000;
            return accepted;
        }

        public string Read(Socket socket)
        {
            byte[] room = new byte[1000];
            return System.Text.Encoding.ASCII.GetString(room, 0, socket.Receive(room));
        }

        public void Dispose() => _socket.Dispose();
    }

    private delegate bool SegmentTest(TcpView view);

    /// <summary>A guest's end that keeps its numbers and nothing else.</summary>
    private sealed class Guest(Bench bench, ushort port)
    {
        private SequenceNumber _remoteInitial;

        public SequenceNumber Next { get; set; } = new(1_000_000);
        public SequenceNumber Acknowledged { get; set; }

        public byte[] Build(TcpFlags flags, ReadOnlySpan<byte> data)
        {
            TcpHeaderOptions options = (flags & TcpFlags.Syn) != 0 ? new TcpHeaderOptions { MaximumSegmentSize = 1460 } : default;
            byte[] record = Frames.Tcp(Bench.Loopback, new TcpHeader(GuestPort, port, Next, Acknowledged, flags, 65535), data, options);
            Next = Next.Add(data.Length + ((flags & (TcpFlags.Syn | TcpFlags.Fin)) != 0 ? 1 : 0));
            return record;
        }

        public byte[] BuildAcknowledgement(int octets)
        {
            Acknowledged = _remoteInitial.Add(1 + octets);
            return Build(TcpFlags.Ack, default);
        }

        public void Send(TcpFlags flags, ReadOnlySpan<byte> data = default) => bench.Give(Build(flags, data));

        public Socket Connect(Listener listener)
        {
            Send(TcpFlags.Syn);
            return Complete(listener);
        }

        public Socket Complete(Listener listener)
        {
            TcpView answer = Frames.TcpOf(bench.Next());
            Assert.Equal(TcpFlags.Syn | TcpFlags.Ack, answer.Flags);
            Assert.Equal(Next, answer.Acknowledgment);
            _remoteInitial = answer.Sequence;
            Acknowledged = answer.Sequence.Add(1);
            Send(TcpFlags.Ack);
            Assert.True(TestNat.Within(2, () => bench.Nat.Flows() is [{ State: FlowState.Established }]));
            return listener.Accept();
        }

        public void Acknowledge(in TcpView view)
        {
            Acknowledged = view.Sequence.Add(view.Payload.Length);
            Send(TcpFlags.Ack);
        }

        /// <summary>The next segment of a kind; others are noted and passed over.</summary>
        public TcpView Expect(SegmentTest wanted)
        {
            while (true)
            {
                TcpView view = Frames.TcpOf(bench.Next());
                SequenceNumber end = view.Sequence.Add(view.Payload.Length + ((view.Flags & TcpFlags.Fin) != 0 ? 1 : 0));
                if (end.IsAfter(Acknowledged))
                    Acknowledged = end;
                if (wanted(view))
                    return view;
            }
        }

        /// <summary>Reads what has come; the window that was told last.</summary>
        public int Drain(int window)
        {
            byte[]? record = null;
            while (bench.Nat.Ask(() => bench.Link.Sent.TryDequeue(out record)))
            {
                TcpView view = Frames.TcpOf(record);
                window = view.Window;
            }
            return window;
        }
    }
}
