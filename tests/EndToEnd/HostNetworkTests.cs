using System.Net;
using System.Net.Sockets;
using VNetMesh.EndToEnd.Tests.Harness;
using VNetMesh.V1;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>Who reaches whom by default on vmnet1 and vmnet8.</summary>
public sealed class HostNetworkTests(SharedInstance shared) : SharedInstanceTest(shared)
{
    [Fact]
    public async Task A_guest_of_vmnet1_reaches_the_host_and_its_peers_and_nothing_else()
    {
        await using TestGuest lab1 = await Instance.AddGuestAsync("host1", "vmnet1");
        await using TestGuest lab2 = await Instance.AddGuestAsync("host2", "vmnet1");
        using Socket server = ServeOnHost(IPAddress.Any, 8080);
        await AssertPingsAsync(lab1, "192.168.101.1");
        await AssertPingsAsync(lab1, (await lab2.AddressAsync()).ToString());
        (await lab1.RunAsync("socat", "-u", "/dev/null", "TCP:192.168.101.1:8080,connect-timeout=3")).EnsureSuccess();
        (await Instance.Host.RunAsync("ping", "-c", "1", "-W", "2", (await lab1.AddressAsync()).ToString())).EnsureSuccess();

        // Nothing leads out, not even for a guest that takes the host for its router.
        (await lab1.RunAsync("ip", "route", "replace", "default", "via", "192.168.101.1")).EnsureSuccess();
        using PacketCapture wan = PacketCapture.Start(Instance.Wan, "host0", "src net 192.168.0.0/16");
        Assert.NotEqual(0, (await lab1.RunAsync("ping", "-c", "2", "-i", "0.2", "-W", "1", Instance.WanAddress)).ExitCode);
        Assert.False(await lab1.FetchesAsync("1"));
        Assert.Empty(wan.Frames);
    }

    [Fact]
    public async Task A_guest_of_vmnet8_reaches_host_gateway_and_peers_but_not_vmnet1()
    {
        await using TestGuest web1 = await Instance.AddGuestAsync("host3", "vmnet8");
        await using TestGuest web2 = await Instance.AddGuestAsync("host4", "vmnet8");
        using Socket server = ServeOnHost(IPAddress.Any, 8081);
        await AssertPingsAsync(web1, "192.168.108.1");
        await AssertPingsAsync(web1, "192.168.108.2");
        await AssertPingsAsync(web1, (await web2.AddressAsync()).ToString());
        (await web1.RunAsync("socat", "-u", "/dev/null", "TCP:192.168.108.1:8081,connect-timeout=3")).EnsureSuccess();
        (await Instance.Host.RunAsync("ping", "-c", "1", "-W", "2", (await web1.AddressAsync()).ToString())).EnsureSuccess();

        // Past nat, by the host that forwards, there is no way, neither to the wan nor to another network.
        await using TestGuest lab = await Instance.AddGuestAsync("host7", "vmnet1");
        (await web1.RunAsync("ip", "route", "replace", "default", "via", "192.168.108.1")).EnsureSuccess();
        using PacketCapture wan = PacketCapture.Start(Instance.Wan, "host0", "src net 192.168.0.0/16");
        Assert.NotEqual(0, (await web1.RunAsync("ping", "-c", "2", "-i", "0.2", "-W", "1", Instance.WanAddress)).ExitCode);
        Assert.NotEqual(0, (await web1.RunAsync("ping", "-c", "2", "-i", "0.2", "-W", "1", (await lab.AddressAsync()).ToString())).ExitCode);
        Assert.Empty(wan.Frames);
    }

    [Fact]
    public async Task Data_between_guests_arrives_unchanged()
    {
        await using TestGuest web1 = await Instance.AddGuestAsync("host5", "vmnet8");
        await using TestGuest web2 = await Instance.AddGuestAsync("host6", "vmnet8");
        string file = Path.Combine(Instance.ScratchDirectory, "between");
        byte[] data = new byte[20_000_000];
        WanServers.Fill(data, 0);
        await File.WriteAllBytesAsync(file, data, Cancellation);
        await using BackgroundCommand receiver = web2.Namespace.Start("sh", "-c", "socat -u TCP-LISTEN:9000 - | sha256sum");
        await Wait.UntilAsync(TimeSpan.FromSeconds(3), "the receiver listens", async () => (await web2.RunAsync("ss", "-Htln", "sport", "9000")).Output.Length > 0);
        (await web1.RunAsync("socat", "-u", "FILE:" + file, $"TCP:{await web2.AddressAsync()}:9000")).EnsureSuccess();
        await receiver.WaitAsync(TimeSpan.FromSeconds(10));
        Assert.Contains(Convert.ToHexStringLower(System.Security.Cryptography.SHA256.HashData(data)), receiver.Output, StringComparison.Ordinal);
    }

    private static async Task AssertPingsAsync(TestGuest guest, string address) => (await guest.RunAsync("ping", "-c", "2", "-i", "0.2", "-W", "2", address)).EnsureSuccess();

    private Socket ServeOnHost(IPAddress address, int port) => Instance.Host.Enter(() =>
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.Bind(new IPEndPoint(address, port));
        socket.Listen();
        return socket;
    });
}

/// <summary>A subnet that the host routes already is left alone.</summary>
public sealed class SubnetConflictTests : OwnInstanceTest
{
    protected override InstanceOptions Options => new() { Up = false, HostCommands = [["ip", "route", "add", "192.168.108.0/24", "via", Instance.WanAddress]] };

    [Fact]
    public async Task Another_subnet_is_chosen_and_said_so()
    {
        CommandResult up = (await Instance.VnetAsync("up")).EnsureSuccess();
        var networks = new NetworkService.NetworkServiceClient(Instance.Channel("switch"));
        Network network = (await networks.GetNetworkAsync(new GetNetworkRequest { Name = "networks/vmnet8" }, cancellationToken: Cancellation)).Network;
        Assert.NotEqual("192.168.108.0/24", network.Ipv4Subnet);
        CommandResult listed = (await Instance.VnetAsync("network", "show", "vmnet8")).EnsureSuccess();
        string said = up.Output + up.Error + listed.Output + string.Join('\n', network.Conditions) + Instance.Logs(400);
        Assert.Contains("192.168.108.0/24", said, StringComparison.Ordinal);
        Assert.Contains(network.Ipv4Subnet, said, StringComparison.Ordinal);

        // The host's own route is as it was, and guests work on the other subnet.
        Assert.Contains($"via {Instance.WanAddress}", (await Instance.Host.RunAsync("ip", "route", "show", "192.168.108.0/24")).Output, StringComparison.Ordinal);
        await using TestGuest guest = await Instance.AddGuestAsync("web1", "vmnet8");
        Assert.StartsWith(string.Join('.', network.Ipv4Subnet.Split('.')[..3]) + ".", (await guest.AddressAsync()).ToString(), StringComparison.Ordinal);
        Assert.True(await guest.FetchesAsync("3"));
    }
}
