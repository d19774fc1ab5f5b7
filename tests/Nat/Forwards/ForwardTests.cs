using System.Net;
using System.Net.Sockets;
using VNetMesh.Nat.Flows;
using VNetMesh.Nat.Forwards;
using VNetMesh.Nat.Tests.Support;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tests.Forwards;

public sealed class ForwardTests : IDisposable
{
    private readonly string _file = Path.Combine(Path.GetTempPath(), Path.GetRandomFileName());

    public void Dispose() => File.Delete(_file);

    private static ForwardRule Rule(FlowProtocol protocol, int port, string id = "web", string network = "networks/vmnet8") =>
        new(network, id, protocol, Bench.Loopback, port, Frames.GuestAddress, 80);

    private static int FreePort(SocketType type)
    {
        using var socket = new Socket(AddressFamily.InterNetwork, type, type == SocketType.Stream ? ProtocolType.Tcp : ProtocolType.Udp);
        socket.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        return ((IPEndPoint)socket.LocalEndPoint!).Port;
    }

    private static void AnswerArp(Bench bench)
    {
        byte[] record = bench.Next();
        Assert.True(EthernetView.TryParse(record.AsSpan(VirtioNetHeader.Length), out EthernetView ethernet));
        Assert.True(ethernet.Destination.IsBroadcast);
        Assert.True(ArpPacket.TryParse(ethernet.Payload, out ArpPacket request));
        Assert.Equal((ArpPacket.Request, Frames.GuestAddress), (request.Operation, request.TargetIp));
        bench.Give(Frames.Arp(new ArpPacket(ArpPacket.Reply, Frames.GuestMac, Frames.GuestAddress, TestNat.GatewayMac, TestNat.GatewayAddress), TestNat.GatewayMac));
    }

    [Fact]
    public void A_client_by_tcp_reaches_the_guest_after_arp()
    {
        using var bench = new Bench();
        int port = FreePort(SocketType.Stream);
        bench.Nat.Ask(() => bench.Nat.Gateway.Forwards.Add(Rule(FlowProtocol.Tcp, port), mustListen: true));
        using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { ReceiveTimeout = 3000 };
        client.Connect(IPAddress.Loopback, port);
        AnswerArp(bench);
        byte[] record = bench.Next();
        TcpView syn = Frames.TcpOf(record);
        Assert.Equal(TcpFlags.Syn, syn.Flags);
        Assert.Equal(80, syn.DestinationPort);
        // A loopback client cannot be answered by a guest, so it appears as the gateway.
        Assert.Equal(TestNat.GatewayAddress, Frames.IpOf(record).Source);
        ushort shown = syn.SourcePort;
        SequenceNumber next = syn.Sequence.Add(1);
        bench.Give(Frames.Tcp(TestNat.GatewayAddress, new TcpHeader(80, shown, new(9000), next, TcpFlags.Syn | TcpFlags.Ack, 60000)));
        bench.Give(Frames.Tcp(TestNat.GatewayAddress, new TcpHeader(80, shown, new(9001), next, TcpFlags.Ack | TcpFlags.Psh, 60000), "welcome"u8));
        byte[] room = new byte[100];
        Assert.Equal("welcome"u8.ToArray(), room[..client.Receive(room)]);
        FlowSnapshot flow = Assert.Single(bench.Nat.Flows());
        Assert.True(flow.Inbound);
        Assert.Equal(FlowState.Established, flow.State);
    }

    [Fact]
    public void A_guest_that_refuses_resets_the_client_and_one_that_is_not_there_too()
    {
        using var bench = new Bench();
        int port = FreePort(SocketType.Stream);
        bench.Nat.Ask(() => bench.Nat.Gateway.Forwards.Add(Rule(FlowProtocol.Tcp, port), mustListen: true));
        using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { ReceiveTimeout = 5000 };
        client.Connect(IPAddress.Loopback, port);
        AnswerArp(bench);
        TcpView syn = Frames.TcpOf(bench.Next());
        bench.Give(Frames.Tcp(TestNat.GatewayAddress, new TcpHeader(80, syn.SourcePort, default, syn.Sequence.Add(1), TcpFlags.Rst | TcpFlags.Ack, 0)));
        Assert.Equal(SocketError.ConnectionReset, Assert.Throws<SocketException>(() => client.Receive(new byte[1])).SocketErrorCode);
        Assert.Empty(bench.Nat.Flows());
    }

    [Fact]
    public void A_client_by_udp_reaches_the_guest_and_is_answered()
    {
        using var bench = new Bench();
        int port = FreePort(SocketType.Dgram);
        bench.Nat.Ask(() => bench.Nat.Gateway.Forwards.Add(Rule(FlowProtocol.Udp, port), mustListen: true));
        using var client = new UdpPeer();
        client.Send("ping"u8, port);
        AnswerArp(bench);
        UdpView datagram = Frames.UdpOf(bench.Next());
        Assert.Equal("ping"u8.ToArray(), datagram.Payload.ToArray());
        bench.Give(Frames.Udp(TestNat.GatewayAddress, 80, datagram.SourcePort, "pong"u8));
        (byte[] data, int from) = client.Receive();
        Assert.Equal("pong"u8.ToArray(), data);
        Assert.Equal(port, from);
        Assert.True(Assert.Single(bench.Nat.Flows()).Inbound);
        bench.Nat.Ask(() => bench.Nat.Gateway.Forwards.Remove("web"));
        Assert.Empty(bench.Nat.Flows());
    }

    [Fact]
    public async Task Rules_are_kept_and_refusals_are_not()
    {
        using var nat = new TestNat();
        int port = FreePort(SocketType.Stream);
        await using (var engine = new NatEngine(nat.Shared, new ForwardStore(_file), (_, stop) => Task.Delay(Timeout.Infinite, stop)))
        {
            engine.Load();
            Assert.Null(await engine.AddForwardAsync(Rule(FlowProtocol.Tcp, port)));
            await engine.ReconcileAsync([nat.Settings]);
            ForwardStatus? added = await engine.AddForwardAsync(Rule(FlowProtocol.Tcp, port));
            Assert.True(added!.Listening);
            await Assert.ThrowsAsync<InvalidOperationException>(() => engine.AddForwardAsync(Rule(FlowProtocol.Tcp, port)));
            await Assert.ThrowsAsync<ListenRefusedException>(() => engine.AddForwardAsync(Rule(FlowProtocol.Tcp, port, id: "again")));
            // The network is a NAT network no more, and is one again: so does the listener, and the rule stays meanwhile.
            await engine.ReconcileAsync([], new HashSet<string> { "networks/vmnet8" });
            Assert.False(Assert.Single(await engine.ForwardsAsync()).Listening);
            await engine.ReconcileAsync([nat.Settings]);
            Assert.True(Assert.Single(await engine.ForwardsAsync()).Listening);
        }
        await using var second = new NatEngine(nat.Shared, new ForwardStore(_file), (_, stop) => Task.Delay(Timeout.Infinite, stop));
        second.Load();
        await second.ReconcileAsync([nat.Settings]);
        ForwardStatus kept = Assert.Single(await second.ForwardsAsync());
        Assert.Equal(Rule(FlowProtocol.Tcp, port), kept.Rule);
        Assert.True(kept.Listening);
        Assert.True(await second.RemoveForwardAsync("networks/vmnet8", "web"));
        Assert.False(await second.RemoveForwardAsync("networks/vmnet8", "web"));
        Assert.Empty(new ForwardStore(_file).Load());
        // What belonged to a network that is gone does not come back with another of its name.
        await second.AddForwardAsync(Rule(FlowProtocol.Tcp, port));
        await second.ReconcileAsync([], new HashSet<string> { "networks/vmnet1" });
        Assert.Empty(await second.ForwardsAsync());
        Assert.Empty(new ForwardStore(_file).Load());
    }

    [Fact]
    public void A_damaged_file_is_said_to_be_so()
    {
        File.WriteAllText(_file, "[{\"network\": 5");
        var store = new ForwardStore(_file);
        Assert.Contains("damaged", Assert.Throws<IOException>(store.Load).Message, StringComparison.Ordinal);
        string aside = store.SetAside();
        Assert.Empty(store.Load());
        Assert.True(File.Exists(aside));
        File.Delete(aside);
    }
}
