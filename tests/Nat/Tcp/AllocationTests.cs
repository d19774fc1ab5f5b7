using VNetMesh.Nat.Tcp;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tests.Tcp;

/// <summary>Nothing is allocated per segment, and an idle connection is small.</summary>
public sealed class AllocationTests
{
    [Fact]
    public void ReceivingInOrderAllocatesNothing() => AssertAllocatesNothing(new Peer(), peer =>
    {
        peer.Data(0, 60_000);
        peer.Connection.Poll(peer.Now += 100);
    });

    [Fact]
    public void SendingAllocatesNothing() => AssertAllocatesNothing(new Peer(), peer =>
    {
        Span<byte> room = peer.Connection.SendSpace();
        peer.Connection.Sent(Math.Min(room.Length, 14_600));
        peer.Connection.Poll(peer.Now += 100);
        peer.Acknowledge(peer.Sent);
        peer.Connection.Poll(peer.Now += 100);
    });

    [Fact]
    public void AStalledHostAllocatesNothing() => AssertAllocatesNothing(new Peer(), peer =>
    {
        peer.Takes = false;
        peer.Data(0, 30_000);
        peer.Connection.Poll(peer.Now += 100);
        peer.Takes = true;
        peer.Connection.Resume(peer.Now += 100);
    });

    [Fact]
    public void LossAllocatesNothing() => AssertAllocatesNothing(new Peer(), peer =>
    {
        // The guest's: a hole, filled later. Ours: a hole that blocks show, then one that only a time-out shows.
        peer.Data(2000, 3000, count: false);
        peer.Data(0, 2000, count: false);
        peer.Expected = peer.Expected.Add(5000);
        Span<byte> room = peer.Connection.SendSpace();
        peer.Connection.Sent(Math.Min(room.Length, 14_600));
        peer.Connection.Poll(peer.Now += 100);
        SequenceNumber start = peer.Connection.Variables.Unacknowledged;
        peer.Acknowledge(start, (start.Add(1460), peer.Sent));
        peer.Connection.Poll(peer.Now += 100);
        peer.Connection.Poll(peer.Now = Math.Max(peer.Now + 100, peer.Connection.NextDeadline));
        peer.Acknowledge(peer.Sent);
        peer.Connection.Poll(peer.Now += 100);
    });

    [Fact]
    public void AnIdleConnectionIsSmallerThanAKibibyte()
    {
        const int Count = 2000;
        var options = new TcpOptions();
        var pool = new TcpBufferPool();
        var user = new Peer();
        var connections = new TcpConnection[Count];
        new TcpConnection(options, user, user, pool, 1).Drop();
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < Count; i++)
        {
            var connection = new TcpConnection(options, user, user, pool, (uint)i);
            connection.ReceiveSyn(new TcpSegmentIn { Sequence = new(5), Flags = TcpFlags.Syn, Window = 65535, Options = Script.SynOptions() }, 0);
            connection.Accept(0);
            connection.Receive(new TcpSegmentIn { Sequence = new(6), Acknowledgment = new((uint)i + 1), Flags = TcpFlags.Ack, Window = 512 }, 100);
            connection.Receive(new TcpSegmentIn { Sequence = new(6), Acknowledgment = new((uint)i + 1), Flags = TcpFlags.Ack, Window = 512, Payload = user.Payload.AsSpan(0, 5000) }, 100);
            connection.Poll(200);
            connections[i] = connection;
        }
        long each = (GC.GetAllocatedBytesForCurrentThread() - before) / Count;
        Assert.All(connections, c => Assert.Equal(TcpState.Established, c.State));
        Assert.InRange(each, 1, 1024);
        Assert.Equal(0, pool.Rented);
        GC.KeepAlive(connections);
    }

    private static void AssertAllocatesNothing(Peer peer, Action<Peer> turn)
    {
        for (int i = 0; i < 200; i++)
            turn(peer);
        Assert.Equal(TcpState.Established, peer.Connection.State);
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 2000; i++)
            turn(peer);
        long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        Assert.Equal(0, allocated);
        Assert.Equal(TcpState.Established, peer.Connection.State);
        Assert.True(peer.Segments >= 2000);
    }

    private sealed class Peer : ITcpUser, ITcpOutput
    {
        public readonly byte[] Payload = new byte[65536];

        public Peer()
        {
            Connection = new TcpConnection(new TcpOptions(), this, this, new TcpBufferPool(), 100);
            Connection.ReceiveSyn(new TcpSegmentIn { Sequence = new(1000), Flags = TcpFlags.Syn, Window = 65535, Options = Script.SynOptions() }, Now);
            Connection.Accept(Now);
            Expected = new(1001);
            Acknowledge(new(101));
        }

        public TcpConnection Connection { get; }
        public long Now { get; set; } = 1_000_000;
        public SequenceNumber Expected { get; set; }
        public SequenceNumber Sent { get; private set; }
        public int Segments { get; private set; }
        public bool Takes { get; set; } = true;

        public void Data(int offset, int length, bool count = true)
        {
            Connection.Receive(new TcpSegmentIn
            {
                Sequence = Expected.Add(offset),
                Acknowledgment = Sent,
                Flags = TcpFlags.Ack,
                Window = 65535,
                Payload = Payload.AsSpan(0, length),
            }, Now);
            if (count)
                Expected = Expected.Add(length);
        }

        public void Acknowledge(SequenceNumber number, (SequenceNumber Start, SequenceNumber End)? block = null)
        {
            TcpHeaderOptions options = default;
            if (block is { } shown)
            {
                options.SackCount = 1;
                options.Sack[0] = new SackBlock(shown.Start, shown.End);
            }
            Connection.Receive(new TcpSegmentIn { Sequence = Expected, Acknowledgment = number, Flags = TcpFlags.Ack, Window = 65535, Options = options }, Now);
        }

        public int Deliver(ReadOnlySpan<byte> payload) => Takes ? payload.Length : 0;

        public void OnEstablished()
        {
        }

        public void OnPeerFin()
        {
        }

        public void OnSendSpace()
        {
        }

        public void OnClosed(TcpCloseReason reason)
        {
        }

        public bool Transmit(in TcpSegmentOut segment, ReadOnlySpan<byte> payload1, ReadOnlySpan<byte> payload2)
        {
            Segments++;
            SequenceNumber end = segment.Sequence.Add(segment.PayloadLength + ((segment.Flags & TcpFlags.Syn) != 0 ? 1 : 0));
            if (Segments == 1 || end.IsAfter(Sent))
                Sent = end;
            return true;
        }
    }
}
