using System.Net;
using System.Net.Sockets;
using System.Text;

namespace VNetMesh.EndToEnd.Tests.Harness;

/// <summary>
/// A LAN beside an instance's host: the host's NIC is eth0 with fixed addresses and a default route; behind it is a station with a real DHCP
/// server and router advertisements.
/// </summary>
public sealed class Lan : IAsyncDisposable
{
    public const string Station = "192.0.2.1";
    public const string Host = "192.0.2.10";
    public const string StationIpv6 = "2001:db8:1::1";
    public const string HostIpv6 = "2001:db8:1::10";

    private readonly BackgroundCommand _dhcp;

    private Lan(Instance instance, NetworkNamespace space, BackgroundCommand dhcp) => (Instance, Namespace, _dhcp) = (instance, space, dhcp);

    public Instance Instance { get; }

    public NetworkNamespace Namespace { get; }

    public static async Task<Lan> CreateAsync(Instance instance)
    {
        NetworkNamespace space = await NetworkNamespace.CreateAsync(instance.Prefix + "-lan");
        string host = instance.Host.Name;
        (await Command.RunAsync("sh", "-c", $"""
            set -e
            ip link add eth0 netns {host} type veth peer name lan0 netns {space.Name}
            ip -n {space.Name} addr add {Station}/24 dev lan0
            ip -n {space.Name} addr add {StationIpv6}/64 dev lan0 nodad
            ip -n {space.Name} link set lan0 up
            ip netns exec {host} sysctl -qw net.ipv6.conf.eth0.accept_ra=0
            ip -n {host} addr add {Host}/24 dev eth0
            ip -n {host} addr add {HostIpv6}/64 dev eth0 nodad
            ip -n {host} link set eth0 up
            ip -n {host} route add default via {Station}
            """)).EnsureSuccess();
        BackgroundCommand dhcp = space.Start("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--user=root", "--pid-file", "--port=0", "--leasefile-ro",
            "--interface=lan0", "--bind-interfaces", "--dhcp-range=192.0.2.100,192.0.2.200,1h", "--dhcp-range=2001:db8:1::,ra-only", "--enable-ra");
        // Duplicate address detection of the link-local addresses has ended.
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "the LAN is there", async () => !(await instance.Host.RunAsync("ip", "addr", "show", "dev", "eth0")).Output.Contains("tentative", StringComparison.Ordinal)
            && (await space.RunAsync("sh", "-c", "ss -lun | grep -q ':67 '")).ExitCode == 0);
        return new Lan(instance, space, dhcp);
    }

    /// <summary>All of the host that an uplink could change.</summary>
    public async Task<string> DescribeHostAsync() => (await Instance.Host.RunAsync("sh", "-c", """
        ip -o -d link | sed 's/ state [A-Z]* / /'; ip -o addr | sed 's/valid_lft.*//'; ip route show table all | sort; ip -6 route show table all | sed 's/ expires [0-9]*sec//' | sort
        tc qdisc; tc filter show dev eth0 ingress; tc filter show dev eth0 egress; ip rule; nft list ruleset
        """)).Output;

    /// <summary>A TCP connection between the host and the station, as ssh has it.</summary>
    public LanSession OpenSession()
    {
        TcpListener listener = Namespace.Enter(() =>
        {
            var made = new TcpListener(IPAddress.Parse(Station), 22);
            made.Start();
            return made;
        });
        TcpClient client = Instance.Host.Enter(() => new TcpClient(Station, 22));
        TcpClient server = listener.AcceptTcpClient();
        listener.Stop();
        return new LanSession(client, server);
    }

    public async ValueTask DisposeAsync() => await _dhcp.DisposeAsync();
}

/// <summary>Both ends of a connection.</summary>
public sealed class LanSession(TcpClient client, TcpClient server) : IDisposable
{
    public async Task AssertAliveAsync()
    {
        using var limit = new CancellationTokenSource(TimeSpan.FromSeconds(5));
        foreach ((TcpClient from, TcpClient to) in new[] { (client, server), (server, client) })
        {
            byte[] sent = Encoding.ASCII.GetBytes(Guid.NewGuid().ToString()), received = new byte[sent.Length];
            await from.GetStream().WriteAsync(sent, limit.Token);
            await to.GetStream().ReadExactlyAsync(received, limit.Token);
            Assert.Equal(sent, received);
        }
    }

    public void Dispose()
    {
        client.Dispose();
        server.Dispose();
    }
}
