using CsCheck;
using VNetMesh.Links;
using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Tests.Support;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tests.Gateways;

public sealed class GatewayTests
{
    private static readonly Ipv4Address Remote = Ipv4Address.Parse("198.51.100.7");

    [Theory]
    [InlineData(56)]
    [InlineData(1472)]
    public void Echo_to_the_gateway_is_answered(int size)
    {
        using var bench = new Bench();
        byte[] data = new byte[size];
        new Random(1).NextBytes(data);
        bench.Give(Frames.Echo(TestNat.GatewayAddress, 0x1234, 7, data));
        byte[] record = bench.Next();
        Icmpv4View reply = Frames.IcmpOf(record);
        Assert.Equal(Icmpv4Type.EchoReply, reply.Type);
        Assert.Equal(0x1234, reply.Identifier);
        Assert.Equal(7, reply.Sequence);
        Assert.Equal(data, reply.Data.ToArray());
        Assert.Equal(TestNat.GatewayAddress, Frames.IpOf(record).Source);
    }

    [Theory]
    [InlineData("192.168.109.10")]
    [InlineData("192.168.108.2")]
    [InlineData("192.168.108.254")]
    [InlineData("192.168.108.0")]
    [InlineData("8.8.8.8")]
    public void Spoofed_sources_are_dropped(string source)
    {
        using var bench = new Bench();
        bench.Give(Frames.Udp(Remote, 1000, 2000, [1], source: Ipv4Address.Parse(source)));
        Assert.Equal(1UL, bench.Drops[DropCause.SpoofedSource]);
        Assert.Empty(bench.Nat.Flows());
    }

    [Theory]
    [InlineData("127.0.0.1", DropCause.DestinationForbidden)]
    [InlineData("127.255.0.9", DropCause.DestinationForbidden)]
    [InlineData("0.0.0.0", DropCause.DestinationForbidden)]
    [InlineData("0.1.2.3", DropCause.DestinationForbidden)]
    [InlineData("240.0.0.1", DropCause.DestinationForbidden)]
    [InlineData("224.0.0.251", DropCause.DestinationMulticast)]
    [InlineData("255.255.255.255", DropCause.DestinationMulticast)]
    [InlineData("192.168.108.1", DropCause.DestinationOnLink)]
    [InlineData("192.168.108.255", DropCause.DestinationOnLink)]
    public void Guests_do_not_get_where_they_must_not(string destination, DropCause cause)
    {
        using var bench = new Bench(policy: new DestinationPolicy());
        Ipv4Address address = Ipv4Address.Parse(destination);
        bench.Give(Frames.Udp(address, 1000, 2000, [1]), Frames.Echo(address, 1, 1, [1]),
            Frames.Tcp(address, new TcpHeader(1000, 80, new(1), default, TcpFlags.Syn, 1000)));
        Assert.Equal(3UL, bench.Drops[cause]);
        Assert.Empty(bench.Nat.Flows());
        bench.ExpectSilence(50);
    }

    [Fact]
    public void A_packet_at_its_last_hop_gets_time_exceeded()
    {
        using var bench = new Bench();
        byte[] record = Frames.Udp(Remote, 1000, 33434, [1, 2, 3], ttl: 1);
        bench.Give(record);
        Icmpv4View error = Frames.IcmpOf(bench.Next());
        Assert.Equal(Icmpv4Type.TimeExceeded, error.Type);
        Assert.Equal(record.AsSpan(VirtioNetHeader.Length + EthernetView.HeaderLength).ToArray(), error.Data.ToArray());
        Assert.Equal(1UL, bench.Drops[DropCause.TtlExceeded]);
    }

    [Fact]
    public void Protocols_and_ports_that_the_gateway_does_not_serve_are_unreachable()
    {
        using var bench = new Bench();
        bench.Give(Frames.Ip(Remote, 47, [1, 2, 3, 4]));
        Icmpv4View error = Frames.IcmpOf(bench.Next());
        Assert.Equal((Icmpv4Type.DestinationUnreachable, Icmpv4Type.CodeProtocolUnreachable), (error.Type, error.Code));
        bench.Give(Frames.Udp(TestNat.GatewayAddress, 1000, 123, [1]));
        error = Frames.IcmpOf(bench.Next());
        Assert.Equal((Icmpv4Type.DestinationUnreachable, Icmpv4Type.CodePortUnreachable), (error.Type, error.Code));
        bench.Give(Frames.Tcp(TestNat.GatewayAddress, new TcpHeader(1000, 22, new(5), default, TcpFlags.Syn, 1000)));
        TcpView reset = Frames.TcpOf(bench.Next());
        Assert.Equal(TcpFlags.Rst | TcpFlags.Ack, reset.Flags);
        Assert.Equal(new SequenceNumber(6), reset.Acknowledgment);
    }

    [Fact]
    public void Bad_checksums_are_dropped_by_cause()
    {
        using var bench = new Bench();
        byte[][] records =
        [
            Frames.Echo(TestNat.GatewayAddress, 1, 1, [1, 2]),
            Frames.Udp(Remote, 1, 2, [1, 2]),
            Frames.Tcp(Remote, new TcpHeader(1, 2, new(1), default, TcpFlags.Syn, 1)),
        ];
        foreach (byte[] record in records)
            record[^1] ^= 1;
        bench.Give(records);
        byte[] header = Frames.Echo(TestNat.GatewayAddress, 1, 1, [1, 2]);
        header[VirtioNetHeader.Length + EthernetView.HeaderLength + 8]++;
        bench.Give(header);
        Assert.Equal((1UL, 1UL, 1UL, 1UL), (bench.Drops[DropCause.IcmpChecksum], bench.Drops[DropCause.UdpChecksum], bench.Drops[DropCause.TcpChecksum], bench.Drops[DropCause.IpChecksum]));
        bench.ExpectSilence(50);
    }

    [Fact]
    public void While_the_link_is_away_nothing_breaks_and_flows_stay()
    {
        using var bench = new Bench();
        bench.Give(Frames.Udp(Bench.Loopback, 1000, 9, [1]));
        Assert.Single(bench.Nat.Flows());
        bench.Nat.Ask(() => bench.Nat.Gateway.OnLinkDown("the switch died"));
        Assert.False(bench.Nat.Gateway.IsLinkUp);
        bench.Give(Frames.Echo(TestNat.GatewayAddress, 1, 1, [1]));
        Assert.Equal(1UL, bench.Drops[DropCause.LinkDown]);
        Assert.Single(bench.Nat.Flows());
        bench.Nat.Ask(() => bench.Nat.Gateway.OnLinkUp(bench.Link));
        bench.Give(Frames.Echo(TestNat.GatewayAddress, 1, 2, [1]));
        Assert.True(TestNat.Within(2, () => bench.Nat.Ask(() => bench.Link.Sent.Any(record => record.Length > 40))));
    }

    /// <summary>Whatever bytes come, nothing is thrown, and what is not understood is counted.</summary>
    [Fact]
    public void Hostile_frames_are_counted_and_never_throw()
    {
        using var bench = new Bench(policy: new RefuseAll());
        byte[][] good =
        [
            Frames.Arp(new ArpPacket(ArpPacket.Request, Frames.GuestMac, Frames.GuestAddress, default, TestNat.GatewayAddress)),
            Frames.Echo(TestNat.GatewayAddress, 1, 1, new byte[40]),
            Frames.Udp(TestNat.GatewayAddress, 1000, 53, [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 97, 0, 0, 1, 0, 1]),
            Frames.Tcp(TestNat.GatewayAddress, new TcpHeader(1, 53, new(1), default, TcpFlags.Syn, 1), [1, 2, 3], new TcpHeaderOptions { MaximumSegmentSize = 1460, SackPermitted = true }),
            .. Frames.UdpFragments(TestNat.GatewayAddress, 1, 53, new byte[3000], 1480),
        ];
        Gen<byte[]> random = Gen.Byte.Array[0, 200];
        Gen<byte[]> mutated = Gen.Select(Gen.Int[0, good.Length - 1], Gen.Select(Gen.Int[0, 2000], Gen.Byte).Array[0, 6], Gen.Int[0, 2000], Gen.Bool,
            (which, changes, cut, fix) => Mutate(good[which], changes, cut, fix));
        bench.Nat.Ask(() =>
        {
            bench.Link.Keep = false;
            Gen.OneOf(random, mutated).Sample(record => bench.Nat.Gateway.Receive(record, default, EventLoop.Now), iter: 100_000, threads: 1);
        });
        Assert.True(bench.Drops.Total() > 10_000, string.Join(", ", bench.Drops.Seen()));
        Assert.InRange(bench.Nat.Gateway.Context.Neighbours.Count, 0, ArpTable.MaxEntries);
    }

    private static byte[] Mutate(byte[] record, (int At, byte Value)[] changes, int cut, bool fix)
    {
        byte[] copy = cut % 4 == 0 ? record[..Math.Min(record.Length, cut)] : [.. record];
        foreach ((int at, byte value) in changes)
        {
            if (copy.Length > 0)
                copy[at % copy.Length] = value;
        }
        // With a right IP checksum the damage gets deeper.
        const int Ip = VirtioNetHeader.Length + EthernetView.HeaderLength;
        if (fix && copy.Length >= Ip + 20)
            Frames.FixChecksum(copy.AsSpan(Ip, 20));
        return copy;
    }

    private sealed class RefuseAll : DestinationPolicy
    {
        public override bool Allows(Ipv4Address destination) => false;
    }
}
