using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Tests.Support;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tests.Gateways;

public sealed class ArpTests
{
    private static ArpPacket Ask(Ipv4Address sender, Ipv4Address target) => new(ArpPacket.Request, Frames.GuestMac, sender, default, target);

    [Fact]
    public void A_request_for_the_gateway_is_answered_and_learned_from()
    {
        using var bench = new Bench();
        bench.Give(Frames.Arp(Ask(Frames.GuestAddress, TestNat.GatewayAddress)));
        byte[] record = bench.Next();
        Assert.True(EthernetView.TryParse(record.AsSpan(VirtioNetHeader.Length), out EthernetView ethernet));
        Assert.Equal(Frames.GuestMac, ethernet.Destination);
        Assert.True(ArpPacket.TryParse(ethernet.Payload, out ArpPacket reply));
        Assert.Equal(new ArpPacket(ArpPacket.Reply, TestNat.GatewayMac, TestNat.GatewayAddress, Frames.GuestMac, Frames.GuestAddress), reply);
        Assert.Equal(Frames.GuestMac, bench.Nat.Gateway.Context.Neighbours.Find(Frames.GuestAddress)!.Mac);
    }

    [Fact]
    public void A_probe_is_answered_and_not_learned_from()
    {
        using var bench = new Bench();
        bench.Give(Frames.Arp(Ask(Ipv4Address.Any, TestNat.GatewayAddress)));
        bench.Next();
        Assert.Equal(0, bench.Nat.Gateway.Context.Neighbours.Count);
    }

    [Fact]
    public void Replies_and_gratuitous_requests_fill_nothing()
    {
        using var bench = new Bench();
        for (int i = 10; i < 100; i++)
        {
            Ipv4Address address = Frames.GuestAddress.Add(i);
            bench.Give(Frames.Arp(Ask(address, address)),
                Frames.Arp(new ArpPacket(ArpPacket.Reply, Frames.GuestMac, address, TestNat.GatewayMac, TestNat.GatewayAddress)));
        }
        Assert.Equal(0, bench.Nat.Gateway.Context.Neighbours.Count);
        bench.ExpectSilence();
    }

    [Theory]
    [InlineData("10.0.0.1", DropCause.SpoofedSource)]
    [InlineData("192.168.108.255", DropCause.SpoofedSource)]
    [InlineData("192.168.108.2", DropCause.ArpConflict)]
    public void Senders_that_cannot_be_guests_are_counted(string sender, DropCause cause)
    {
        using var bench = new Bench();
        bench.Give(Frames.Arp(Ask(Ipv4Address.Parse(sender), TestNat.GatewayAddress)));
        Assert.Equal(1UL, bench.Drops[cause]);
    }

    [Fact]
    public void The_gateways_address_is_defended_once_in_ten_seconds()
    {
        using var bench = new Bench();
        byte[] claim = Frames.Arp(Ask(TestNat.GatewayAddress, TestNat.GatewayAddress));
        bench.Give(claim, claim, claim);
        bench.Next();
        bench.ExpectSilence();
        Assert.Equal(3UL, bench.Drops[DropCause.ArpConflict]);
    }

    [Fact]
    public void A_sender_other_than_the_frames_is_refused()
    {
        using var bench = new Bench();
        bench.Give(Frames.Arp(Ask(Frames.GuestAddress, TestNat.GatewayAddress), source: MacAddress.Parse("02:00:00:00:00:77")));
        Assert.Equal(1UL, bench.Drops[DropCause.ArpMismatch]);
        bench.ExpectSilence();
    }
}
