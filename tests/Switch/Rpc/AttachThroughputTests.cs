using System.Diagnostics;
using Google.Protobuf;
using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.Switch.Tests.Support;
using VNetMesh.V1;

namespace VNetMesh.Switch.Tests.Rpc;

/// <summary>Frames and octets a second of one Attach client each way, against a ring at the other end. A measurement: set VNETMESH_BENCH=1.</summary>
public sealed class AttachThroughputTests
{
    private const string Network = "networks/vmnet1";
    private static readonly TimeSpan Time = TimeSpan.FromSeconds(3);

    [Theory]
    [InlineData(60)]
    [InlineData(1400)]
    [InlineData(60_000)]
    public async Task OneClient(int payload)
    {
        if (Environment.GetEnvironmentVariable("VNETMESH_BENCH") != "1")
            Assert.Skip("a measurement; set VNETMESH_BENCH=1");
        await using SwitchProcess process = await SwitchProcess.StartAsync();
        await process.Networks.UpdateNetworkAsync(new UpdateNetworkRequest { Network = new V1.Network { Name = Network, Mtu = 65000 }, UpdateMask = new() { Paths = { "mtu" } } });
        RegisterPortResponse registered = process.Ports.RegisterPort(new RegisterPortRequest { Parent = Network, PortId = "ring", Port = new Port { Transport = PortTransport.Ring, Owner = "test" } });
        (RingLink ring, FileDescriptor life) = HandoffClient.AskForRing(process.Paths.HandoffSocket, registered.HandoffToken.Span, 4 * 1024 * 1024, LinkOffloads.All);
        using AttachClient client = await AttachClient.OpenAsync(process, new AttachHello { Network = Network });
        using (life)
        using (ring)
        {
            ring.TrySend(Frames.Record(Frames.A, Frames.B), default);
            ring.Flush();
            await client.ReceiveAsync();
            double sent = await FromClientAsync(client, ring, payload);
            double received = await ToClientAsync(client, ring, payload);
            int length = payload + 14;
            TestContext.Current.TestOutputHelper?.WriteLine(
                $"{length} octets: from the client {sent:N0} frames/s, {sent * length * 8 / 1e9:F2} Gbit/s; to the client {received:N0} frames/s, {received * length * 8 / 1e9:F2} Gbit/s");
        }
    }

    private static async Task<double> FromClientAsync(AttachClient client, RingLink ring, int payload)
    {
        var batch = new FrameBatch();
        byte[] frame = AttachClient.Frame(Frames.B, Frames.A, payload);
        for (int i = 0; i < Math.Min(256, 256 * 1024 / frame.Length); i++)
            batch.Frames.Add(new Frame { Data = UnsafeByteOperations.UnsafeWrap(frame) });
        bool stop = false;
        long taken = 0;
        var drain = new Thread(() => taken = Drain(ring, ref stop));
        drain.Start();
        var watch = Stopwatch.StartNew();
        while (watch.Elapsed < Time)
            await client.SendAsync(batch);
        Volatile.Write(ref stop, true);
        drain.Join();
        return taken / watch.Elapsed.TotalSeconds;
    }

    private static async Task<double> ToClientAsync(AttachClient client, RingLink ring, int payload)
    {
        bool stop = false;
        byte[] record = Frames.Record(Frames.A, Frames.B, payload);
        var fill = new Thread(() => Fill(ring, record, ref stop));
        fill.Start();
        long taken = 0;
        var watch = Stopwatch.StartNew();
        while (watch.Elapsed < Time)
            taken += (await client.ReceiveAsync()).Frames.Count;
        Volatile.Write(ref stop, true);
        fill.Join();
        return taken / watch.Elapsed.TotalSeconds;
    }

    private static long Drain(RingLink ring, ref bool stop)
    {
        long taken = 0;
        while (!Volatile.Read(ref stop))
        {
            while (ring.TryReceive(out _, out _) == ReceiveStatus.Received)
                taken++;
            ring.Flush();
            Thread.Sleep(0);
        }
        return taken;
    }

    /// <summary>No more than the stream takes: what finds its queue full would be lost, and cost all the same.</summary>
    private static void Fill(RingLink ring, byte[] record, ref bool stop)
    {
        while (!Volatile.Read(ref stop))
        {
            for (int i = 0; i < 64 && ring.TrySend(record, default) == SendStatus.Sent; i++)
            {
            }
            ring.Flush();
            Thread.Sleep(0);
        }
    }
}
