using Google.Protobuf;
using Grpc.Core;
using VNetMesh.Dhcp.Tests.Support;
using VNetMesh.Packets;
using VNetMesh.V1;

namespace VNetMesh.Dhcp.Tests;

/// <summary>kill -9 in the middle of a crowd of clients: every ACK that was sent stands for a lease on disk.</summary>
public sealed class AbruptEndTests : IDisposable
{
    private const int Clients = 110;

    private readonly Lab _lab = new("--VNETMESH_DHCP:ProbeTime=00:00:00");

    public void Dispose() => _lab.Dispose();

    [Theory]
    [InlineData(5)]
    [InlineData(40)]
    public async Task Every_ACK_outlives_kill_9(int killedAfter)
    {
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        Ipv4Address server = Ipv4Address.Parse(_lab.Network.Dhcpv4.ServerAddress), first = Ipv4Address.Parse(_lab.Network.Dhcpv4.RangeStart);
        using AsyncDuplexStreamingCall<AttachRequest, AttachResponse> call = _lab.Attach();
        await call.RequestStream.WriteAsync(new AttachRequest { Hello = new AttachHello { Network = "networks/vmnet8", PortId = "crowd" } }, cancellation);
        Assert.True(await call.ResponseStream.MoveNext(cancellation));
        var acknowledged = new HashSet<string>();
        Task reading = Task.Run(async () =>
        {
            while (await call.ResponseStream.MoveNext(CancellationToken.None))
            {
                foreach (Frame frame in call.ResponseStream.Current.Frames?.Frames ?? [])
                {
                    if (ReadAck(frame.Data.Span) is not { } address)
                        continue;
                    lock (acknowledged)
                        acknowledged.Add(address.ToString());
                }
            }
        }, cancellation);
        // A few at a time, so that commits, answers and the end meet at every stage.
        Task sending = Task.Run(async () =>
        {
            for (int client = 0; client < Clients; client += 2)
            {
                var batch = new FrameBatch();
                for (int i = client; i < client + 2; i++)
                    batch.Frames.Add(new Frame { Data = ByteString.CopyFrom(Request(i, first.Add(i), server)) });
                await call.RequestStream.WriteAsync(new AttachRequest { Frames = batch }, cancellation);
                await Task.Delay(2, cancellation);
            }
        }, cancellation);
        Lab.Wait(10, "some are acknowledged", () =>
        {
            lock (acknowledged)
                return acknowledged.Count >= killedAfter;
        });
        _lab.KillDhcp();
        await sending;
        // What was in the ring still comes.
        await Task.Delay(300, cancellation);
        await call.RequestStream.CompleteAsync();
        await reading.WaitAsync(TimeSpan.FromSeconds(10), cancellation);
        _lab.StartDhcp();
        HashSet<string> bound = [.. _lab.Leases.Where(lease => lease.State == LeaseState.Bound).Select(lease => lease.Ipv4Address)];
        Assert.Superset(acknowledged, bound);
        TestContext.Current.TestOutputHelper?.WriteLine($"{acknowledged.Count} of {Clients} were acknowledged, {bound.Count} are on disk");
    }

    private static byte[] Request(int client, Ipv4Address address, Ipv4Address server)
    {
        byte[] frame = new byte[14 + 20 + 8 + 300];
        MacAddress mac = CoreScript.Mac(client + 1);
        var writer = new Dhcpv4Writer(frame.AsSpan(42), new Dhcpv4Header { Operation = Dhcpv4.BootRequest, TransactionId = (uint)client, HardwareAddress = mac, Flags = Dhcpv4.FlagBroadcast });
        writer.TryAdd(Dhcpv4Option.MessageType, (byte)Dhcpv4MessageType.Request);
        writer.TryAdd(Dhcpv4Option.RequestedAddress, address);
        writer.TryAdd(Dhcpv4Option.ServerIdentifier, server);
        writer.Finish();
        EthernetView.Write(frame, MacAddress.Broadcast, mac, EtherType.Ipv4);
        new Ipv4Header(default, Ipv4Address.Broadcast, IpProtocol.Udp, 308).Write(frame.AsSpan(14));
        UdpView.Write(frame.AsSpan(34), default, Ipv4Address.Broadcast, 68, 67);
        return frame;
    }

    private static Ipv4Address? ReadAck(ReadOnlySpan<byte> frame) =>
        frame.Length > 42 && Dhcpv4View.TryParse(frame[42..], out Dhcpv4View view) && view.TryGetOption(Dhcpv4Option.MessageType, out ReadOnlySpan<byte> type) && type[0] == (byte)Dhcpv4MessageType.Ack
            ? view.YourAddress
            : null;
}
