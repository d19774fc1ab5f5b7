using System.Security.Cryptography;
using PacketDotNet;
using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>
/// The control: straight from the host, without VNetMesh, the wan does what the other tests take it to do. When these fail, the
/// fault is the machine's or the suite's.
/// </summary>
public sealed class HarnessTests : OwnInstanceTest
{
    protected override InstanceOptions Options => new() { Up = false };

    [Fact]
    public async Task The_wan_serves_refuses_drops_and_is_silent_as_the_tests_expect()
    {
        NetworkNamespace host = Instance.Host;
        byte[] data = new byte[1_000_000];
        WanServers.Fill(data, 0);
        CommandResult hash = (await host.RunAsync("sh", "-c", $"curl -sSf http://{Instance.WanAddress}/bytes/1000000 | sha256sum")).EnsureSuccess();
        Assert.Equal(Convert.ToHexStringLower(SHA256.HashData(data)), hash.Output.Split(' ')[0]);

        Assert.Equal(7, (await host.RunAsync("curl", "-s", $"http://{Instance.WanAddress}:81/")).ExitCode);
        Assert.Equal(7, (await host.RunAsync("curl", "-s", "--connect-timeout", "5", $"http://{Instance.UnreachableAddress}/")).ExitCode);
        Assert.Equal(28, (await host.RunAsync("curl", "-s", "--connect-timeout", "1.5", $"http://{Instance.DroppingAddress}/")).ExitCode);
        Assert.Equal(1, (await host.RunAsync("ping", "-c", "1", "-W", "1", Instance.DeadAddress)).ExitCode);
        Assert.Equal($"{Instance.WanAddress}\n", (await host.RunAsync("dig", "@" + Instance.WanAddress, "+short", "+time=2", "web.wan.test")).Output);
        Assert.Contains("hello", (await host.RunAsync("sh", "-c", $"printf hello | socat -t 2 - UDP:{Instance.WanAddress}:{WanServers.EchoPort}")).Output, StringComparison.Ordinal);
        Assert.StartsWith("read 3\n", (await host.RunAsync("sh", "-c", $"printf abc | socat -t 5 - TCP:{Instance.WanAddress}:{WanServers.LateAnswerPort}")).Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_capture_sees_both_directions_and_sent_frames_arrive()
    {
        using PacketCapture capture = PacketCapture.Start(Instance.Wan, "host0", "tcp port 80");
        (await Instance.Host.RunAsync("curl", "-sSf", $"http://{Instance.WanAddress}/")).EnsureSuccess();
        await Wait.UntilAsync(TimeSpan.FromSeconds(3), "a handshake is captured", () => capture.TcpSegments.Any(segment => segment.Tcp is { Synchronize: true, Acknowledgment: true }));
        Assert.Contains(capture.TcpSegments, segment => segment.Tcp is { Synchronize: true, Acknowledgment: false });

        using PacketCapture arp = PacketCapture.Start(Instance.Wan, "host0", "arp");
        using PacketCapture sender = PacketCapture.Open(Instance.Host, "wan0");
        sender.Send(Frames.ArpRequest([2, 0, 0, 0, 0, 9], System.Net.IPAddress.Parse("192.0.2.77"), System.Net.IPAddress.Parse(Instance.WanAddress)));
        await Wait.UntilAsync(TimeSpan.FromSeconds(3), "the wan answers a frame written by hand", () => arp.Frames.Any(frame => frame.Packet.Extract<ArpPacket>() is { Operation: ArpOperation.Response }));
    }
}
