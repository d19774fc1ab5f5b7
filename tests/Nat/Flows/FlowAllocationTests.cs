using System.Net;
using System.Net.Sockets;
using VNetMesh.Links;
using VNetMesh.Nat.Tests.Support;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tests.Flows;

/// <summary>No frame allocates, from the record to the host's socket and back: measured on the loop's own thread.</summary>
public sealed class FlowAllocationTests
{
    private const ushort GuestPort = 40000;
    private const int Rounds = 1500;

    [Fact]
    public void Datagrams_out_and_in_allocate_nothing()
    {
        using var bench = new Bench();
        using var peer = new UdpPeer();
        bench.Give(Frames.Udp(Bench.Loopback, GuestPort, peer.Port, new byte[1200]));
        int mapped = peer.Receive().FromPort;
        byte[] record = Frames.Udp(Bench.Loopback, GuestPort, peer.Port, new byte[1200]);
        bench.Nat.Ask(() => bench.Link.Keep = false);
        AssertAllocatesNothing(bench, _ =>
        {
            for (int i = 0; i < 4; i++)
                bench.Nat.Gateway.Receive(record, default, EventLoop.Now);
            bench.Nat.Gateway.OnTurn(EventLoop.Now);
        });
        long before = bench.Link.Count;
        // In: the loop's turns do the work, while nothing else does.
        long allocated = bench.Nat.Ask(GC.GetAllocatedBytesForCurrentThread);
        long askingCosts = bench.Nat.Ask(GC.GetAllocatedBytesForCurrentThread) - allocated;
        byte[] data = new byte[1200];
        for (int i = 0; i < Rounds; i++)
            peer.Send(data, mapped);
        Assert.True(TestNat.Within(3, () => bench.Link.Count > before + 10));
        Thread.Sleep(100);
        long after = bench.Nat.Ask(GC.GetAllocatedBytesForCurrentThread);
        Assert.InRange(after - allocated - (2 * askingCosts), long.MinValue, 2048);
    }

    [Fact]
    public void Segments_to_a_host_socket_allocate_nothing()
    {
        using var bench = new Bench();
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        ushort port = (ushort)((IPEndPoint)listener.LocalEndpoint).Port;
        var next = new SequenceNumber(1_000_000);
        bench.Give(Frames.Tcp(Bench.Loopback, new TcpHeader(GuestPort, port, next, default, TcpFlags.Syn, 65535), default, new TcpHeaderOptions { MaximumSegmentSize = 1460 }));
        TcpView answer = Frames.TcpOf(bench.Next());
        SequenceNumber remote = answer.Sequence.Add(1);
        next = next.Add(1);
        bench.Give(Frames.Tcp(Bench.Loopback, new TcpHeader(GuestPort, port, next, remote, TcpFlags.Ack, 65535)));
        using Socket server = listener.AcceptSocket();
        var reader = new Thread(() =>
        {
            byte[] room = new byte[262144];
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
        // As many segments as the turns take, made before: the numbers go on from one to the next.
        byte[] data = new byte[1400];
        byte[][] segments = [.. Enumerable.Range(0, 2 * Rounds).Select(i => Frames.Tcp(Bench.Loopback, new TcpHeader(GuestPort, port, next.Add(i * data.Length), remote, TcpFlags.Ack, 65535), data))];
        bench.Nat.Ask(() => bench.Link.Keep = false);
        AssertAllocatesNothing(bench, round =>
        {
            bench.Nat.Gateway.Receive(segments[round], default, EventLoop.Now);
            bench.Nat.Gateway.OnTurn(EventLoop.Now);
        });
        Assert.True(bench.Link.Count > 0);
        bench.Nat.Ask(() => bench.Nat.Gateway.Flows.EndAll("test"));
        reader.Join();
    }

    // The first rounds fill pools, lists and the code's own caches.
    private static void AssertAllocatesNothing(Bench bench, Action<int> round)
    {
        long allocated = bench.Nat.Ask(() =>
        {
            for (int i = 0; i < Rounds; i++)
                round(i);
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = Rounds; i < 2 * Rounds; i++)
                round(i);
            return GC.GetAllocatedBytesForCurrentThread() - before;
        });
        Assert.Equal(0, allocated);
    }
}
