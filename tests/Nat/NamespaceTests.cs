using System.Diagnostics;
using System.Security.Cryptography;
using VNetMesh.Links;
using VNetMesh.Nat.Flows;
using VNetMesh.Nat.Forwards;
using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Tests.Support;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tests;

/// <summary>The gateway against real kernels: a guest's, the host's and a remote's, each in a namespace.</summary>
public sealed class NamespaceTests : IDisposable
{
    private const string Gateway = "192.168.108.2";
    private const string Wan = NamespaceLab.WanAddress;
    private readonly NamespaceLab _lab = new();
    private readonly string _resolvConf = Path.GetTempFileName();
    private readonly TestNat _nat;
    private readonly TapLink _link;

    public NamespaceTests()
    {
        File.WriteAllText(_resolvConf, $"nameserver {Wan}:5300\n");
        _nat = new TestNat(_lab.Host, resolvConf: _resolvConf);
        _link = _lab.AddGuest(1, "192.168.108.10/24", Gateway);
        _nat.Ask(() => _nat.Gateway.OnLinkUp(_link));
    }

    public void Dispose()
    {
        _nat.Dispose();
        _link.Dispose();
        _lab.Dispose();
        File.Delete(_resolvConf);
    }

    private (int Code, string Output) Guest(string command, int seconds = 20) => NamespaceLab.In(_lab.Guest(), command, seconds);

    private void Serve(string script)
    {
        _lab.Start(_lab.Wan, $"python3 -c '{script}'");
        NamespaceLab.WaitForListener(_lab.Wan, int.Parse(script.Split("\"0.0.0.0\",")[1].Split(')', ',')[0], System.Globalization.CultureInfo.InvariantCulture));
    }

    private static string Python(string script) => $"python3 -c '{script}'";

    [Fact]
    public void A_guest_pings_the_gateway_with_small_and_large_packets()
    {
        (int code, string output) = Guest($"ping -c 2 -i 0.2 -W 2 {Gateway}");
        Assert.True(code == 0, output);
        (code, output) = Guest($"ping -c 2 -i 0.2 -W 2 -s 9000 {Gateway}");
        Assert.True(code == 0, output);
    }

    [Fact]
    public void Files_cross_whole_in_both_directions()
    {
        string file = Path.GetTempFileName();
        byte[] data = RandomNumberGenerator.GetBytes(30_000_000);
        File.WriteAllBytes(file, data);
        string hash = Convert.ToHexStringLower(SHA256.HashData(data));
        try
        {
            _lab.Start(_lab.Wan, $"python3 -m http.server 8080 --bind {Wan} --directory {Path.GetDirectoryName(file)}");
            NamespaceLab.WaitForListener(_lab.Wan, 8080);
            Serve("import socket,hashlib\nl=socket.create_server((\"0.0.0.0\",9000))\nwhile 1:\n c=l.accept()[0];h=hashlib.sha256()\n while 1:\n  d=c.recv(65536)\n  if not d: break\n  h.update(d)\n c.sendall(h.hexdigest().encode());c.close()");
            (int code, string output) = Guest($"curl -sS -m 20 http://{Wan}:8080/{Path.GetFileName(file)} | sha256sum");
            Assert.True(code == 0 && output.StartsWith(hash, StringComparison.Ordinal), output);
            // Up, and the half-closed connection's late answer.
            (code, output) = Guest(Python($"import socket\ns=socket.create_connection((\"{Wan}\",9000));s.sendall(open(\"{file}\",\"rb\").read());s.shutdown(1)\nprint(s.recv(100).decode())"));
            Assert.True(code == 0 && output.Trim() == hash, output);
            Assert.True(TestNat.Within(3, () => _nat.Flows().All(flow => flow.State == FlowState.Closing)), string.Join("; ", _nat.Flows()));
        }
        finally
        {
            File.Delete(file);
        }
    }

    [Fact]
    public void Refusals_and_unreachables_are_told_at_once()
    {
        var watch = Stopwatch.StartNew();
        (int code, string output) = Guest($"curl -sS -m 5 http://{Wan}:81/");
        Assert.True(code == 7, output); // curl's CURLE_COULDNT_CONNECT
        Assert.True(watch.ElapsedMilliseconds < 2000);
        NamespaceLab.In(_lab.Host, "ip route add unreachable 203.0.113.0/25");
        NamespaceLab.In(_lab.Host, "ip route add prohibit 203.0.113.128/25");
        (_, output) = Guest(Python("import socket\ntry: socket.create_connection((\"203.0.113.1\",80),5)\nexcept OSError as e: print(e.errno)"));
        Assert.Equal("113", output.Trim()); // EHOSTUNREACH
        (_, output) = Guest(Python("import socket\ntry: socket.create_connection((\"203.0.113.200\",80),5)\nexcept OSError as e: print(e.errno)"));
        Assert.Equal("113", output.Trim()); // administratively prohibited: EHOSTUNREACH for the guest's kernel
        Assert.True(watch.ElapsedMilliseconds < 6000);
    }

    [Fact]
    public void Silence_stays_silence()
    {
        Assert.Equal(0, NamespaceLab.In(_lab.Wan, "nft add table ip t").Code);
        NamespaceLab.In(_lab.Wan, "nft \"add chain ip t i { type filter hook input priority 0; }\"");
        NamespaceLab.In(_lab.Wan, "nft add rule ip t i tcp dport 90 drop");
        (_, string output) = Guest(Python($"import socket\ntry: socket.create_connection((\"{Wan}\",90),2); print(\"connected\")\nexcept TimeoutError: print(\"timeout\")"));
        Assert.Equal("timeout", output.Trim());
        Assert.Equal(FlowState.Dialing, Assert.Single(_nat.Flows()).State);
    }

    [Fact]
    public void Two_hundred_connections_at_once()
    {
        Serve("import socket,threading\nl=socket.create_server((\"0.0.0.0\",9001),backlog=300)\nwhile 1:\n c=l.accept()[0];threading.Thread(target=lambda c=c:(c.sendall(c.recv(1000)*100),c.close())).start()");
        (int code, string output) = Guest(Python($"import socket\ns=[socket.create_connection((\"{Wan}\",9001)) for i in range(200)]\nfor i,c in enumerate(s): c.sendall(b\"%04d\"%i)\nok=0\nfor i,c in enumerate(s):\n d=b\"\"\n while 1:\n  x=c.recv(4096)\n  if not x: break\n  d+=x\n ok+=d==(b\"%04d\"%i)*100\nprint(ok)"));
        Assert.True(code == 0 && output.Trim() == "200", output);
    }

    [Fact]
    public void Pings_go_by_ping_sockets_when_the_host_lets_them()
    {
        NamespaceLab.In(_lab.Host, "echo 1 0 > /proc/sys/net/ipv4/ping_group_range");
        (int code, string output) = Guest($"ping -c 1 -W 1 {Wan}");
        Assert.True(code == 1, output);
        Assert.True(_nat.Gateway.Drops[DropCause.PingNotPermitted] > 0);
        Assert.Equal(0, NamespaceLab.In(_lab.Host, "echo 0 2147483647 > /proc/sys/net/ipv4/ping_group_range").Code);
        Thread.Sleep(1100);
        (code, output) = Guest($"ping -c 3 -i 0.2 -W 2 -s 2000 {Wan}");
        Assert.True(code == 0 && output.Contains(" 0% packet loss", StringComparison.Ordinal), output);
        // A dead address in the wan: the host's own kernel reports it, nobody forges a reply.
        (code, output) = Guest("ping -c 1 -W 4 192.0.2.77");
        Assert.True(code == 1 && output.Contains("Destination Host Unreachable", StringComparison.Ordinal), output);
        // The first hop is the gateway, the second the wan's router.
        (code, output) = Guest("ping -c 1 -W 1 -t 1 192.0.2.2");
        Assert.True(output.Contains($"From {Gateway}", StringComparison.Ordinal) && output.Contains("Time to live exceeded", StringComparison.Ordinal), output);
    }

    [Fact]
    public void Queries_by_tcp_are_flows_to_the_resolver()
    {
        Serve("import socket\nl=socket.create_server((\"0.0.0.0\",5300))\nwhile 1:\n c=l.accept()[0];c.sendall(c.recv(100).upper());c.close()");
        (int code, string output) = Guest(Python($"import socket\ns=socket.create_connection((\"{Gateway}\",53),5);s.sendall(b\"query\");print(s.recv(100).decode())"));
        Assert.True(code == 0 && output.Trim() == "QUERY", output);
    }

    [Fact]
    public void Traceroute_by_udp_shows_the_hops()
    {
        NamespaceLab.In(_lab.Wan, "ip addr add 198.51.100.1/32 dev lo");
        string script = "import socket,struct\ndef hop(t):\n s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM);s.setsockopt(0,11,1);s.setsockopt(0,2,t);s.settimeout(3)\n s.sendto(b\"x\",(\"198.51.100.1\",33434))\n import select;p=select.poll();p.register(s,0);p.poll(3000)\n d,a,f,n=s.recvmsg(100,500,0x2000)\n for l,y,c in a:\n  if y==11: print(c[5],c[6],socket.inet_ntoa(c[20:24]))\nhop(1);hop(2)";
        (int code, string output) = Guest(Python(script));
        Assert.True(code == 0, output);
        // Time exceeded by the gateway; port unreachable by the end, under its own address.
        Assert.Equal([$"11 0 {Gateway}", "3 3 198.51.100.1"], output.Trim().Split('\n'));
    }

    [Fact]
    public void A_link_that_comes_back_finds_its_flows()
    {
        Serve("import socket,time\nc=socket.create_server((\"0.0.0.0\",9002)).accept()[0]\nfor i in range(40):\n c.sendall(b\"x\"*10000);time.sleep(0.05)\nc.close()");
        Task<(int Code, string Output)> reader = Task.Run(() => Guest(Python($"import socket\ns=socket.create_connection((\"{Wan}\",9002));n=0\nwhile 1:\n d=s.recv(65536)\n if not d: break\n n+=len(d)\nprint(n)")), TestContext.Current.CancellationToken);
        Assert.True(TestNat.Within(10, () => _nat.Flows() is [{ BytesToGuest: > 0 }]));
        _nat.Ask(() => _nat.Gateway.OnLinkDown("the switch died"));
        Thread.Sleep(700);
        Assert.Single(_nat.Flows());
        _nat.Ask(() => _nat.Gateway.OnLinkUp(_link));
#pragma warning disable xUnit1031 // the guest runs on a thread of its own
        Assert.Equal("400000", reader.Result.Output.Trim());
#pragma warning restore xUnit1031
    }

    [Fact]
    public void A_client_of_a_forward_keeps_its_own_address()
    {
        _nat.Ask(() => _nat.Gateway.Forwards.Add(new ForwardRule("networks/vmnet8", "f", FlowProtocol.Tcp, Ipv4Address.Parse(NamespaceLab.HostAddress), 8000, Ipv4Address.Parse("192.168.108.10"), 80), mustListen: true));
        _lab.Start(_lab.Guest(), Python("import socket\nl=socket.create_server((\"0.0.0.0\",80))\nwhile 1:\n c,a=l.accept();c.sendall(a[0].encode());c.close()"));
        NamespaceLab.WaitForListener(_lab.Guest(), 80);
        (int code, string output) = NamespaceLab.In(_lab.Wan, Python($"import socket\nprint(socket.create_connection((\"{NamespaceLab.HostAddress}\",8000),5).recv(100).decode())"));
        Assert.True(code == 0 && output.Trim() == Wan, output);
    }

    [Fact]
    public void A_guest_that_only_sends_syns_never_completes_and_costs_the_host_fifteen_seconds()
    {
        Serve("import socket,time\nl=socket.create_server((\"0.0.0.0\",9003));c=l.accept()[0]\ntime.sleep(60)");
        NamespaceLab.In(_lab.Guest(), "nft add table ip t");
        NamespaceLab.In(_lab.Guest(), "nft \"add chain ip t o { type filter hook output priority 0; }\"");
        NamespaceLab.In(_lab.Guest(), "nft \"add rule ip t o tcp flags & (syn|ack) != syn drop\"");
        _lab.Start(_lab.Guest(), Python($"import socket\nsocket.create_connection((\"{Wan}\",9003),30)"));
        Assert.True(TestNat.Within(3, () => _nat.Flows() is [{ State: FlowState.Handshake }]));
        var watch = Stopwatch.StartNew();
        Assert.True(TestNat.Within(20, () => !_nat.Flows().Any(flow => flow.State == FlowState.Handshake)), string.Join("; ", _nat.Flows()));
        Assert.InRange(watch.Elapsed.TotalSeconds, 10, 17);
    }
}
