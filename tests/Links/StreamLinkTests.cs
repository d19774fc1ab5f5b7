using System.Security.Cryptography;
using System.Threading.Channels;
using Google.Protobuf;
using Grpc.Core;
using Grpc.Net.Client;
using VNetMesh.Hosting;
using VNetMesh.Packets;
using VNetMesh.V1;

namespace VNetMesh.Links.Tests;

public sealed class StreamLinkTests
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Frames_cross_in_order_whole_and_with_their_offloads()
    {
        (PipeStream left, PipeStream right) = PipeStream.Pair();
        using var near = new StreamLink(left, LinkOffloads.All, 256 * 1024);
        using var far = new StreamLink(right, LinkOffloads.All, 256 * 1024);
        using IncrementalHash sent = IncrementalHash.CreateHash(HashAlgorithmName.SHA256), received = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var random = new Random(1);
        int toSend = 5000, toReceive = 5000;
        byte[] record = [];
        long until = Environment.TickCount64 + (long)Patience.TotalMilliseconds;
        while (toReceive > 0)
        {
            Assert.True(Environment.TickCount64 < until, $"{toReceive} frames did not come");
            for (int i = 0; i < 100 && toSend > 0; i++)
            {
                if (record.Length == 0)
                    record = RandomRecord(random);
                if (near.TrySend(record, default) != SendStatus.Sent)
                    break;
                sent.AppendData(record);
                record = [];
                toSend--;
            }
            near.Flush();
            bool came = false;
            while (far.TryReceive(out ReadOnlySpan<byte> got, out _) == ReceiveStatus.Received)
            {
                received.AppendData(got);
                toReceive--;
                came = true;
            }
            far.Flush();
            if (!came && near.PrepareToSleep() & far.PrepareToSleep())
                await Task.Delay(1, Cancellation);
        }
        Assert.Equal(sent.GetCurrentHash(), received.GetCurrentHash());
    }

    [Fact]
    public async Task Traces_cross_with_the_frames_that_they_belong_to()
    {
        (PipeStream left, PipeStream right) = PipeStream.Pair();
        using var near = new StreamLink(left, LinkOffloads.All, 256 * 1024);
        using var far = new StreamLink(right, LinkOffloads.All, 256 * 1024);
        byte[] record = RandomRecord(new Random(1));
        TraceContext[] sent = [default, new(1, 2, 3, true), default, new(4, 5, 6, false), default];
        var seen = new List<TraceContext>();
        // Twice, for the batch's messages are written over.
        for (int i = 0; i < 2 * sent.Length; i++)
        {
            Assert.Equal(SendStatus.Sent, near.TrySend(record, sent[i % sent.Length]));
            near.Flush();
            await WaitForAsync(() =>
            {
                ReceiveStatus status = far.TryReceive(out _, out TraceContext trace);
                if (status == ReceiveStatus.Received)
                    seen.Add(trace);
                return status == ReceiveStatus.Received;
            });
        }
        Assert.Equal([.. sent, .. sent], seen);
    }

    /// <summary>The far side does not read: what waits is bounded, and neither thread nor memory is held.</summary>
    [Fact]
    public async Task A_far_side_that_does_not_read_fills_the_ring_and_no_more()
    {
        (PipeStream left, PipeStream right) = PipeStream.Pair();
        using var near = new StreamLink(left, LinkOffloads.All, 256 * 1024);
        byte[] record = new byte[1500];
        int sent = 0;
        for (int idle = 0; idle < 20;)
        {
            SendStatus status = near.TrySend(record, default);
            near.Flush();
            if (status == SendStatus.Sent)
            {
                sent++;
                idle = 0;
                continue;
            }
            Assert.Equal(SendStatus.Full, status);
            idle++;
            await Task.Delay(10, Cancellation);
        }
        // The ring, and the batch under way and the one in the pipe.
        Assert.InRange(sent * 1500, 200 * 1024, 256 * 1024 * 4);
        Assert.True(near.PrepareToSleep());
        int read = 0;
        while (read < sent)
            read += (await right.ReadAsync(Cancellation).WaitAsync(Patience, Cancellation))!.Frames.Count;
        await WaitForAsync(() => !near.PrepareToSleep());
        Assert.Equal(SendStatus.Sent, near.TrySend(record, default));
    }

    /// <summary>This side does not read: the pump stops reading, and gRPC's flow control stops the far side.</summary>
    [Fact]
    public async Task A_loop_that_does_not_read_stops_the_far_side()
    {
        (PipeStream left, PipeStream right) = PipeStream.Pair();
        using var near = new StreamLink(left, LinkOffloads.All, 256 * 1024);
        var batch = new FrameBatch { Frames = { Enumerable.Range(0, 50).Select(_ => new Frame { Data = ByteString.CopyFrom(new byte[1500]) }) } };
        int written = 0;
        Task writer = Task.Run(async () =>
        {
            for (; written < 40; written++)
                await right.WriteAsync(batch, Cancellation);
        }, Cancellation);
        await Task.Delay(300, Cancellation);
        Assert.InRange(written, 1, 8);
        int got = 0;
        await WaitForAsync(() =>
        {
            while (near.TryReceive(out _, out _) == ReceiveStatus.Received)
                got++;
            near.Flush();
            return got == 40 * 50;
        });
        await writer.WaitAsync(Patience, Cancellation);
    }

    [Fact]
    public async Task What_came_before_the_end_is_given_out_and_then_it_is_closed()
    {
        (PipeStream left, PipeStream right) = PipeStream.Pair();
        using var near = new StreamLink(left, LinkOffloads.All);
        await right.WriteAsync(new FrameBatch { Frames = { new Frame { Data = ByteString.CopyFrom(new byte[60]) } } }, Cancellation);
        right.Dispose();
        await near.Completion.WaitAsync(Patience, Cancellation);
        Assert.False(near.PrepareToSleep());
        Assert.Equal(ReceiveStatus.Received, near.TryReceive(out _, out _));
        Assert.Equal(ReceiveStatus.Closed, near.TryReceive(out _, out _));
        Assert.Equal(SendStatus.Closed, near.TrySend(new byte[100], default));
        Assert.True(near.PrepareToSleep());
        Assert.Equal("the far side ended the stream", near.EndReason);
    }

    [Fact]
    public async Task Frames_that_cannot_be_are_counted_and_the_rest_comes()
    {
        (PipeStream left, PipeStream right) = PipeStream.Pair();
        using var near = new StreamLink(left, LinkOffloads.All);
        ByteString data = ByteString.CopyFrom(new byte[60]);
        await right.WriteAsync(new FrameBatch
        {
            Frames =
            {
                new Frame(),
                new Frame { Data = ByteString.CopyFrom(new byte[13]) },
                new Frame { Data = ByteString.CopyFrom(new byte[FrameRecord.MaxFrameLength + 1]) },
                new Frame { Data = data, Offload = new FrameOffload { CsumStart = 65536 } },
                new Frame { Data = data, Offload = new FrameOffload { GsoType = 3 } },
                new Frame { Data = data, Offload = new FrameOffload { GsoSize = uint.MaxValue } },
                new Frame { Data = data, Offload = new FrameOffload { NeedsCsum = true, CsumStart = 34, CsumOffset = 16, GsoType = 1, GsoSize = 1448, HdrLen = 54 } },
            },
        }, Cancellation);
        byte[] record = [];
        await WaitForAsync(() =>
        {
            if (near.TryReceive(out ReadOnlySpan<byte> got, out _) == ReceiveStatus.Received)
                record = got.ToArray();
            near.PrepareToSleep();
            return record.Length > 0;
        });
        Assert.Equal(6, near.MalformedFrames);
        Assert.Equal(
            "01" + // flags: needs checksum
            "01" + // TCP over IPv4
            "3600" + // header length 54, little end first
            "A805" + // segment size 1448
            "2200" + // checksum start 34
            "1000" + // checksum offset 16
            "0100", // one buffer
            Convert.ToHexString(record, 0, VirtioNetHeader.Length));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(FrameRecord.MinLength - 1)]
    [InlineData(FrameRecord.MaxLength + 1)]
    public void A_record_that_cannot_be_is_refused(int length)
    {
        (PipeStream left, _) = PipeStream.Pair();
        using var near = new StreamLink(left, LinkOffloads.All);
        Assert.Equal(SendStatus.Refused, near.TrySend(new byte[length], default));
        Assert.True(near.Reserve(length).IsEmpty);
    }

    [Fact]
    public async Task Disposed_in_the_middle_of_traffic_it_ends_and_both_pumps_with_it()
    {
        for (int round = 0; round < 50; round++)
        {
            (PipeStream left, PipeStream right) = PipeStream.Pair();
            var near = new StreamLink(left, LinkOffloads.All, 256 * 1024);
            Task echo = Task.Run(async () =>
            {
                while (await right.ReadAsync(CancellationToken.None) is { } batch)
                    await right.WriteAsync(batch, CancellationToken.None);
            }, Cancellation);
            for (int i = 0; i < round * 5; i++)
            {
                near.TrySend(new byte[1000], default);
                near.Flush();
                near.TryReceive(out _, out _);
            }
            near.Dispose();
            near.Dispose();
            Assert.Equal(SendStatus.Closed, near.TrySend(new byte[100], default));
            Assert.Equal(ReceiveStatus.Closed, near.TryReceive(out _, out _));
            await near.Completion.WaitAsync(Patience, Cancellation);
            right.Dispose();
            await echo.ContinueWith(_ => { }, TaskScheduler.Default).WaitAsync(Patience, Cancellation);
        }
    }

    [Fact]
    public async Task Refusals_and_silence_of_the_switch_are_errors_with_a_reason()
    {
        await using var fake = new FakeSwitch();
        using GrpcChannel channel = UnixChannel.Create(fake.Socket);
        var client = new PortService.PortServiceClient(channel);
        Task<StreamLink> Attach(string id, CancellationToken cancellation) =>
            StreamLink.AttachAsync(client, new AttachHello { Network = "networks/vmnet8", PortId = id }, 256 * 1024, cancellation);
        Assert.Equal(StatusCode.Unavailable, (await Assert.ThrowsAsync<RpcException>(() => Attach("away", Cancellation))).StatusCode);
        await fake.StartAsync();
        Assert.Equal("there is such a port", (await Assert.ThrowsAsync<RpcException>(() => Attach("refused", Cancellation))).Status.Detail);
        using var soon = new CancellationTokenSource(200);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => Attach("mute", soon.Token));
        Assert.Equal(StatusCode.DeadlineExceeded, (await Assert.ThrowsAsync<RpcException>(() => Attach("mute", Cancellation))).StatusCode);
        using StreamLink link = await Attach("good", Cancellation);
        Assert.Null(link.EndReason);
    }

    private static byte[] RandomRecord(Random random)
    {
        byte[] record = new byte[FrameRecord.MinLength + random.Next(random.Next(30) == 0 ? 65000 : 1500)];
        random.NextBytes(record);
        var header = new VirtioNetHeader { BufferCount = 1 };
        if (random.Next(3) == 0)
            header = new VirtioNetHeader { Flags = VirtioNetHeader.FlagNeedsChecksum, GsoType = VirtioNetHeader.GsoTcpv6, GsoSize = 1400, ChecksumStart = 54, ChecksumOffset = 16, HeaderLength = 74, BufferCount = 1 };
        header.Write(record);
        return record;
    }

    private static async Task WaitForAsync(Func<bool> condition)
    {
        long until = Environment.TickCount64 + (long)Patience.TotalMilliseconds;
        while (!condition())
        {
            Assert.True(Environment.TickCount64 < until, "it did not come to that");
            await Task.Delay(2, Cancellation);
        }
    }

    /// <summary>A stream with room for one batch each way.</summary>
    private sealed class PipeStream(ChannelReader<FrameBatch> reader, ChannelWriter<FrameBatch> writer) : IFrameBatchStream
    {
        public static (PipeStream Left, PipeStream Right) Pair()
        {
            Channel<FrameBatch> there = Channel.CreateBounded<FrameBatch>(1), back = Channel.CreateBounded<FrameBatch>(1);
            return (new PipeStream(back.Reader, there.Writer), new PipeStream(there.Reader, back.Writer));
        }

        public async Task<FrameBatch?> ReadAsync(CancellationToken cancellation) =>
            await reader.WaitToReadAsync(cancellation) && reader.TryRead(out FrameBatch? batch) ? batch : null;

        // Through its octets, as by a socket: the sender writes over the batch.
        public Task WriteAsync(FrameBatch batch, CancellationToken cancellation) => writer.WriteAsync(FrameBatch.Parser.ParseFrom(batch.ToByteArray()), cancellation).AsTask();

        public void Dispose() => writer.TryComplete();
    }
}
