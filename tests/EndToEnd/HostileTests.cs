using System.Diagnostics;
using System.Net;
using Google.Protobuf;
using Grpc.Core;
using VNetMesh.EndToEnd.Tests.Harness;
using VNetMesh.V1;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>5. Hostile frames from a guest's TAP and from an Attach client leave all services up, and are counted by cause.</summary>
public sealed class HostileTests(SharedInstance shared) : SharedInstanceTest(shared)
{
    private const int Count = 100_000;

    [Fact]
    public async Task A_hundred_thousand_hostile_frames_from_a_tap()
    {
        await using TestGuest guest = await Instance.AddGuestAsync("evil", "vmnet8");
        IPAddress address = await guest.AddressAsync();
        byte[] mac = Frames.Mac((await guest.RunAsync("cat", "/sys/class/net/eth0/address")).Output);
        await SurvivesAsync(async gatewayMac =>
        {
            var frames = new HostileFrames(2131, mac, address, IPAddress.Parse("192.168.108.2"), gatewayMac);
            using PacketCapture sender = PacketCapture.Open(guest.Namespace, "eth0");
            long before = await ReceivedAsync(guest.Name), lost = 0;
            for (int sent = 1; sent <= Count; sent++)
            {
                sender.Send(frames.Next(wellSized: true));
                // A TAP's queue holds 500 frames, and the kernel drops what is too much: let the switch keep up.
                if (sent % 250 != 0)
                    continue;
                var pause = Stopwatch.StartNew();
                long arrived;
                while ((arrived = await ReceivedAsync(guest.Name) - before) + lost < sent && pause.ElapsedMilliseconds < 100)
                    await Task.Delay(1, Cancellation);
                lost = Math.Max(lost, sent - arrived);
            }
            Assert.True(lost < Count / 20, $"{lost} of {Count} frames did not reach the switch");
        });
    }

    [Fact]
    public async Task A_hundred_thousand_hostile_frames_from_an_attach_client()
    {
        byte[] mac = [0x02, 0xEE, 0, 0, 0, 1];
        await SurvivesAsync(async gatewayMac =>
        {
            var frames = new HostileFrames(9293, mac, IPAddress.Parse("192.168.108.77"), IPAddress.Parse("192.168.108.2"), gatewayMac);
            var ports = new PortService.PortServiceClient(Instance.Channel("switch"));
            using AsyncDuplexStreamingCall<AttachRequest, AttachResponse> call = ports.Attach(cancellationToken: Cancellation);
            await call.RequestStream.WriteAsync(new AttachRequest { Hello = new AttachHello { Network = "networks/vmnet8", PortId = "evil-stream", Owner = "e2e" } }, Cancellation);
            Assert.True(await call.ResponseStream.MoveNext(Cancellation));
            Assert.NotNull(call.ResponseStream.Current.Welcome);
            Task drain = Task.Run(async () =>
            {
                while (await call.ResponseStream.MoveNext(Cancellation))
                {
                    // What comes back is of no interest; not to read it would fill the queue.
                }
            }, Cancellation);
            var random = new Random(4);
            for (int sent = 0; sent < Count;)
            {
                var batch = new FrameBatch();
                for (int size = Math.Min(random.Next(1, 257), Count - sent); size > 0; size--, sent++)
                {
                    var frame = new Frame { Data = ByteString.CopyFrom(frames.Next(wellSized: false)) };
                    // Offloads that were never agreed on, or that point outside of the frame.
                    if (random.Next(10) == 0)
                        frame.Offload = new FrameOffload { NeedsCsum = random.Next(2) == 0, CsumStart = (uint)random.Next(70000), CsumOffset = (uint)random.Next(70000), GsoType = (uint)random.Next(7), GsoSize = (uint)random.Next(70000), HdrLen = (uint)random.Next(70000) };
                    batch.Frames.Add(frame);
                }
                await call.RequestStream.WriteAsync(new AttachRequest { Frames = batch }, Cancellation);
            }
            await call.RequestStream.CompleteAsync();
            // The port lives as long as the stream, so when this ends, and it must in order, all was read.
            await drain.WaitAsync(TimeSpan.FromSeconds(20), Cancellation);
        });
    }

    [Fact]
    public async Task An_attach_client_that_breaks_the_protocol_is_told_so()
    {
        var ports = new PortService.PortServiceClient(Instance.Channel("switch"));
        using AsyncDuplexStreamingCall<AttachRequest, AttachResponse> call = ports.Attach(cancellationToken: Cancellation);
        await call.RequestStream.WriteAsync(new AttachRequest { Frames = new FrameBatch { Frames = { new Frame { Data = ByteString.CopyFrom(new byte[60]) } } } }, Cancellation);
        RpcException refusal = await Assert.ThrowsAsync<RpcException>(() => call.ResponseStream.MoveNext(Cancellation));
        Assert.True(refusal.StatusCode is StatusCode.InvalidArgument or StatusCode.FailedPrecondition, refusal.ToString());
    }

    /// <summary>Runs the attack, and asserts that the services live on, guests still work, and the drops have names.</summary>
    private async Task SurvivesAsync(Func<byte[], Task> attack)
    {
        await using TestGuest bystander = await Instance.AddGuestAsync("bystander", "vmnet8");
        Assert.True(await bystander.FetchesAsync("3"));
        var nat = new NatService.NatServiceClient(Instance.Channel("nat"));
        Gateway gateway = await GatewayAsync(nat);
        Dictionary<string, int> processes = Instance.ProcessIds();
        Dictionary<string, ulong> before = await DropsAsync();
        var watch = Stopwatch.StartNew();

        await attack(Frames.Mac(gateway.Mac));

        TimeSpan took = watch.Elapsed;
        await Wait.UntilAsync(TimeSpan.FromSeconds(5), "the bystander fetches", () => bystander.FetchesAsync("2"));
        Assert.Equal(processes, Instance.ProcessIds());
        foreach (string service in Instance.Services)
            Assert.True(await Instance.IsHealthyAsync(service), service);
        Dictionary<string, ulong> risen = (await DropsAsync()).Where(drop => drop.Value > before.GetValueOrDefault(drop.Key)).ToDictionary(drop => drop.Key, drop => drop.Value - before.GetValueOrDefault(drop.Key));
        Log($"{Count} frames in {took.TotalSeconds:0.0} s; drops: {string.Join(", ", risen.OrderByDescending(drop => drop.Value).Select(drop => $"{drop.Key} {drop.Value}"))}");
        Assert.All(risen.Keys, cause => Assert.Matches("^(switch|nat|dhcp):[a-z][a-z0-9_]*$", cause));
        Assert.True(risen.Keys.Count(cause => cause.StartsWith("nat:", StringComparison.Ordinal)) >= 4, "nat counts by cause");
        Assert.True(risen.Keys.Any(cause => cause.StartsWith("switch:", StringComparison.Ordinal)), "the switch counts by cause");
        gateway = await GatewayAsync(nat);
        Assert.True(gateway.TcpFlows + gateway.UdpFlows + gateway.IcmpFlows <= gateway.MaxFlows, gateway.ToString());
    }

    private async Task<Gateway> GatewayAsync(NatService.NatServiceClient nat) =>
        (await nat.ListGatewaysAsync(new ListGatewaysRequest(), cancellationToken: Cancellation)).Gateways.Single(gateway => gateway.Network == "networks/vmnet8");

    private async Task<long> ReceivedAsync(string port)
    {
        var ports = new PortService.PortServiceClient(Instance.Channel("switch"));
        return (long)(await ports.GetPortAsync(new GetPortRequest { Name = $"networks/vmnet8/ports/{port}" }, cancellationToken: Cancellation)).Port.Counters.RxFrames;
    }

    /// <summary>All drops so far, "service:cause".</summary>
    private async Task<Dictionary<string, ulong>> DropsAsync()
    {
        var networks = new NetworkService.NetworkServiceClient(Instance.Channel("switch"));
        var dhcp = new DhcpService.DhcpServiceClient(Instance.Channel("dhcp"));
        var nat = new NatService.NatServiceClient(Instance.Channel("nat"));
        Network network = (await networks.GetNetworkAsync(new GetNetworkRequest { Name = "networks/vmnet8" }, cancellationToken: Cancellation)).Network;
        Pool pool = (await dhcp.ListPoolsAsync(new ListPoolsRequest(), cancellationToken: Cancellation)).Pools.Single(pool => pool.Network == "networks/vmnet8");
        return network.Counters.Drops.Select(drop => ("switch:" + drop.Key, drop.Value))
            .Concat(pool.Drops.Select(drop => ("dhcp:" + drop.Key, drop.Value)))
            .Concat((await GatewayAsync(nat)).Drops.Select(drop => ("nat:" + drop.Key, drop.Value)))
            .ToDictionary();
    }
}
