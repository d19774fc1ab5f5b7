using System.Globalization;
using System.Net;
using System.Net.Sockets;
using VNetMesh.EndToEnd.Tests.Harness;
using VNetMesh.V1;
using Endpoint = VNetMesh.V1.Endpoint;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>What else the NAT promises: backpressure, one mapping for all destinations, forwards that keep the client's address, resolvers that change.</summary>
public sealed class NatBehaviourTests(SharedInstance shared) : SharedInstanceTest(shared)
{
    private NatService.NatServiceClient Nat => new(Instance.Channel("nat"));

    [Fact]
    public async Task A_reader_that_stalls_stops_the_sender_instead_of_eating_memory()
    {
        await using TestGuest guest = await Instance.AddGuestAsync("stall", "vmnet8");
        long before = ResidentKilobytes();
        using Socket socket = guest.Namespace.Enter(() => new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp));
        await socket.ConnectAsync(IPAddress.Parse(Instance.WanAddress), WanServers.HttpPort, Cancellation);
        await socket.SendAsync("GET /bytes/1000000000 HTTP/1.1\r\n\r\n"u8.ToArray(), SocketFlags.None, Cancellation);
        int port = ((IPEndPoint)socket.LocalEndPoint!).Port;
        async Task<ulong> SentAsync() => (await Nat.ListFlowsAsync(new ListFlowsRequest { Parent = "networks/vmnet8" }, cancellationToken: Cancellation)).Flows
            .Single(flow => flow.Guest.Port == port && flow.Protocol == Protocol.Tcp).BytesToGuest;

        // Nothing is read: within moments the buffers are full and nothing moves any more.
        ulong last = 0;
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "the flow stands still", async () =>
        {
            ulong previous = last;
            await Task.Delay(700, Cancellation);
            return (last = await SentAsync()) == previous && last > 0;
        });
        Assert.True(last < 32_000_000, $"{last} bytes were sent to a guest that reads nothing");
        Assert.True(ResidentKilobytes() - before < 64_000, $"nat grew from {before} to {ResidentKilobytes()} KB");

        // And when it reads again, it goes on.
        byte[] buffer = new byte[1 << 20];
        for (long read = 0; read < 60_000_000;)
        {
            int size = await socket.ReceiveAsync(buffer, SocketFlags.None, Cancellation).AsTask().WaitAsync(TimeSpan.FromSeconds(5), Cancellation);
            Assert.True(size > 0, $"the connection ended after {read} bytes");
            read += size;
        }
    }

    [Fact]
    public async Task A_guests_udp_port_has_one_mapping_for_all_destinations()
    {
        await using TestGuest guest = await Instance.AddGuestAsync("map", "vmnet8");
        using Socket inside = guest.Namespace.Enter(() => new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp));
        using Socket first = ListenOnWan(), second = ListenOnWan();
        byte[] buffer = new byte[100];
        IPEndPoint ReceiveOn(Socket socket)
        {
            EndPoint from = new IPEndPoint(IPAddress.Any, 0);
            Assert.Equal(5, socket.ReceiveFrom(buffer, ref from));
            return (IPEndPoint)from;
        }
        await inside.SendToAsync("hello"u8.ToArray(), SocketFlags.None, WanEndPoint(first), Cancellation);
        IPEndPoint seenByFirst = ReceiveOn(first);
        await inside.SendToAsync("hello"u8.ToArray(), SocketFlags.None, WanEndPoint(second), Cancellation);
        IPEndPoint seenBySecond = ReceiveOn(second);
        Assert.Equal(Instance.HostWanAddress, seenByFirst.Address.ToString());
        Assert.Equal(seenByFirst, seenBySecond);

        // Both may answer, and the guest sees who did.
        inside.ReceiveTimeout = 3000;
        foreach (Socket server in new[] { second, first })
        {
            await server.SendToAsync("there"u8.ToArray(), SocketFlags.None, seenByFirst, Cancellation);
            Assert.Equal(WanEndPoint(server), ReceiveOn(inside));
        }
    }

    [Fact]
    public async Task A_forward_brings_a_client_in_with_its_own_address()
    {
        await using TestGuest guest = await Instance.AddGuestAsync("fwd", "vmnet8");
        // -t: the client ends its half at once, after which socat would give its shell half a second to begin.
        await using BackgroundCommand server = guest.Namespace.Start("socat", "-t", "5", "TCP-LISTEN:8080,fork,reuseaddr", "SYSTEM:echo $SOCAT_PEERADDR");
        await Wait.UntilAsync(TimeSpan.FromSeconds(3), "the guest's server listens", async () => (await guest.RunAsync("ss", "-Htln", "sport", "8080")).Output.Length > 0);
        PortForward made = (await Nat.CreatePortForwardAsync(new CreatePortForwardRequest
        {
            Parent = "networks/vmnet8",
            ForwardId = "web",
            PortForward = new PortForward
            {
                Protocol = Protocol.Tcp,
                Listen = new Endpoint { Address = "0.0.0.0", Port = 18080 },
                Guest = new Endpoint { Address = (await guest.AddressAsync()).ToString(), Port = 8080 },
            },
        }, cancellationToken: Cancellation)).PortForward;
        try
        {
            CommandResult answer = (await Instance.Wan.RunAsync("socat", "-t", "5", "-", $"TCP:{Instance.HostWanAddress}:18080,connect-timeout=3")).EnsureSuccess();
            Assert.Equal(Instance.WanAddress + "\n", answer.Output);
        }
        finally
        {
            await Nat.DeletePortForwardAsync(new DeletePortForwardRequest { Name = made.Name }, cancellationToken: CancellationToken.None);
        }
        Assert.NotEqual(0, (await Instance.Wan.RunAsync("socat", "-u", "/dev/null", $"TCP:{Instance.HostWanAddress}:18080,connect-timeout=3")).ExitCode);
    }

    [Fact]
    public async Task Resolvers_follow_resolv_conf()
    {
        string file = $"/etc/netns/{Instance.Host.Name}/resolv.conf";
        string original = await File.ReadAllTextAsync(file, Cancellation);
        async Task<bool> UsesAsync(string server) => (await Nat.ListGatewaysAsync(new ListGatewaysRequest(), cancellationToken: Cancellation)).Gateways
            .Single(gateway => gateway.Network == "networks/vmnet8").DnsServers.SequenceEqual([server]);
        Assert.True(await UsesAsync(Instance.WanAddress));
        try
        {
            await File.WriteAllTextAsync(file, "nameserver 192.0.2.5\n", Cancellation);
            await Wait.UntilAsync(TimeSpan.FromSeconds(5), "the new resolver is used", () => UsesAsync("192.0.2.5"));
        }
        finally
        {
            await File.WriteAllTextAsync(file, original, CancellationToken.None);
        }
        await Wait.UntilAsync(TimeSpan.FromSeconds(5), "the old resolver is used again", () => UsesAsync(Instance.WanAddress));
    }

    private Socket ListenOnWan() => Instance.Wan.Enter(() =>
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp) { ReceiveTimeout = 3000 };
        socket.Bind(new IPEndPoint(IPAddress.Parse(Instance.WanAddress), 0));
        return socket;
    });

    private static IPEndPoint WanEndPoint(Socket socket) => (IPEndPoint)socket.LocalEndPoint!;

    private long ResidentKilobytes()
    {
        string line = File.ReadLines($"/proc/{Instance.ProcessIds()["nat"].ToString(CultureInfo.InvariantCulture)}/status").Single(line => line.StartsWith("VmRSS:", StringComparison.Ordinal));
        return long.Parse(line.Split(':', ' ', '\t').First(word => word.Length > 0 && char.IsDigit(word[0])), CultureInfo.InvariantCulture);
    }
}
