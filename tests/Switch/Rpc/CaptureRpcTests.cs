using System.Buffers.Binary;
using Google.Protobuf;
using Grpc.Core;
using VNetMesh.Hosting;
using VNetMesh.Packets;
using VNetMesh.Switch.Tests.Support;
using VNetMesh.V1;

namespace VNetMesh.Switch.Tests.Rpc;

/// <summary>Captures by the API of the real process.</summary>
public sealed class CaptureRpcTests(SharedSwitch shared) : IClassFixture<SharedSwitch>
{
    private const string Network = "networks/vmnet8";

    private SwitchProcess Process => shared.Process;

    private CaptureService.CaptureServiceClient Captures => new(Process.Channel);

    [Fact]
    public async Task FramesComeWithTheirVerdictAndAtTheEndTheStatistics()
    {
        using AttachClient one = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network, PortId = "verdict-one" });
        using AttachClient two = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network, PortId = "verdict-two" });
        using Reader reader = await Reader.OpenAsync(Captures, new CaptureRequest { Network = Network, Port = one.Welcome.Port.Name, SnapLength = 20 });
        Assert.Equal((CaptureDirection.Both, 20u, ""), (reader.Started.Direction, reader.Started.SnapLength, reader.Started.Filter));
        Assert.Contains((await Captures.ListCapturesAsync(new ListCapturesRequest())).Captures, capture => capture.Name == reader.Started.Name && capture.Port == one.Welcome.Port.Name);

        await one.SendAsync(AttachClient.Frame(MacAddress.Broadcast, Frames.A));
        await two.ReceiveAsync();
        await two.SendAsync(AttachClient.Frame(Frames.A, Frames.B, 100));
        await one.ReceiveAsync();
        CapturedFrame first = await reader.NextAsync(), second = await reader.NextAsync();
        Assert.Equal((CaptureDirection.In, one.Welcome.Port.Name, true), (first.Direction, first.Port, first.Verdict.Flooded));
        Assert.Equal((CaptureDirection.Out, one.Welcome.Port.Name, one.Welcome.Port.Name, 114u), (second.Direction, second.Port, second.Verdict.SentTo, second.OriginalLength));
        Assert.Equal(AttachClient.Frame(Frames.A, Frames.B, 100)[..20], second.Data.ToByteArray());

        await Captures.StopCaptureAsync(new StopCaptureRequest { Name = reader.Started.Name });
        CaptureStatistics end = await reader.EndAsync();
        Assert.Equal((2UL, 2UL, 0UL), (end.Seen, end.Matched, end.Missed));
        await RefusedAsync(StatusCode.NotFound, "CAPTURE_NOT_FOUND", async () => await Captures.StopCaptureAsync(new StopCaptureRequest { Name = reader.Started.Name }));
    }

    [Fact]
    public async Task ALargeSegmentIsShownAsItIsOrCutAndItsChecksumCompleted()
    {
        using AttachClient sender = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network, PortId = "large-sender" });
        using AttachClient receiver = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network, PortId = "large-receiver" });
        using Reader whole = await Reader.OpenAsync(Captures, new CaptureRequest { Network = Network, Port = sender.Welcome.Port.Name });
        using Reader cut = await Reader.OpenAsync(Captures, new CaptureRequest { Network = Network, Port = sender.Welcome.Port.Name, CutSegments = true, SnapLength = 60 });
        (byte[] data, FrameOffload offload) = LargeTcp(payload: 3000, segment: 1448);
        await sender.SendAsync(new FrameBatch { Frames = { new Frame { Data = ByteString.CopyFrom(data), Offload = offload } } });

        CapturedFrame large = await whole.NextAsync();
        Assert.Equal((54u + 3000, 1u, 1448u, 0u), (large.OriginalLength, large.Offload.GsoType, large.Offload.GsoSize, large.Segment));
        Assert.True(HasGoodTcpChecksum(large.Data.ToByteArray()));
        Assert.False(HasGoodTcpChecksum(data));
        CapturedFrame[] pieces = [await cut.NextAsync(), await cut.NextAsync(), await cut.NextAsync()];
        Assert.Equal([54u + 1448, 54u + 1448, 54u + 104], pieces.Select(piece => piece.OriginalLength));
        Assert.Equal([1u, 2u, 3u], pieces.Select(piece => piece.Segment));
        Assert.All(pieces, piece => Assert.Equal((60, null, large.Verdict), (piece.Data.Length, piece.Offload, piece.Verdict)));
        Assert.Equal([1000u, 1000 + 1448, 1000 + 2896], pieces.Select(piece => BinaryPrimitives.ReadUInt32BigEndian(piece.Data.Span[38..])));
    }

    [Fact]
    public async Task TheFilterIsOfTheClientAndIsCheckedBySwitch()
    {
        using AttachClient sender = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network, PortId = "filter-sender" });
        // Longer than 100 octets: ld len; jgt #100; ret #1; ret #0.
        var filter = new CaptureFilter { Text = "greater 101", Instructions = { Instruction(0x80), Instruction(0x25, 0, 1, 100), Instruction(0x06, k: 1), Instruction(0x06) } };
        using Reader reader = await Reader.OpenAsync(Captures, new CaptureRequest { Network = Network, Port = sender.Welcome.Port.Name, Filter = filter, MaxFrames = 2 });
        for (int i = 0; i < 4; i++)
            await sender.SendAsync(AttachClient.Frame(MacAddress.Broadcast, Frames.A, i % 2 == 0 ? 86 : 87));
        Assert.Equal((101u, 101u), ((await reader.NextAsync()).OriginalLength, (await reader.NextAsync()).OriginalLength));
        Assert.True((await reader.EndAsync()).Seen >= 4);

        filter.Instructions[1].Jf = 7;
        await RefusedAsync(StatusCode.InvalidArgument, "FILTER_INVALID", () => Reader.OpenAsync(Captures, new CaptureRequest { Network = Network, Filter = filter }));
        filter.Instructions[1].Jf = 256;
        await RefusedAsync(StatusCode.InvalidArgument, "FILTER_INVALID", () => Reader.OpenAsync(Captures, new CaptureRequest { Network = Network, Filter = filter }));
        await RefusedAsync(StatusCode.InvalidArgument, "FILTER_INVALID", () => Reader.OpenAsync(Captures, new CaptureRequest { Network = Network, Filter = new CaptureFilter { Text = "a\nb", Instructions = { Instruction(0x06) } } }));
        await RefusedAsync(StatusCode.InvalidArgument, "DIRECTION_INVALID", () => Reader.OpenAsync(Captures, new CaptureRequest { Network = Network, Direction = (CaptureDirection)9 }));
        await RefusedAsync(StatusCode.NotFound, "NETWORK_NOT_FOUND", () => Reader.OpenAsync(Captures, new CaptureRequest { Network = "networks/nowhere" }));
        await RefusedAsync(StatusCode.NotFound, "PORT_NOT_FOUND", () => Reader.OpenAsync(Captures, new CaptureRequest { Network = Network, Port = Network + "/ports/nobody" }));
        await RefusedAsync(StatusCode.InvalidArgument, "PORT_NETWORK_MISMATCH", () => Reader.OpenAsync(Captures, new CaptureRequest { Network = "networks/vmnet1", Port = sender.Welcome.Port.Name }));

        static BpfInstruction Instruction(uint code, uint jt = 0, uint jf = 0, uint k = 0) => new() { Code = code, Jt = jt, Jf = jf, K = k };
    }

    [Fact]
    public async Task CapturesAreFewAndAreGivenBack()
    {
        // A switch of its own: the others' captures would be in the way.
        await using SwitchProcess process = await SwitchProcess.StartAsync();
        var captures = new CaptureService.CaptureServiceClient(process.Channel);
        var readers = new List<Reader>();
        for (int i = 0; i < 8; i++)
            readers.Add(await Reader.OpenAsync(captures, new CaptureRequest { Network = "networks/vmnet1" }));
        await RefusedAsync(StatusCode.ResourceExhausted, "TOO_MANY_CAPTURES", () => Reader.OpenAsync(captures, new CaptureRequest { Network = Network }));
        // A reader that goes without a word.
        readers[3].Dispose();
        for (int attempt = 0; (await captures.ListCapturesAsync(new ListCapturesRequest())).Captures.Count == 8; attempt++)
        {
            Assert.True(attempt < 100, "the capture of a reader that is gone goes on");
            await Task.Delay(20);
        }
        using Reader again = await Reader.OpenAsync(captures, new CaptureRequest { Network = Network });

        await process.Networks.DeleteNetworkAsync(new DeleteNetworkRequest { Name = "networks/vmnet1", Force = true });
        await RefusedAsync(StatusCode.Aborted, "NETWORK_REMOVED", readers[0].EndAsync);
        readers.ForEach(reader => reader.Dispose());
    }

    [Fact]
    public async Task AReaderThatStopsReadingSlowsNoFrameAndLearnsWhatItMissed()
    {
        using AttachClient sender = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network, PortId = "slow-sender" });
        using AttachClient receiver = await AttachClient.OpenAsync(Process, new AttachHello { Network = Network, PortId = "slow-receiver" });
        await receiver.SendAsync(AttachClient.Frame(MacAddress.Broadcast, Frames.B));
        await sender.ReceiveAsync();
        using Reader reader = await Reader.OpenAsync(Captures, new CaptureRequest { Network = Network, Port = sender.Welcome.Port.Name, Direction = CaptureDirection.In });

        const int Batches = 400, InBatch = 64;
        var batch = new FrameBatch();
        for (int i = 0; i < InBatch; i++)
            batch.Frames.Add(new Frame { Data = ByteString.CopyFrom(AttachClient.Frame(Frames.B, Frames.A, 1400)) });
        int received = 0;
        for (int i = 0; i < Batches; i++)
        {
            await sender.SendAsync(batch);
            for (; received < (i + 1) * InBatch;)
                received += (await receiver.ReceiveAsync()).Frames.Count;
        }
        Assert.Equal(Batches * InBatch, received);

        // Only now does it read, and finds the buffer's worth and the count of the rest.
        await Captures.StopCaptureAsync(new StopCaptureRequest { Name = reader.Started.Name });
        CaptureStatistics end = await reader.EndAsync();
        Assert.Equal((ulong)(Batches * InBatch), end.Matched);
        Assert.True(end.Missed > 0, "a reader that does not read missed nothing");
        Assert.Equal(end.Matched, (ulong)reader.Count + end.Missed);
    }

    private static async Task RefusedAsync(StatusCode code, string reason, Func<Task> action)
    {
        RpcException refusal = await Assert.ThrowsAsync<RpcException>(action);
        Assert.Equal((code, reason), (refusal.StatusCode, RpcErrors.ReasonOf(refusal)));
    }

    /// <summary>A TCP segment as a kernel hands it over: large, with a checksum of the pseudo header alone.</summary>
    private static (byte[] Data, FrameOffload Offload) LargeTcp(int payload, uint segment)
    {
        byte[] frame = new byte[54 + payload];
        EthernetView.Write(frame, MacAddress.Broadcast, Frames.A, EtherType.Ipv4);
        Span<byte> ip = frame.AsSpan(14);
        ip[0] = 0x45;
        BinaryPrimitives.WriteUInt16BigEndian(ip[2..], (ushort)ip.Length);
        ip[8] = 64;
        ip[9] = 6;
        new byte[] { 192, 168, 108, 5, 192, 168, 108, 6 }.CopyTo(ip[12..]);
        BinaryPrimitives.WriteUInt16BigEndian(ip[10..], Checksum.Compute(ip[..20]));
        Span<byte> tcp = ip[20..];
        BinaryPrimitives.WriteUInt32BigEndian(tcp[4..], 1000);
        tcp[12] = 0x50;
        BinaryPrimitives.WriteUInt16BigEndian(tcp[16..], (ushort)~Checksum.Compute(PseudoHeader(frame)));
        return (frame, new FrameOffload { NeedsCsum = true, CsumStart = 34, CsumOffset = 16, GsoType = 1, GsoSize = segment, HdrLen = 54 });
    }

    private static bool HasGoodTcpChecksum(byte[] frame) => Checksum.Compute([.. PseudoHeader(frame), .. frame[34..]]) == 0;

    private static byte[] PseudoHeader(byte[] frame)
    {
        byte[] header = [.. frame[26..34], 0, 6, 0, 0];
        BinaryPrimitives.WriteUInt16BigEndian(header.AsSpan(10), (ushort)(frame.Length - 34));
        return header;
    }

    /// <summary>One who reads a capture, frame by frame; everything has a limit of ten seconds.</summary>
    private sealed class Reader : IDisposable
    {
        private readonly AsyncServerStreamingCall<CaptureResponse> _call;
        private readonly Queue<CapturedFrame> _frames = new();

        private Reader(AsyncServerStreamingCall<CaptureResponse> call) => _call = call;

        public CaptureInfo Started { get; private set; } = null!;

        /// <summary>Frames that have come.</summary>
        public int Count { get; private set; }

        public static async Task<Reader> OpenAsync(CaptureService.CaptureServiceClient captures, CaptureRequest request)
        {
            var reader = new Reader(captures.Capture(request));
            reader.Started = (await reader.MoveAsync()).Started;
            return reader;
        }

        public async Task<CapturedFrame> NextAsync()
        {
            while (_frames.Count == 0)
                Keep((await MoveAsync()).Batch);
            return _frames.Dequeue();
        }

        public async Task<CaptureStatistics> EndAsync()
        {
            while (true)
            {
                CaptureResponse response = await MoveAsync();
                if (response.Ended is not null)
                    return response.Ended;
                Keep(response.Batch);
            }
        }

        public void Dispose() => _call.Dispose();

        private async Task<CaptureResponse> MoveAsync()
        {
            using var limit = new CancellationTokenSource(10_000);
            Assert.True(await _call.ResponseStream.MoveNext(limit.Token));
            return _call.ResponseStream.Current;
        }

        private void Keep(CaptureBatch batch)
        {
            Count += batch.Frames.Count;
            foreach (CapturedFrame frame in batch.Frames)
                _frames.Enqueue(frame);
        }
    }
}
