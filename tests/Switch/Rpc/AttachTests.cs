using System.Buffers.Binary;
using System.Diagnostics;
using Google.Protobuf;
using Grpc.Core;
using VNetMesh.Hosting;
using VNetMesh.Packets;
using VNetMesh.Switch.Tests.Support;
using VNetMesh.V1;

namespace VNetMesh.Switch.Tests.Rpc;

/// <summary>Attach against the real process.</summary>
public sealed class AttachTests(SharedSwitch shared) : IClassFixture<SharedSwitch>
{
    private const string Network = "networks/vmnet8";

    private SwitchProcess Process => shared.Process;

    [Fact]
    public async Task TwoClientsPlayPingPong()
    {
        using AttachClient one = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network, PortId = "ping" });
        using AttachClient two = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network });
        Assert.Equal(PortState.Up, one.Welcome.Port.State);
        Assert.Equal(PortTransport.Stream, one.Welcome.Port.Transport);
        Assert.StartsWith(Network + "/ports/stream-", two.Welcome.Port.Name, StringComparison.Ordinal);
        Assert.Equal("192.168.108.0/24", two.Welcome.Network.Ipv4Subnet);

        await one.SendAsync(AttachClient.Frame(MacAddress.Broadcast, Frames.A));
        Assert.Equal(AttachClient.Frame(MacAddress.Broadcast, Frames.A), (await two.ReceiveAsync()).Frames[0].Data.ToByteArray());
        for (int i = 0; i < 50; i++)
        {
            await two.SendAsync(AttachClient.Frame(Frames.A, Frames.B, 46 + i));
            Assert.Equal(14 + 46 + i, (await one.ReceiveAsync()).Frames[0].Data.Length);
            await one.SendAsync(AttachClient.Frame(Frames.B, Frames.A, 46 + i));
            Assert.Equal(14 + 46 + i, (await two.ReceiveAsync()).Frames[0].Data.Length);
        }
        Port port = (await Process.Ports.GetPortAsync(new GetPortRequest { Name = one.Welcome.Port.Name })).Port;
        Assert.Equal((51UL, 50UL), (port.Counters.RxFrames, port.Counters.TxFrames));
        await one.CompleteAsync();
        await two.CompleteAsync();
        await UntilGoneAsync(one.Welcome.Port.Name);
        await UntilGoneAsync(two.Welcome.Port.Name);
    }

    [Fact]
    public async Task TheTraceOfAFrameTravelsWithIt()
    {
        const string Trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        using AttachClient one = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network });
        using AttachClient two = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network });
        var sent = new FrameBatch();
        foreach (string trace in (string[])["", Trace, "nonsense", ""])
            sent.Frames.Add(new Frame { Data = ByteString.CopyFrom(AttachClient.Frame(MacAddress.Broadcast, Frames.A)), Traceparent = trace });
        await one.SendAsync(sent);
        var got = new List<string>();
        while (got.Count < sent.Frames.Count)
            got.AddRange((await two.ReceiveAsync()).Frames.Select(frame => frame.Traceparent));
        Assert.Equal(["", Trace, "", ""], got);
    }

    [Fact]
    public async Task AClientThatReadsTooSlowlyLosesFramesAndStopsNobody()
    {
        using AttachClient slow = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network, PortId = "slow" });
        using AttachClient reader = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network, PortId = "reader" });
        using AttachClient sender = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network, PortId = "sender" });
        await slow.SendAsync(AttachClient.Frame(MacAddress.Broadcast, Frames.A));
        await reader.ReceiveAsync();
        await sender.ReceiveAsync();

        var batch = new FrameBatch();
        for (int i = 0; i < 64; i++)
            batch.Frames.Add(new Frame { Data = ByteString.CopyFrom(AttachClient.Frame(Frames.A, Frames.B, 1400)) });
        Port port;
        int sent = 0;
        var watch = Stopwatch.StartNew();
        do
        {
            await sender.SendAsync(batch);
            sent += 64;
            port = (await Process.Ports.GetPortAsync(new GetPortRequest { Name = slow.Welcome.Port.Name })).Port;
        }
        while (!port.Counters.Drops.ContainsKey("queue_full") && watch.Elapsed < TimeSpan.FromSeconds(20));
        Assert.True(port.Counters.Drops["queue_full"] > 0);
        // The others go on as if nothing were.
        await sender.SendAsync(AttachClient.Frame(MacAddress.Broadcast, Frames.B));
        FrameBatch got;
        do
            got = await reader.ReceiveAsync();
        while (got.Frames[^1].Data.Length != 60);
        // And once it reads again, so does it.
        int received = 0;
        while (received < 1024)
            received += (await slow.ReceiveAsync()).Frames.Count;
    }

    [Fact]
    public async Task BadFramesAreCountedAndTheStreamGoesOn()
    {
        using AttachClient one = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network, PortId = "bad" });
        using AttachClient two = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network });
        var batch = new FrameBatch
        {
            Frames =
            {
                new Frame(),
                new Frame { Data = ByteString.CopyFrom(new byte[13]) },
                new Frame { Data = ByteString.CopyFrom(new byte[70000]) },
                new Frame { Data = ByteString.CopyFrom(AttachClient.Frame(MacAddress.Broadcast, Frames.A)), Offload = new FrameOffload { CsumStart = 70000, NeedsCsum = true } },
                new Frame { Data = ByteString.CopyFrom(AttachClient.Frame(MacAddress.Broadcast, Frames.A)), Offload = new FrameOffload { GsoType = 9 } },
                new Frame { Data = ByteString.CopyFrom(AttachClient.Frame(MacAddress.Broadcast, Frames.A)) },
            },
        };
        await one.SendAsync(batch);
        Assert.Single((await two.ReceiveAsync()).Frames);
        Port port = (await Process.Ports.GetPortAsync(new GetPortRequest { Name = one.Welcome.Port.Name })).Port;
        Assert.Equal((2UL, 1UL, 2UL), (port.Counters.Drops["frame_too_short"], port.Counters.Drops["frame_too_long"], port.Counters.Drops["header_inconsistent"]));
    }

    [Fact]
    public async Task LargeSegmentsGoWholeToWhoTakesThemAndCutToWhoDoesNot()
    {
        using AttachClient sender = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network, PortId = "tso" });
        using AttachClient plain = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network });
        using AttachClient able = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network, Offloads = new Offloads { Checksum = true, Tso4 = true } });
        byte[] segment = TcpFrame(payload: 4000);
        await sender.SendAsync(new FrameBatch
        {
            Frames =
            {
                new Frame
                {
                    Data = ByteString.CopyFrom(segment),
                    Offload = new FrameOffload { NeedsCsum = true, CsumStart = 34, CsumOffset = 16, GsoType = 1, GsoSize = 1460, HdrLen = 54 },
                },
            },
        });
        Frame whole = (await able.ReceiveAsync()).Frames[0];
        Assert.Equal((segment.Length, 1460U, true), (whole.Data.Length, whole.Offload.GsoSize, whole.Offload.NeedsCsum));
        FrameBatch cut = await plain.ReceiveAsync();
        Assert.Equal([54 + 1460, 54 + 1460, 54 + 1080], cut.Frames.Select(frame => frame.Data.Length));
        foreach (Frame frame in cut.Frames)
        {
            Assert.Null(frame.Offload);
            ReadOnlySpan<byte> tcp = frame.Data.Span[34..];
            Assert.True(Checksum.IsValid(frame.Data.Span[14..34]));
            Assert.True(Checksum.IsValid(tcp, Checksum.PseudoHeader(Ipv4Address.Read(frame.Data.Span[26..]), Ipv4Address.Read(frame.Data.Span[30..]), 6, tcp.Length)));
        }
    }

    [Fact]
    public async Task AStreamMustBeginWithAHelloThatFits()
    {
        using var call = Process.Ports.Attach();
        await call.RequestStream.WriteAsync(new AttachRequest { Frames = new FrameBatch() });
        Assert.Equal("HELLO_REQUIRED", await ReasonAsync(() => call.ResponseStream.MoveNext(default)));
        Assert.Equal("NETWORK_NOT_FOUND", await ReasonAsync(() => AttachClient.OpenAsync(Process, new AttachHello { Network = "networks/none" })));
        Assert.Equal("PORT_ID_INVALID", await ReasonAsync(() => AttachClient.OpenAsync(Process, new AttachHello { Network = Network, PortId = "A" })));
        Assert.Equal("MAC_INVALID", await ReasonAsync(() => AttachClient.OpenAsync(Process, new AttachHello { Network = Network, Mac = "ff:ff:ff:ff:ff:ff" })));
        using AttachClient one = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network, PortId = "taken" });
        Assert.Equal("PORT_EXISTS", await ReasonAsync(() => AttachClient.OpenAsync(Process, new AttachHello { Network = Network, PortId = "taken" })));
        var large = new FrameBatch();
        for (int i = 0; i < 257; i++)
            large.Frames.Add(new Frame());
        await one.SendAsync(large);
        Assert.Equal("BATCH_TOO_LARGE", await ReasonAsync(one.ReceiveAsync));
    }

    [Fact]
    public async Task AClientThatVanishesTakesItsPortAlong()
    {
        using var cancellation = new CancellationTokenSource();
        AttachClient one = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network, PortId = "vanish" }, cancellation.Token);
        await cancellation.CancelAsync();
        await UntilGoneAsync(one.Welcome.Port.Name);
        using AttachClient again = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network, PortId = "vanish" });
        await Process.Ports.DeletePortAsync(new DeletePortRequest { Name = again.Welcome.Port.Name });
        Assert.Equal("PORT_REMOVED", await ReasonAsync(again.ReceiveAsync));
    }

    /// <summary>TCP over IPv4, its checksum partial: the pseudo header's sum alone.</summary>
    private static byte[] TcpFrame(int payload)
    {
        byte[] frame = AttachClient.Frame(MacAddress.Broadcast, Frames.A, 40 + payload);
        BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(12), EtherType.Ipv4);
        Span<byte> ip = frame.AsSpan(14);
        ip[0] = 0x45;
        BinaryPrimitives.WriteUInt16BigEndian(ip[2..], (ushort)(40 + payload));
        ip[8] = 64;
        ip[9] = 6;
        Ipv4Address source = Ipv4Address.Parse("192.168.108.10"), destination = Ipv4Address.Parse("192.168.108.11");
        source.Write(ip[12..]);
        destination.Write(ip[16..]);
        BinaryPrimitives.WriteUInt16BigEndian(ip[10..], Checksum.Compute(ip[..20]));
        ip[20 + 12] = 5 << 4;
        ip[20 + 13] = 0x10;
        BinaryPrimitives.WriteUInt16BigEndian(ip[(20 + 16)..], Checksum.Fold(Checksum.PseudoHeader(source, destination, 6, 20 + payload)));
        for (int i = 54; i < frame.Length; i++)
            frame[i] = (byte)i;
        return frame;
    }

    private async Task UntilGoneAsync(string port)
    {
        for (var watch = Stopwatch.StartNew(); ; await Task.Delay(10))
        {
            try
            {
                await Process.Ports.GetPortAsync(new GetPortRequest { Name = port });
            }
            catch (RpcException exception) when (RpcErrors.ReasonOf(exception) == "PORT_NOT_FOUND")
            {
                return;
            }
            Assert.True(watch.Elapsed < TimeSpan.FromSeconds(5), port + " is still there");
        }
    }

    private static async Task<string?> ReasonAsync(Func<Task> action) => RpcErrors.ReasonOf(await Assert.ThrowsAsync<RpcException>(action));
}
