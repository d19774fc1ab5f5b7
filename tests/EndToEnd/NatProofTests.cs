using System.Diagnostics;
using System.Net;
using VNetMesh.EndToEnd.Tests.Harness;
using VNetMesh.V1;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>3. The proof that nat is a proxy: two connections with nothing in common, the host's owned by nat.</summary>
public sealed class NatProofTests(SharedInstance shared) : SharedInstanceTest(shared)
{
    /// <summary>The stated time within which nat gives up on a guest that never completes its handshake.</summary>
    private static readonly TimeSpan HandshakeLimit = TimeSpan.FromSeconds(20);

    [Fact]
    public async Task The_two_sides_are_two_connections_and_the_hosts_is_nats()
    {
        await using TestGuest guest = await Instance.AddGuestAsync("proof", "vmnet8");
        IPAddress guestAddress = await guest.AddressAsync();
        using PacketCapture inside = PacketCapture.Start(guest.Namespace, "eth0", $"tcp port {WanServers.EchoPort}");
        using PacketCapture outside = PacketCapture.Start(Instance.Wan, "host0", $"tcp port {WanServers.EchoPort}");

        await using BackgroundCommand connection = guest.Namespace.Start("sh", "-c", $"(echo hello; sleep 20) | socat - TCP:{Instance.WanAddress}:{WanServers.EchoPort}");
        await Wait.UntilAsync(TimeSpan.FromSeconds(5), "the echo", () => connection.Output.Contains("\nhello", StringComparison.Ordinal));

        // The host's socket table: the one connection to the server is of the nat process.
        int nat = Instance.ProcessIds()["nat"];
        CommandResult sockets = (await Instance.Host.RunAsync("ss", "-Htnp", "state", "established", "dst", $"{Instance.WanAddress}:{WanServers.EchoPort}")).EnsureSuccess();
        string only = Assert.Single(sockets.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries));
        Assert.Contains($"pid={nat},", only, StringComparison.Ordinal);

        await Wait.UntilAsync(TimeSpan.FromSeconds(5), "both handshakes are captured", () => HasHandshake(inside) && HasHandshake(outside));
        var guestSyn = inside.TcpSegments.First(segment => segment.Tcp is { Synchronize: true, Acknowledgment: false });
        var guestSynAck = inside.TcpSegments.First(segment => segment.Tcp is { Synchronize: true, Acknowledgment: true });
        var hostSyn = outside.TcpSegments.First(segment => segment.Tcp is { Synchronize: true, Acknowledgment: false });
        var hostSynAck = outside.TcpSegments.First(segment => segment.Tcp is { Synchronize: true, Acknowledgment: true });

        Assert.Equal(guestAddress, guestSyn.Ip.SourceAddress);
        Assert.Equal(Instance.HostWanAddress, hostSyn.Ip.SourceAddress.ToString());
        Assert.NotEqual(guestSyn.Tcp.SequenceNumber, hostSyn.Tcp.SequenceNumber);
        Assert.NotEqual(guestSynAck.Tcp.SequenceNumber, hostSynAck.Tcp.SequenceNumber);
        // No false connect: the guest hears of success only after the server has agreed.
        Assert.True(guestSynAck.Time >= hostSynAck.Time, $"the guest's SYN-ACK at {guestSynAck.Time:O} came before the server's at {hostSynAck.Time:O}");
    }

    [Fact]
    public async Task A_guest_that_sends_only_syns_never_completes_and_nat_lets_go_of_its_socket()
    {
        await using TestGuest guest = await Instance.AddGuestAsync("syn", "vmnet8");
        (await guest.RunAsync("sh", "-c", """
            nft add table ip only && nft add chain ip only out '{ type filter hook output priority 0; }' &&
            nft add rule ip only out meta l4proto tcp tcp flags \& '(fin|syn|rst|ack)' != syn drop
            """)).EnsureSuccess();
        var nat = new NatService.NatServiceClient(Instance.Channel("nat"));
        using PacketCapture inside = PacketCapture.Start(guest.Namespace, "eth0", $"tcp port {WanServers.LateAnswerPort}");

        var watch = Stopwatch.StartNew();
        await using BackgroundCommand client = guest.Namespace.Start("curl", "-sS", "--max-time", "40", $"http://{Instance.WanAddress}:{WanServers.LateAnswerPort}/");
        await Wait.UntilAsync(TimeSpan.FromSeconds(5), "the host's socket is connected", async () => await HostSocketsAsync() == 1);
        var states = new HashSet<FlowState>();
        await Wait.UntilAsync(HandshakeLimit + TimeSpan.FromSeconds(1), "nat closes its host socket", async () =>
        {
            ListFlowsResponse flows = await nat.ListFlowsAsync(new ListFlowsRequest { Parent = "networks/vmnet8" }, cancellationToken: Cancellation);
            states.UnionWith(flows.Flows.Where(flow => flow.Remote.Port == WanServers.LateAnswerPort).Select(flow => flow.State));
            await Task.Delay(100, Cancellation);
            return await HostSocketsAsync() == 0;
        });
        Log($"nat let go after {watch.Elapsed.TotalSeconds:0.0} s; states seen: {string.Join(", ", states)}");

        Assert.Contains(FlowState.Handshake, states);
        Assert.DoesNotContain(FlowState.Established, states);
        Assert.False(client.HasExited && client.Output.Contains("read ", StringComparison.Ordinal), client.Output);
        // All that ever left the guest are SYNs.
        Assert.All(inside.TcpSegments.Where(segment => segment.Tcp.DestinationPort == WanServers.LateAnswerPort), segment => Assert.True(segment.Tcp is { Synchronize: true, Acknowledgment: false }));
    }

    /// <summary>Sockets of the host, in whatever state but TIME-WAIT (which is no process's), to the late-answer server.</summary>
    private async Task<int> HostSocketsAsync()
    {
        CommandResult sockets = (await Instance.Host.RunAsync("ss", "-Htn", "exclude", "time-wait", "dst", $"{Instance.WanAddress}:{WanServers.LateAnswerPort}")).EnsureSuccess();
        return sockets.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length;
    }

    private static bool HasHandshake(PacketCapture capture) =>
        capture.TcpSegments.Any(segment => segment.Tcp is { Synchronize: true, Acknowledgment: true });
}
