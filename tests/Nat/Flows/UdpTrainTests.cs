using VNetMesh.Links;
using VNetMesh.Nat.Tests.Support;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tests.Flows;

/// <summary>Datagrams that travel several at a time: each arrives alone, whole and in order, whatever they shared on the way.</summary>
public sealed class UdpTrainTests
{
    private const ushort GuestPort = 5000;
    private const int Gso = VirtioNetHeader.Length + EthernetView.HeaderLength + Ipv4Header.Length;

    [Fact]
    public void Datagrams_that_follow_each_other_arrive_apart_whatever_their_sizes()
    {
        using var bench = new Bench();
        using var first = new UdpPeer();
        using var second = new UdpPeer();
        int[] sizes = [1400, 1400, 1400, 200, 1400, 0, 1400, 1401, 1401, 7, 7, .. Enumerable.Repeat(100, 70)];
        byte[][] sent = [.. sizes.Select((size, number) => Payload(size, number))];
        bench.Give([.. sent.Select(data => Frames.Udp(Bench.Loopback, GuestPort, first.Port, data)), Frames.Udp(Bench.Loopback, GuestPort, second.Port, "other"u8)]);
        foreach (byte[] data in sent)
            Assert.Equal(data, first.Receive().Data);
        Assert.Equal("other"u8.ToArray(), second.Receive().Data);
        Assert.Equal((ulong)sizes.Sum() + 5, Assert.Single(bench.Nat.Flows()).BytesToRemote);
    }

    [Theory]
    [InlineData(1000, 10_500)]
    [InlineData(500, 60_000)] // more than one call may send
    [InlineData(1472, 1472)]
    public void A_train_of_the_guests_arrives_as_datagrams(int size, int length)
    {
        using var bench = new Bench();
        using var peer = new UdpPeer();
        byte[] data = Payload(length, 1);
        bench.Give(Train(peer.Port, data, size));
        for (int at = 0; at < length; at += size)
            Assert.Equal(data[at..Math.Min(at + size, length)], peer.Receive().Data);
        Assert.True(peer.HasNothing(50));
    }

    [Fact]
    public void A_train_to_a_closed_port_tells_the_guest()
    {
        using var bench = new Bench();
        ushort closed;
        using (var peer = new UdpPeer())
            closed = peer.Port;
        bench.Give(Train(closed, Payload(5000, 1), 1000));
        Icmpv4View error = Frames.IcmpOf(bench.Next());
        Assert.Equal((Icmpv4Type.DestinationUnreachable, Icmpv4Type.CodePortUnreachable), (error.Type, error.Code));
    }

    [Theory]
    [InlineData(LinkOffloads.All)]
    [InlineData(LinkOffloads.Tcp)]
    [InlineData(LinkOffloads.None)]
    public void What_remotes_send_reaches_the_guest_in_order_and_as_its_link_takes_it(LinkOffloads offloads)
    {
        using var bench = new Bench(offloads: offloads);
        using var peer = new UdpPeer();
        bench.Give(Frames.Udp(Bench.Loopback, GuestPort, peer.Port, "x"u8));
        int mapped = peer.Receive().FromPort;
        byte[][] sent = [.. Enumerable.Range(0, 40).Select(number => Payload(number % 10 == 9 ? 300 : 1200, number))];
        // While the loop is busy they all gather in the socket.
        bench.Nat.Ask(() =>
        {
            foreach (byte[] data in sent)
                peer.Send(data, mapped);
        });
        var received = new List<byte[]>();
        int records = 0;
        for (; received.Count < sent.Length; records++)
        {
            byte[] record = bench.Next();
            VirtioNetHeader header = VirtioNetHeader.Read(record);
            Assert.True(header.IsConsistentWith(record.Length - VirtioNetHeader.Length));
            Assert.Equal((offloads & LinkOffloads.Checksum) != 0, header.NeedsChecksum);
            ReadOnlySpan<byte> payload = Frames.UdpOf(record).Payload;
            int size = header.GsoKind == VirtioNetHeader.GsoUdpL4 ? header.GsoSize : Math.Max(1, payload.Length);
            for (int at = 0; at < payload.Length; at += size)
                received.Add(payload[at..Math.Min(at + size, payload.Length)].ToArray());
        }
        Assert.Equal(sent, received);
        if (offloads == LinkOffloads.All)
            Assert.InRange(records, 1, 12); // ten to a record, where the shorter one ends it
        else
            Assert.Equal(sent.Length, records);
    }

    private static byte[] Payload(int length, int number)
    {
        byte[] data = new byte[length];
        new Random(number).NextBytes(data);
        return data;
    }

    private static byte[] Train(ushort port, byte[] data, int size)
    {
        byte[] record = Frames.Udp(Bench.Loopback, GuestPort, port, data);
        new VirtioNetHeader
        {
            Flags = VirtioNetHeader.FlagNeedsChecksum,
            GsoType = VirtioNetHeader.GsoUdpL4,
            GsoSize = (ushort)size,
            HeaderLength = Gso - VirtioNetHeader.Length + UdpView.HeaderLength,
            ChecksumStart = Gso - VirtioNetHeader.Length,
            ChecksumOffset = 6,
            BufferCount = 1,
        }.Write(record);
        return record;
    }
}
