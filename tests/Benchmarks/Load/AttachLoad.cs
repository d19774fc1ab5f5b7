using System.Buffers.Binary;
using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.NetworkInformation;
using Google.Protobuf;
using Grpc.Core;
using Grpc.Net.Client;
using VNetMesh.Benchmarks.Running;
using VNetMesh.Benchmarks.Systems;
using VNetMesh.Hosting;
using VNetMesh.Packets;
using VNetMesh.V1;

namespace VNetMesh.Benchmarks.Load;

/// <summary>A gRPC client on the Attach stream that sends or counts frames. They are UDP datagrams, so that the other end is the guest's kernel.</summary>
internal static class AttachLoad
{
    private const int Batch = 64;
    private const int Headers = 14 + 20 + 8;
    private const int Port = 7100;
    private const string Network = "vmnet8";
    private const string OwnAddress = "192.168.108.77";
    private static readonly byte[] OwnMac = [0x02, 0, 0, 0, 0, 0x77];

    /// <summary>Sends frames as fast as the stream takes them.</summary>
    /// <returns>Frames a second that the guest's kernel delivered.</returns>
    public static async Task<double> SendAsync(VNetMeshInstance instance, VNetMeshGuest guest, int size, int seconds, CancellationToken cancellation)
    {
        await using BackgroundProgram counter = guest.Namespace.Start("UDP receiver", Worker.Command("udp-count", Text(Port), Text(seconds)));
        await counter.UntilAsync("it was ready", () => counter.Output.Contains("ready", StringComparison.Ordinal), cancellation);
        using GrpcChannel channel = OpenChannel(instance);
        using AsyncDuplexStreamingCall<AttachRequest, AttachResponse> call = await HelloAsync(channel, cancellation);
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        Task drain = DrainAsync(call, stop.Token);
        AttachRequest batch = Frames(guest, size, Batch);
        var watch = Stopwatch.StartNew();
        while (watch.Elapsed < TimeSpan.FromSeconds(seconds + 1))
            await call.RequestStream.WriteAsync(batch, cancellation);
        await call.RequestStream.CompleteAsync();
        UdpResult result = Udp.Parse(await counter.FinishAsync(TimeSpan.FromSeconds(seconds + 15), cancellation));
        await stop.CancelAsync();
        await drain;
        return result.DatagramsPerSecond;
    }

    /// <summary>Takes what a guest sends as fast as it can.</summary>
    /// <returns>Frames a second that reached the client.</returns>
    public static async Task<double> ReceiveAsync(VNetMeshInstance instance, VNetMeshGuest guest, int size, int seconds, CancellationToken cancellation)
    {
        using GrpcChannel channel = OpenChannel(instance);
        using AsyncDuplexStreamingCall<AttachRequest, AttachResponse> call = await HelloAsync(channel, cancellation);
        // One frame tells the switch where the address is; the guest is told by hand, as nobody answers ARP here.
        await call.RequestStream.WriteAsync(Frames(guest, size, 1), cancellation);
        await guest.Namespace.RunAsync(cancellation, "ip", "neigh", "replace", OwnAddress, "lladdr", Convert.ToHexString(OwnMac).Chunk(2).Aggregate("", (text, octet) => text + (text.Length > 0 ? ":" : "") + new string(octet)), "dev", "eth0");
        await using BackgroundProgram flood = guest.Namespace.Start("UDP sender", Worker.Command("udp-send", $"{OwnAddress}:{Text(Port)}", Text(size - Headers), Text(seconds)));
        await CountAsync(call, size, TimeSpan.Zero, cancellation);
        await CountAsync(call, size, UdpWorker.WarmUp, cancellation);
        var watch = Stopwatch.StartNew();
        long frames = await CountAsync(call, size, TimeSpan.FromSeconds(seconds), cancellation);
        double elapsed = watch.Elapsed.TotalSeconds;
        await call.RequestStream.CompleteAsync();
        return frames / elapsed;
    }

    private static GrpcChannel OpenChannel(VNetMeshInstance instance) => UnixChannel.Create(Path.Combine(instance.RunDirectory, "switch.sock"));

    private static async Task<AsyncDuplexStreamingCall<AttachRequest, AttachResponse>> HelloAsync(GrpcChannel channel, CancellationToken cancellation)
    {
        AsyncDuplexStreamingCall<AttachRequest, AttachResponse> call = new PortService.PortServiceClient(channel).Attach(cancellationToken: cancellation);
        await call.RequestStream.WriteAsync(new AttachRequest { Hello = new AttachHello { Network = "networks/" + Network, Owner = "bench" } }, cancellation);
        return await call.ResponseStream.MoveNext(cancellation) && call.ResponseStream.Current.Welcome is not null ? call : throw new BenchmarkException("Attach: no welcome");
    }

    /// <summary>Counts frames of the size until the time is over; of zero, until the first one comes.</summary>
    private static async Task<long> CountAsync(AsyncDuplexStreamingCall<AttachRequest, AttachResponse> call, int size, TimeSpan time, CancellationToken cancellation)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        limit.CancelAfter(time + TimeSpan.FromSeconds(10));
        long frames = 0;
        var watch = Stopwatch.StartNew();
        try
        {
            while ((time == TimeSpan.Zero ? frames == 0 : watch.Elapsed < time) && await call.ResponseStream.MoveNext(limit.Token))
            {
                foreach (Frame frame in call.ResponseStream.Current.Frames?.Frames ?? [])
                    frames += frame.Data.Length == size ? 1 : 0;
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException or RpcException && !cancellation.IsCancellationRequested)
        {
            throw new BenchmarkException("Attach: the frames stopped: " + exception.Message, exception);
        }
        return frames;
    }

    private static async Task DrainAsync(AsyncDuplexStreamingCall<AttachRequest, AttachResponse> call, CancellationToken cancellation)
    {
        try
        {
            while (await call.ResponseStream.MoveNext(cancellation))
            {
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException or RpcException)
        {
            // The measurement is over, or the writer will say what is wrong.
        }
    }

    /// <summary>A batch of UDP datagrams to the guest.</summary>
    private static AttachRequest Frames(VNetMeshGuest guest, int size, int count)
    {
        byte[] frame = new byte[size];
        PhysicalAddress.Parse(guest.Mac.Replace(':', '-')).GetAddressBytes().CopyTo(frame, 0);
        OwnMac.CopyTo(frame, 6);
        BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(12), 0x0800);
        // RFC 791, 3.1: version 4, five words, total length, TTL 64, UDP; then the header's own checksum.
        Span<byte> ip = frame.AsSpan(14, 20);
        ip[0] = 0x45;
        BinaryPrimitives.WriteUInt16BigEndian(ip[2..], (ushort)(size - 14));
        ip[8] = 64;
        ip[9] = 17;
        IPAddress.Parse(OwnAddress).TryWriteBytes(ip[12..], out _);
        IPAddress.Parse(guest.Address).TryWriteBytes(ip[16..], out _);
        BinaryPrimitives.WriteUInt16BigEndian(ip[10..], Checksum.Finish(Checksum.Add(0, ip)));
        // RFC 768: ports, length, no checksum.
        Span<byte> udp = frame.AsSpan(34, 8);
        BinaryPrimitives.WriteUInt16BigEndian(udp, Port);
        BinaryPrimitives.WriteUInt16BigEndian(udp[2..], Port);
        BinaryPrimitives.WriteUInt16BigEndian(udp[4..], (ushort)(size - 34));
        var batch = new FrameBatch();
        for (int at = 0; at < count; at++)
            batch.Frames.Add(new Frame { Data = ByteString.CopyFrom(frame) });
        return new AttachRequest { Frames = batch };
    }

    private static string Text(int number) => number.ToString(CultureInfo.InvariantCulture);
}
