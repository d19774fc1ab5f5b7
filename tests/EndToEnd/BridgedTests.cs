using System.Net;
using System.Net.Sockets;
using System.Text;
using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>vmnet0 on a LAN with a real DHCP server, by either driver; the host is on it with a connection that must live.</summary>
public sealed class BridgedTests : OwnInstanceTest
{
    private const string Group = "224.0.0.251";

    protected override InstanceOptions Options => new() { WithWan = false, Up = false };

    [Theory]
    [InlineData("tc")]
    [InlineData("pcap")]
    public async Task Guests_are_on_the_LAN_and_the_host_is_as_it_was(string driver)
    {
        Require.Programs("tc", "iperf3", "dnsmasq");
        await using Lan lan = await Lan.CreateAsync(Instance);
        using LanSession session = lan.OpenSession();
        string before = await lan.DescribeHostAsync();
        (await Instance.VnetAsync("up")).EnsureSuccess();
        CommandResult update = (await Instance.VnetAsync("network", "update", "vmnet0", "--uplink", "auto", "--uplink-driver", driver)).EnsureSuccess();
        Assert.Contains($"auto (eth0) by {driver}", update.Output, StringComparison.Ordinal);
        await session.AssertAliveAsync();

        await using (TestGuest guest = await Instance.AddGuestAsync("one", "vmnet0"))
        await using (TestGuest other = await Instance.AddGuestAsync("two", "vmnet0"))
        {
            string address = (await guest.AddressAsync()).ToString();
            Assert.StartsWith("192.0.2.1", address, StringComparison.Ordinal);
            await AssertReachAsync(lan, guest, other, address, await Ipv6Async(guest));
            await AssertDataFlowsAsync(guest, lan.Namespace, Lan.Station);
            await AssertDataFlowsAsync(guest, Instance.Host, Lan.Host);
            await AssertGroupsReachAllOnceAsync(lan, guest, other);
            await AssertTagsPassAsync(lan, guest);
            await session.AssertAliveAsync();

            await Instance.KillAsync("agent");
            await AssertPingsSoonAsync(guest, Lan.Station, Lan.Host);
            await Instance.KillAsync("switch");
            await AssertPingsSoonAsync(guest, Lan.Station, Lan.Host);
            await session.AssertAliveAsync();
            await AssertConflictIsToldAsync(lan, other);
        }
        (await Instance.VnetAsync("down")).EnsureSuccess();
        Assert.Equal(before, await lan.DescribeHostAsync());
        await session.AssertAliveAsync();
    }

    private static async Task<string> Ipv6Async(TestGuest guest)
    {
        string address = "";
        await Wait.UntilAsync(TimeSpan.FromSeconds(15), "an IPv6 address by router advertisement", async () =>
        {
            string[] found = [.. (await guest.RunAsync("ip", "-6", "-o", "addr", "show", "dev", "eth0", "scope", "global", "-tentative")).Output.Split(' ').Where(part => part.StartsWith("2001:db8:1:", StringComparison.Ordinal))];
            address = found.Length > 0 ? found[0].Split('/')[0] : "";
            return address.Length > 0;
        });
        return address;
    }

    private async Task AssertReachAsync(Lan lan, TestGuest guest, TestGuest other, string address, string ipv6)
    {
        foreach (string target in new[] { Lan.Station, Lan.Host, Lan.StationIpv6, Lan.HostIpv6, (await other.AddressAsync()).ToString() })
            Assert.True(await PingsAsync(guest.Namespace, target), $"the guest does not reach {target}");
        foreach (NetworkNamespace from in new[] { lan.Namespace, Instance.Host })
        {
            Assert.True(await PingsAsync(from, address), $"{from.Name} does not reach {address}");
            Assert.True(await PingsAsync(from, ipv6), $"{from.Name} does not reach {ipv6}");
        }
    }

    /// <summary>Sanity, not speed: ten megabytes each way, over IPv4.</summary>
    private static async Task AssertDataFlowsAsync(TestGuest guest, NetworkNamespace to, string address)
    {
        await using BackgroundCommand server = to.Start("iperf3", "-s", "-B", address);
        await Wait.UntilAsync(TimeSpan.FromSeconds(5), "iperf3 listens", async () => (await to.RunAsync("sh", "-c", "ss -ltn | grep -q ':5201 '")).ExitCode == 0);
        foreach (string direction in new[] { "--no-delay", "-R" })
            (await guest.RunAsync(TimeSpan.FromSeconds(20), "iperf3", "-c", address, "-n", "10M", direction)).EnsureSuccess();
    }

    /// <summary>As mDNS: who sends to the group is heard by all others, and by each once.</summary>
    private async Task AssertGroupsReachAllOnceAsync(Lan lan, TestGuest guest, TestGuest other)
    {
        (NetworkNamespace Space, string Device)[] members = [(lan.Namespace, "lan0"), (Instance.Host, "eth0"), (guest.Namespace, "eth0"), (other.Namespace, "eth0")];
        var sockets = new List<UdpClient>();
        try
        {
            foreach ((NetworkNamespace space, string device) in members)
            {
                int index = await space.InterfaceIndexAsync(device);
                sockets.Add(space.Enter(() => Join(index)));
            }
            foreach (UdpClient sender in sockets)
                await sender.SendAsync(Encoding.ASCII.GetBytes(sockets.IndexOf(sender).ToString()), new IPEndPoint(IPAddress.Parse(Group), 5353));
            await Task.Delay(500, Cancellation);
            for (int member = 0; member < sockets.Count; member++)
            {
                var heard = new List<string>();
                while (sockets[member].Available > 0)
                    heard.Add(Encoding.ASCII.GetString((await sockets[member].ReceiveAsync(Cancellation)).Buffer));
                Assert.Equal(Enumerable.Range(0, sockets.Count).Where(sender => sender != member).Select(sender => sender.ToString()), heard.Order());
            }
        }
        finally
        {
            sockets.ForEach(socket => socket.Dispose());
        }
    }

    private static UdpClient Join(int index)
    {
        var socket = new UdpClient(new IPEndPoint(IPAddress.Any, 5353)) { MulticastLoopback = false };
        socket.Client.SetSocketOption(SocketOptionLevel.IP, SocketOptionName.MulticastInterface, IPAddress.HostToNetworkOrder(index));
        socket.Client.SetSocketOption(SocketOptionLevel.IP, SocketOptionName.AddMembership, new MulticastOption(IPAddress.Parse(Group), index));
        return socket;
    }

    /// <summary>Frames with a VLAN tag, to a station and to a group, both ways.</summary>
    private async Task AssertTagsPassAsync(Lan lan, TestGuest guest)
    {
        using PacketCapture atLan = PacketCapture.Start(lan.Namespace, "lan0", "vlan 77"), atHost = PacketCapture.Start(Instance.Host, "eth0", "vlan 77"), atGuest = PacketCapture.Start(guest.Namespace, "eth0", "vlan 77");
        byte[] stationMac = await MacAsync(lan.Namespace, "lan0"), hostMac = await MacAsync(Instance.Host, "eth0"), guestMac = await MacAsync(guest.Namespace, "eth0");
        byte[] everybody = [255, 255, 255, 255, 255, 255];
        atGuest.Send(Tagged(stationMac, guestMac, 1));
        atGuest.Send(Tagged(hostMac, guestMac, 2));
        atGuest.Send(Tagged(everybody, guestMac, 3));
        atLan.Send(Tagged(guestMac, stationMac, 4));
        atHost.Send(Tagged(guestMac, hostMac, 5));
        await Wait.UntilAsync(TimeSpan.FromSeconds(5), "tagged frames have passed", () =>
            Has(atLan, 1) && Has(atLan, 3) && Has(atHost, 2) && Has(atHost, 3) && Has(atGuest, 4) && Has(atGuest, 5));
    }

    private static bool Has(PacketCapture capture, byte number) => capture.Frames.Any(frame => frame.Packet.Bytes is { Length: > 18 } bytes && bytes[18] == number);

    private static byte[] Tagged(byte[] to, byte[] from, byte number) => [.. to, .. from, 0x81, 0x00, 0x00, 77, 0x88, 0xB5, number, .. new byte[45]];

    private static async Task<byte[]> MacAsync(NetworkNamespace space, string device) =>
        Convert.FromHexString((await space.RunAsync("sh", "-c", $"ip -o link show dev {device} | sed 's/.*ether //; s/ .*//; s/://g'")).EnsureSuccess().Output.Trim());

    private static async Task AssertPingsSoonAsync(TestGuest guest, params string[] targets)
    {
        foreach (string target in targets)
            await Wait.UntilAsync(TimeSpan.FromSeconds(15), $"the guest reaches {target} again", () => PingsAsync(guest.Namespace, target));
    }

    private async Task AssertConflictIsToldAsync(Lan lan, TestGuest guest)
    {
        (await guest.RunAsync("ip", "addr", "add", "192.0.2.50/24", "dev", "eth0")).EnsureSuccess();
        (await lan.Namespace.RunAsync("ip", "addr", "add", "192.0.2.50/24", "dev", "lan0")).EnsureSuccess();
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "the conflict is told", async () =>
        {
            foreach (NetworkNamespace space in new[] { guest.Namespace, lan.Namespace })
            {
                await space.RunAsync("ip", "neigh", "flush", "all");
                await space.RunAsync("ping", "-c", "1", "-W", "1", "-I", "192.0.2.50", Lan.Host);
            }
            return (await Instance.VnetAsync("network", "show", "vmnet0")).Output.Contains("192.0.2.50 is the address of two stations", StringComparison.Ordinal);
        });
        Assert.Contains("two stations have the address 192.0.2.50", Instance.Logs(400), StringComparison.Ordinal);
    }

    private static async Task<bool> PingsAsync(NetworkNamespace from, string target) => (await from.RunAsync("ping", "-c", "1", "-W", "1", target)).ExitCode == 0;
}

/// <summary>Which NIC, and what becomes of it.</summary>
public sealed class UplinkChoiceTests : OwnInstanceTest
{
    protected override InstanceOptions Options => new() { WithWan = false, Up = false };

    [Fact]
    public async Task The_uplink_follows_the_default_route_and_refuses_what_it_cannot_use()
    {
        Require.Programs("tc", "dnsmasq");
        await using Lan lan = await Lan.CreateAsync(Instance);
        (await Instance.Host.RunAsync("sh", "-c", """
            set -e
            # Link-local addresses would come seconds later, and look like a change that VNetMesh made.
            sysctl -qw net.ipv6.conf.default.disable_ipv6=1
            ip link add mv0 link eth0 type macvlan mode bridge
            ip tuntap add tun9 mode tun
            ip link add eth1 type veth peer name peer1
            ip link set eth1 up; ip link set peer1 up; ip addr add 198.51.100.2/24 dev eth1
            tc qdisc add dev eth1 clsact
            tc filter add dev eth1 ingress protocol ip pref 7 u32 match u32 0 0 flowid 1:1
            """)).EnsureSuccess();
        string before = await lan.DescribeHostAsync() + await FiltersAsync("eth1");
        (await Instance.VnetAsync("up")).EnsureSuccess();
        foreach ((string nic, string reason) in new[] { ("mv0", "macvlan"), ("tun9", "no Ethernet frames"), ("eth9", "no interface eth9"), ("vmnet8", "VNetMesh made") })
        {
            CommandResult refused = await Instance.VnetAsync("network", "update", "vmnet0", "--uplink", nic);
            Assert.NotEqual(0, refused.ExitCode);
            Assert.Contains(reason, refused.Error, StringComparison.Ordinal);
        }
        (await Instance.VnetAsync("network", "update", "vmnet0", "--uplink", "auto")).EnsureSuccess();
        await UntilShownAsync("auto (eth0) by tc");

        (await Instance.Host.RunAsync("sh", "-c", "ip route del default && ip route add default via 198.51.100.1 dev eth1 metric 5 && ip route add default via 192.0.2.1 dev eth0 metric 50")).EnsureSuccess();
        await UntilShownAsync("auto (eth1) by tc");
        Assert.Contains("vnetmesh", await FiltersAsync("eth1"), StringComparison.Ordinal);
        Assert.DoesNotContain("vnetmesh", await FiltersAsync("eth0"), StringComparison.Ordinal);
        Assert.DoesNotContain("PROMISC", (await Instance.Host.RunAsync("ip", "link", "show", "dev", "eth0")).Output, StringComparison.Ordinal);

        (await Instance.Host.RunAsync("sh", "-c", "ip route flush default && ip route add default via 192.0.2.1 dev eth0")).EnsureSuccess();
        await UntilShownAsync("auto (eth0) by tc");
        // A NIC that goes takes its hooks with it; one that comes is joined again.
        (await Instance.Host.RunAsync("sh", "-c", "ip link add nic2 type veth peer name peer2 && ip link set nic2 up && ip link set peer2 up")).EnsureSuccess();
        (await Instance.VnetAsync("network", "update", "vmnet0", "--uplink", "nic2")).EnsureSuccess();
        await UntilShownAsync("nic2 by tc");
        (await Instance.Host.RunAsync("ip", "link", "del", "nic2")).EnsureSuccess();
        await UntilShownAsync("this host has no interface nic2");
        (await Instance.Host.RunAsync("sh", "-c", "ip link add nic2 type veth peer name peer2 && ip link set nic2 up && ip link set peer2 up")).EnsureSuccess();
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "nic2 is joined again", async () => (await FiltersAsync("nic2")).Contains("vnetmesh", StringComparison.Ordinal));
        (await Instance.VnetAsync("network", "update", "vmnet0", "--uplink", "none")).EnsureSuccess();
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "nothing of it is left", async () => !(await FiltersAsync("nic2")).Contains("vnetmesh", StringComparison.Ordinal) && !(await Instance.VnetAsync("host", "changes")).Output.Contains("uplinks/", StringComparison.Ordinal));
        (await Instance.Host.RunAsync("ip", "link", "del", "nic2")).EnsureSuccess();
        (await Instance.VnetAsync("down")).EnsureSuccess();
        Assert.Equal(before, await lan.DescribeHostAsync() + await FiltersAsync("eth1"));
    }

    private async Task<string> FiltersAsync(string nic) => (await Instance.Host.RunAsync("sh", "-c", $"tc filter show dev {nic} ingress; tc filter show dev {nic} egress")).Output;

    private Task<TimeSpan> UntilShownAsync(string text) => Wait.UntilAsync(TimeSpan.FromSeconds(10), text, async () =>
        (await Instance.VnetAsync("network", "show", "vmnet0")).Output is var shown && shown.Contains(text, StringComparison.Ordinal) ? true : throw new InvalidOperationException(shown));
}
