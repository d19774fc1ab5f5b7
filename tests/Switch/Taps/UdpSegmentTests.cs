using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using VNetMesh.Native;
using VNetMesh.Packets;
using VNetMesh.Switch.Tests.Rpc;
using VNetMesh.Switch.Tests.Support;
using VNetMesh.V1;

namespace VNetMesh.Switch.Tests.Taps;

/// <summary>UDP segmentation offload (USO): what a guest's program sends with UDP_SEGMENT, at ports that take it whole and at ports that do not.</summary>
public sealed class UdpSegmentTests
{
    private const string Network = "networks/vmnet1";
    private const int Port = 4242;
    private const int SegmentSize = 1000;

    [Fact]
    public async Task DatagramsGoWholeToAPortThatTakesThemAndOneByOneToOneThatDoesNot()
    {
        if (!Tap.Available)
            Assert.Skip("needs root and /dev/net/tun");
        await using SwitchProcess process = await SwitchProcess.StartAsync();
        using var guest = new Namespace("switch-uso");
        using FileDescriptor tap = Tap.Create("switch-uso");
        if (!OffersUso(tap))
            Assert.Skip("this kernel takes no UDP segments (USO, Linux 6.2) from a TAP");
        guest.Adopt("switch-uso", "10.99.0.1/24", "02:56:4e:00:00:01");
        Handing.HandOver(process, Network, "one", tap);
        using AttachClient plain = await AttachClient.OpenAsync(process, new AttachHello { Network = Network });
        using AttachClient able = await AttachClient.OpenAsync(process, new AttachHello { Network = Network, Offloads = new Offloads { Checksum = true, Uso = true } });
        Assert.True(able.Welcome.Port.Offloads.Uso);
        Assert.False(able.Welcome.Port.Offloads.Tso4);

        byte[] payload = new byte[(5 * SegmentSize) + 500];
        Random.Shared.NextBytes(payload);
        SendInSegments(guest, payload);

        Frame whole = Assert.Single(await DatagramsAsync(able, payload.Length));
        Assert.Equal(VirtioNetHeader.GsoUdpL4, (byte)whole.Offload.GsoType);
        Assert.Equal((uint)SegmentSize, whole.Offload.GsoSize);
        Assert.Equal(payload, whole.Data.ToByteArray()[42..]);

        List<Frame> cut = await DatagramsAsync(plain, payload.Length);
        Assert.Equal([1000, 1000, 1000, 1000, 1000, 500], cut.Select(frame => frame.Data.Length - 42));
        Assert.Equal(payload, cut.SelectMany(frame => frame.Data.ToByteArray()[42..]));
        Assert.All(cut, frame =>
        {
            Assert.Null(frame.Offload);
            Assert.True(Ipv4View.TryParse(frame.Data.Span[14..], out Ipv4View ip));
            Assert.Equal(0, Checksum.Compute(PseudoHeaderAnd(ip, frame.Data.Span[34..])));
        });
        Assert.Equal(0, Checksum.Compute(cut[0].Data.Span[14..34]));
    }

    private static unsafe bool OffersUso(FileDescriptor tap)
    {
        const uint Offers = IfTun.TUN_F_CSUM | IfTun.TUN_F_TSO4 | IfTun.TUN_F_TSO6 | IfTun.TUN_F_USO4 | IfTun.TUN_F_USO6;
        return IfTun.ioctl(tap.Number, IfTun.TUNSETOFFLOAD, (nuint)Offers) >= 0;
    }

    /// <summary>A broadcast, from a socket of the guest's, in one call.</summary>
    private static void SendInSegments(Namespace guest, byte[] payload)
    {
        const int SOL_UDP = 17, UDP_SEGMENT = 103;
        Socket? socket = null;
        // A thread that enters a namespace stays there, so it is one of its own.
        var thread = new Thread(() =>
        {
            using var place = new FileDescriptor(Syscall.Check(Fcntl.open("/run/netns/" + guest.Name, Fcntl.O_RDONLY | Fcntl.O_CLOEXEC), "open"));
            Syscall.Check(Sched.setns(place.Number, Sched.CLONE_NEWNET), "setns");
            socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp) { EnableBroadcast = true };
        });
        thread.Start();
        thread.Join();
        using (socket)
        {
            socket!.SetRawSocketOption(SOL_UDP, UDP_SEGMENT, BitConverter.GetBytes(SegmentSize));
            socket.SendTo(payload, new IPEndPoint(IPAddress.Parse("10.99.0.255"), Port));
        }
    }

    /// <summary>Frames with datagrams to the port, until they have so many octets of payload together.</summary>
    private static async Task<List<Frame>> DatagramsAsync(AttachClient client, int octets)
    {
        var frames = new List<Frame>();
        while (frames.Sum(frame => frame.Data.Length - 42) < octets)
            frames.AddRange((await client.ReceiveAsync()).Frames.Where(IsOurs));
        return frames;
    }

    private static bool IsOurs(Frame frame) =>
        frame.Data.Length > 42 && frame.Data[12] == 8 && frame.Data[23] == IpProtocol.Udp && BinaryPrimitives.ReadUInt16BigEndian(frame.Data.Span[36..]) == Port;

    private static byte[] PseudoHeaderAnd(in Ipv4View ip, ReadOnlySpan<byte> datagram)
    {
        byte[] summed = new byte[12 + datagram.Length];
        BinaryPrimitives.WriteUInt32BigEndian(summed, ip.Source.Value);
        BinaryPrimitives.WriteUInt32BigEndian(summed.AsSpan(4), ip.Destination.Value);
        summed[9] = IpProtocol.Udp;
        BinaryPrimitives.WriteUInt16BigEndian(summed.AsSpan(10), (ushort)datagram.Length);
        datagram.CopyTo(summed.AsSpan(12));
        return summed;
    }
}
