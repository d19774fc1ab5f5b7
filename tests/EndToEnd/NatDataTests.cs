using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>2. What guests do through NAT: data in both directions, many connections, half-close, and truthful failures.</summary>
public sealed class NatDataTests(SharedInstance shared) : SharedInstanceTest(shared)
{
    private const int Length = 100_000_000;
    private static readonly TimeSpan Long = TimeSpan.FromSeconds(60);
    private TestGuest _guest = null!;

    public override async ValueTask InitializeAsync()
    {
        await base.InitializeAsync();
        _guest = await Instance.AddGuestAsync("nat", "vmnet8");
    }

    public override async ValueTask DisposeAsync()
    {
        if (_guest is not null)
            await _guest.DisposeAsync();
        await base.DisposeAsync();
        GC.SuppressFinalize(this);
    }

    [Fact]
    public async Task Downloads_100_MB_unchanged()
    {
        CommandResult result = (await _guest.RunAsync(Long, "sh", "-c", $"curl -sSf http://{Instance.WanAddress}/bytes/{Length} | sha256sum")).EnsureSuccess();
        Assert.Equal(HashOfData(), result.Output.Split(' ')[0]);
        Log($"downloaded {Length} bytes in {result.Elapsed.TotalSeconds:0.00} s");
    }

    [Fact]
    public async Task Uploads_100_MB_unchanged()
    {
        string file = Path.Combine(Instance.ScratchDirectory, "upload");
        await File.WriteAllBytesAsync(file, Data(), Cancellation);
        CommandResult result = (await _guest.RunAsync(Long, "curl", "-sSf", "-H", "Expect:", "-T", file, $"http://{Instance.WanAddress}/hash")).EnsureSuccess();
        File.Delete(file);
        Assert.Equal($"{Length} {HashOfData()}\n", result.Output);
        Log($"uploaded {Length} bytes in {result.Elapsed.TotalSeconds:0.00} s");
    }

    [Fact]
    public async Task Carries_200_connections_at_the_same_time()
    {
        // The server answers none before all 200 are there.
        CommandResult result = (await _guest.RunAsync(Long, "curl", "-sSf", "--parallel", "--parallel-immediate", "--parallel-max", "200", "--max-time", "30",
            $"http://{Instance.WanAddress}/together/200?[1-200]")).EnsureSuccess();
        Assert.Equal(200, result.Output.Split('\n').Count(line => line == "together"));
    }

    [Fact]
    public async Task A_half_closed_connection_still_carries_all_of_a_late_answer()
    {
        // socat ends its own direction with the input, then reads for up to 20 s.
        CommandResult result = (await _guest.RunAsync(Long, "sh", "-c",
            $"head -c 300000 /dev/zero | socat -t 20 - TCP:{Instance.WanAddress}:{WanServers.LateAnswerPort} | wc -c")).EnsureSuccess();
        Assert.Equal(WanServers.LateAnswerLength, int.Parse(result.Output, CultureInfo.InvariantCulture));

        CommandResult start = await _guest.RunAsync(Long, "sh", "-c", $"head -c 300000 /dev/zero | socat -t 20 - TCP:{Instance.WanAddress}:{WanServers.LateAnswerPort} | head -n 1");
        Assert.Equal("read 300000\n", start.Output);
        Assert.True(start.Elapsed >= WanServers.LateAnswerDelay, "the answer came before the question's end");
    }

    [Fact]
    public async Task A_refusal_is_a_refusal_at_once()
    {
        CommandResult result = await _guest.RunAsync("curl", "-sS", $"http://{Instance.WanAddress}:81/");
        Assert.Equal(7, result.ExitCode);
        Assert.Contains("Connection refused", result.Error + await ReasonAsync(Instance.WanAddress, 81), StringComparison.Ordinal);
        Assert.True(result.Elapsed < TimeSpan.FromSeconds(1), result.ToString());
    }

    [Fact]
    public async Task An_unreachable_destination_is_said_to_be_so()
    {
        CommandResult result = await _guest.RunAsync("curl", "-sS", "--connect-timeout", "10", $"http://{Instance.UnreachableAddress}/");
        Assert.Equal(7, result.ExitCode);
        Assert.True(result.Elapsed < TimeSpan.FromSeconds(2), result.ToString());
        Assert.Contains("No route to host", await ReasonAsync(Instance.UnreachableAddress, 80), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_destination_that_drops_gives_a_time_out_and_never_a_connect()
    {
        Task<CommandResult> dropping = _guest.RunAsync("curl", "-sS", "--connect-timeout", "5", "-w", "%{time_connect}", $"http://{Instance.DroppingAddress}/");
        // An address that nobody has: the host's ARP fails after some seconds, and the guest is told; but it never connects.
        Task<CommandResult> dead = _guest.RunAsync("curl", "-sS", "--connect-timeout", "10", "-w", "%{time_connect}", $"http://{Instance.DeadAddress}/");

        CommandResult result = await dropping;
        Assert.True(result.ExitCode == 28, $"a time-out is exit code 28\n{result}");
        Assert.Equal("0.000000", result.Output);
        Assert.True(result.Elapsed > TimeSpan.FromSeconds(4.5), result.ToString());

        result = await dead;
        Assert.True(result.ExitCode is 7 or 28, result.ToString());
        Assert.Equal("0.000000", result.Output);
    }

    [Fact]
    public async Task Ping_reaches_what_lives_and_nothing_else()
    {
        CommandResult alive = (await _guest.RunAsync("ping", "-c", "5", "-i", "0.2", "-W", "2", Instance.WanAddress)).EnsureSuccess();
        Assert.Contains(" 0% packet loss", alive.Output, StringComparison.Ordinal);
        foreach (string address in new[] { Instance.DeadAddress, Instance.DroppingAddress })
        {
            CommandResult dead = await _guest.RunAsync("ping", "-c", "3", "-i", "0.2", "-W", "1", address);
            Assert.Contains(" 0 received", dead.Output, StringComparison.Ordinal);
            Assert.NotEqual(0, dead.ExitCode);
        }
    }

    [Fact]
    public async Task Pings_that_fill_the_mtu_cross()
    {
        (await _guest.RunAsync("ping", "-c", "2", "-i", "0.2", "-W", "2", "-s", "1472", "-M", "do", Instance.WanAddress)).EnsureSuccess();
    }

    [Fact]
    public async Task Datagrams_come_back_and_keep_their_bounds()
    {
        CommandResult result = (await _guest.RunAsync("sh", "-c", $"printf 'one datagram' | socat -t 2 - UDP:{Instance.WanAddress}:{WanServers.EchoPort}")).EnsureSuccess();
        Assert.Equal("one datagram", result.Output);
        using Socket socket = _guest.Namespace.Enter(() => new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp));
        socket.ReceiveTimeout = 3000;
        var echo = new IPEndPoint(IPAddress.Parse(Instance.WanAddress), WanServers.EchoPort);
        byte[] buffer = new byte[4096];
        foreach (int size in new[] { 1, 512, 1472 })
        {
            await socket.SendToAsync(new byte[size], SocketFlags.None, echo, Cancellation);
            Assert.Equal(size, socket.Receive(buffer));
        }
    }

    [Fact]
    public async Task Names_are_resolved_over_udp_and_tcp_by_the_gateway()
    {
        foreach (string transport in new[] { "+notcp", "+tcp" })
        {
            CommandResult address = (await _guest.RunAsync("dig", "@192.168.108.2", "+short", "+tries=1", "+time=3", transport, "web.wan.test")).EnsureSuccess();
            Assert.Equal(Instance.WanAddress + "\n", address.Output);
        }
        // An answer too long for a datagram says so, and dig asks again over TCP.
        CommandResult big = (await _guest.RunAsync("dig", "@192.168.108.2", "+short", "+noedns", "+tries=1", "+time=3", "big.wan.test", "TXT")).EnsureSuccess();
        Assert.Contains(new string('l', 200), big.Output, StringComparison.Ordinal);
        CommandResult missing = (await _guest.RunAsync("dig", "@192.168.108.2", "+tries=1", "+time=3", "nobody.wan.test")).EnsureSuccess();
        Assert.Contains("status: NXDOMAIN", missing.Output, StringComparison.Ordinal);
        CommandResult page = (await _guest.RunAsync("curl", "-sSf", "--max-time", "5", "http://web.wan.test/")).EnsureSuccess();
        Assert.StartsWith("hello", page.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task The_hosts_loopback_is_out_of_reach()
    {
        // A server on every address of the host, so also on its loopback.
        using Socket listener = Instance.Host.Enter(() =>
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            socket.Bind(new IPEndPoint(IPAddress.Loopback, 8099));
            socket.Listen();
            return socket;
        });
        CommandResult gateway = await _guest.RunAsync("curl", "-sS", "--connect-timeout", "3", "http://192.168.108.2:8099/");
        Assert.NotEqual(0, gateway.ExitCode);

        // The guest's kernel sends nothing to 127.0.0.0/8 or 0.0.0.0 through a device; a hostile guest writes the frame itself.
        (await _guest.RunAsync("ping", "-c", "1", "-W", "2", "192.168.108.2")).EnsureSuccess();
        string table = (await _guest.RunAsync("ip", "neigh", "show", "192.168.108.2")).EnsureSuccess().Output;
        byte[] gatewayMac = Frames.Mac(table.Split(' ').SkipWhile(word => word != "lladdr").ElementAt(1));
        byte[] ownMac = Frames.Mac((await _guest.RunAsync("cat", "/sys/class/net/eth0/address")).EnsureSuccess().Output);
        IPAddress own = await _guest.AddressAsync();
        using var sender = PacketCapture.Open(_guest.Namespace, "eth0");
        using var answers = PacketCapture.Start(_guest.Namespace, "eth0", "tcp port 8099");
        foreach (string target in new[] { "127.0.0.1", "127.8.9.10", "0.0.0.0" })
            sender.Send(Frames.TcpSyn(ownMac, gatewayMac, own, IPAddress.Parse(target), 50123, 8099));
        // The same frame to somewhere that answers shows that such frames do arrive.
        sender.Send(Frames.TcpSyn(ownMac, gatewayMac, own, IPAddress.Parse(Instance.WanAddress), 50124, 8099));
        await Wait.UntilAsync(TimeSpan.FromSeconds(3), "the refusal by the wan", () => answers.TcpSegments.Any(segment => segment.Tcp.Reset && segment.Tcp.DestinationPort == 50124));
        await Task.Delay(500, Cancellation);
        Assert.False(listener.Poll(0, SelectMode.SelectRead), "a guest's connection came to the host's loopback");
        Assert.DoesNotContain(answers.TcpSegments, segment => segment.Tcp is { Synchronize: true, Acknowledgment: true });
    }

    /// <summary>The guest's errno of a connect, in words; curl 7.88 says little of it.</summary>
    private async Task<string> ReasonAsync(string address, int port) =>
        (await _guest.RunAsync("socat", "-u", "/dev/null", $"TCP:{address}:{port},connect-timeout=5")).Error;

    private static byte[] Data()
    {
        byte[] data = new byte[Length];
        WanServers.Fill(data, 0);
        return data;
    }

    private static string HashOfData() => Convert.ToHexStringLower(SHA256.HashData(Data()));
}
