using System.Net;
using System.Net.Sockets;
using VNetMesh.Nat.Flows;
using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Tests.Support;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tests.Flows;

public sealed class UdpTests
{
    [Fact]
    public void One_host_port_speaks_for_a_guest_port_to_everybody()
    {
        using var bench = new Bench();
        using var first = new UdpPeer();
        using var second = new UdpPeer();
        bench.Give(Frames.Udp(Bench.Loopback, 5000, first.Port, "one"u8), Frames.Udp(Bench.Loopback, 5000, second.Port, "two"u8), Frames.Udp(Bench.Loopback, 5001, first.Port, "three"u8));
        (byte[] data, int mapped) = first.Receive();
        Assert.Equal("one"u8.ToArray(), data);
        Assert.Equal(mapped, second.Receive().FromPort);
        Assert.NotEqual(mapped, first.Receive().FromPort);

        first.Send("answer"u8, mapped);
        byte[] record = bench.Next();
        UdpView datagram = Frames.UdpOf(record);
        Assert.Equal("answer"u8.ToArray(), datagram.Payload.ToArray());
        Assert.Equal((first.Port, (ushort)5000), (datagram.SourcePort, datagram.DestinationPort));
        Assert.Equal(Bench.Loopback, Frames.IpOf(record).Source);
        Assert.Equal(2, bench.Nat.Flows().Count);
        Assert.All(bench.Nat.Flows(), flow => Assert.Equal(FlowProtocol.Udp, flow.Protocol));
    }

    [Fact]
    public void Strangers_may_not_send_through_a_mapping()
    {
        using var bench = new Bench();
        using var friend = new UdpPeer();
        bench.Give(Frames.Udp(Bench.Loopback, 5000, friend.Port, "x"u8));
        int mapped = friend.Receive().FromPort;
        using var stranger = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        stranger.Bind(new IPEndPoint(IPAddress.Parse("127.0.0.99"), 0));
        stranger.SendTo("let me in"u8, new IPEndPoint(IPAddress.Loopback, mapped));
        Assert.True(TestNat.Within(2, () => bench.Drops[DropCause.UdpFiltered] == 1));
        bench.ExpectSilence(50);
    }

    [Fact]
    public void A_closed_port_is_told_as_port_unreachable_with_the_datagram_quoted()
    {
        using var bench = new Bench();
        ushort closed;
        using (var peer = new UdpPeer())
            closed = peer.Port;
        bench.Give(Frames.Udp(Bench.Loopback, 5000, closed, "anybody"u8));
        byte[] record = bench.Next();
        Icmpv4View error = Frames.IcmpOf(record);
        Assert.Equal((Icmpv4Type.DestinationUnreachable, Icmpv4Type.CodePortUnreachable), (error.Type, error.Code));
        Assert.True(Ipv4View.TryParse(error.Data, out Ipv4View quoted));
        Assert.Equal((Frames.GuestAddress, Bench.Loopback), (quoted.Source, quoted.Destination));
        Assert.True(UdpView.TryParse(quoted.Payload, out UdpView datagram));
        Assert.Equal((5000, closed), (datagram.SourcePort, datagram.DestinationPort));
        Assert.Equal("anybody"u8.ToArray(), datagram.Payload.ToArray());
    }

    [Fact]
    public void Fragments_are_put_together_and_large_answers_are_cut()
    {
        using var bench = new Bench();
        using var peer = new UdpPeer();
        byte[] data = new byte[20_000];
        new Random(3).NextBytes(data);
        List<byte[]> fragments = Frames.UdpFragments(Bench.Loopback, 5000, peer.Port, data, 1480);
        fragments.Reverse();
        bench.Give([.. fragments]);
        (byte[] received, int mapped) = peer.Receive();
        Assert.Equal(data, received);

        peer.Send(data, mapped);
        byte[] whole = new byte[8 + data.Length];
        bool last = false;
        for (int got = 0; got < whole.Length;)
        {
            Ipv4View ip = Frames.IpOf(bench.Next());
            Assert.True(ip.TotalLength <= 1500);
            ip.Payload.CopyTo(whole.AsSpan(ip.FragmentOffset));
            got += ip.Payload.Length;
            last |= !ip.MoreFragments;
        }
        Assert.True(last);
        Assert.True(UdpView.TryParse(whole, out UdpView datagram));
        Assert.True(datagram.HasValidChecksum(Bench.Loopback, Frames.GuestAddress));
        Assert.Equal(data, datagram.Payload.ToArray());
    }

    [Fact]
    public void Fragments_are_bounded_and_overlaps_end_a_packet()
    {
        using var bench = new Bench();
        for (ushort id = 0; id < 100; id++)
        {
            byte[] record = Frames.UdpFragments(Bench.Loopback, 5000, 9, new byte[3000], 1480)[0];
            Span<byte> header = record.AsSpan(VirtioNetHeader.Length + EthernetView.HeaderLength, 20);
            header[4] = (byte)id;
            Frames.FixChecksum(header);
            bench.Give(record);
        }
        Assert.Equal((ulong)(100 - FragmentStore.MaxPacketsPerGuest), bench.Drops[DropCause.FragmentStoreFull]);
        byte[] again = Frames.UdpFragments(Bench.Loopback, 5000, 9, new byte[3000], 1480)[0];
        again[VirtioNetHeader.Length + EthernetView.HeaderLength + 4] = 0;
        Frames.FixChecksum(again.AsSpan(VirtioNetHeader.Length + EthernetView.HeaderLength, 20));
        bench.Give(again);
        Assert.Equal(1UL, bench.Drops[DropCause.FragmentOverlap]);
    }

    [Fact]
    public void Flows_are_bounded_per_guest_and_in_all()
    {
        using var bench = new Bench(limits: new NatLimits(6, 4));
        for (ushort port = 1; port <= 10; port++)
            bench.Give(Frames.Udp(Bench.Loopback, port, 9, [1]));
        Assert.Equal(6UL, bench.Drops[DropCause.FlowLimitGuest]);
        for (ushort port = 1; port <= 10; port++)
            bench.Give(Frames.Udp(Bench.Loopback, port, 9, [1], source: Frames.GuestAddress.Add(1)));
        Assert.Equal(8UL, bench.Drops[DropCause.FlowLimit]);
        Assert.Equal(6, bench.Nat.Flows().Count);
        bench.Nat.Ask(() => bench.Nat.Gateway.Flows.EndAll("test"));
        Assert.Empty(bench.Nat.Flows());
        Assert.Equal(0, bench.Nat.Shared.Limits.Flows);
    }
}
