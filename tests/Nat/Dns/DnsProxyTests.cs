using System.Buffers.Binary;
using CsCheck;
using VNetMesh.Nat.Dns;
using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Sockets;
using VNetMesh.Nat.Tests.Support;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tests.Dns;

public sealed class DnsProxyTests : IDisposable
{
    private readonly string _file = Path.GetTempFileName();

    public void Dispose() => File.Delete(_file);

    private static byte[] Query(ushort id, string name, byte opcode = 0)
    {
        var message = new List<byte> { (byte)(id >> 8), (byte)id, (byte)(0x01 | (opcode << 3)), 0, 0, 1, 0, 0, 0, 0, 0, 0 };
        foreach (string label in name.Split('.'))
        {
            message.Add((byte)label.Length);
            message.AddRange(System.Text.Encoding.ASCII.GetBytes(label));
        }
        message.AddRange([0, 0, 1, 0, 1]);
        return [.. message];
    }

    private static byte[] Answer(byte[] query, byte code = 0)
    {
        byte[] answer = [.. query, 0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 9];
        answer[2] |= 0x80;
        answer[3] = (byte)(0x80 | code);
        answer[7] = 1;
        return answer;
    }

    private Bench Start(params UdpPeer[] servers)
    {
        File.WriteAllLines(_file, servers.Select(server => $"nameserver 127.0.0.1:{server.Port}"));
        return new Bench(policy: new DestinationPolicy(), resolvConf: _file);
    }

    private static void Ask(Bench bench, byte[] query, ushort port = 5353) => bench.Give(Frames.Udp(TestNat.GatewayAddress, port, 53, query));

    [Fact]
    public void A_query_goes_to_the_resolver_under_another_id_and_its_answer_comes_back_under_the_guests()
    {
        using var server = new UdpPeer();
        using Bench bench = Start(server);
        byte[] query = Query(0xBEEF, "example.org");
        Ask(bench, query);
        (byte[] asked, int port) = server.Receive();
        Assert.Equal(query[2..], asked[2..]);
        Ask(bench, query); // the guest asks again: nothing more goes out
        Assert.True(server.HasNothing());
        server.Send(Answer(asked), port);
        byte[] record = bench.Next();
        UdpView answer = Frames.UdpOf(record);
        Assert.Equal((53, 5353), (answer.SourcePort, answer.DestinationPort));
        Assert.Equal(TestNat.GatewayAddress, Frames.IpOf(record).Source);
        Assert.Equal(Answer(query), answer.Payload.ToArray());
        Assert.Equal(0, bench.Nat.Ask(() => bench.Nat.Gateway.Context.Neighbours.Find(Frames.GuestAddress)!.DnsQueries));
    }

    [Fact]
    public void The_addresses_of_an_answer_are_known_by_the_name_that_was_asked()
    {
        using var server = new UdpPeer();
        using Bench bench = Start(server);
        Ask(bench, Query(3, "Www.Example.org"));
        (byte[] asked, int port) = server.Receive();
        server.Send(Answer(asked), port);
        bench.Next();
        Assert.Equal("www.example.org", bench.Nat.Ask(() => bench.Nat.Gateway.Context.Names.Find(Ipv4Address.Parse("192.0.2.9"))?.Name));
        Assert.Null(bench.Nat.Ask(() => bench.Nat.Gateway.Context.Names.Find(Ipv4Address.Parse("192.0.2.10"))));
    }

    [Fact]
    public void Any_octets_may_come_as_an_answer()
    {
        byte[] answer = Answer(Query(3, "www.example.org"));
        for (int length = 0; length <= answer.Length; length++)
            Assert.True(DnsMessage.Addresses(answer.AsSpan(0, length)).Count == (length == answer.Length ? 1 : 0));
        Gen.Byte.Array[12, 200].Sample(octets =>
        {
            octets[4] = 0;
            octets[5] = 1;
            _ = DnsMessage.Addresses(octets);
            _ = DnsMessage.QuestionName(octets);
        });
        // What a guest asks for must not reach a terminal as it is.
        Assert.Equal("a??31mb", DnsMessage.QuestionName(Query(1, "a\u001b[31mb")));
    }

    [Fact]
    public void Names_are_remembered_within_a_bound()
    {
        var names = new DnsNames();
        byte[] answer = Answer(Query(3, "www.example.org"));
        for (int i = 0; i <= DnsNames.Capacity; i++)
        {
            BinaryPrimitives.WriteInt32BigEndian(answer.AsSpan(answer.Length - 4), 0x0A000000 + i);
            names.Learn(answer, i);
        }
        Assert.Null(names.Find(new Ipv4Address(0x0A000000)));
        Assert.Equal(("www.example.org", 1L), names.Find(new Ipv4Address(0x0A000001)));
        Assert.Equal(("www.example.org", (long)DnsNames.Capacity), names.Find(new Ipv4Address(0x0A000000 + DnsNames.Capacity)));
    }

    [Fact]
    public void Ids_and_ports_differ_from_query_to_query()
    {
        using var server = new UdpPeer();
        using Bench bench = Start(server);
        var ids = new HashSet<ushort>();
        var ports = new HashSet<int>();
        for (ushort i = 0; i < 20; i++)
        {
            Ask(bench, Query(1, "a.example"), (ushort)(6000 + i));
            (byte[] asked, int port) = server.Receive();
            ids.Add(BinaryPrimitives.ReadUInt16BigEndian(asked));
            ports.Add(port);
        }
        Assert.True(ids.Count > 15, $"{ids.Count} ids of 20");
        Assert.True(ports.Count > 15, $"{ports.Count} ports of 20");
    }

    [Fact]
    public void Answers_with_another_id_or_question_are_not_passed_on()
    {
        using var server = new UdpPeer();
        using Bench bench = Start(server);
        Ask(bench, Query(7, "example.org"));
        (byte[] asked, int port) = server.Receive();
        byte[] wrongId = Answer(asked);
        wrongId[0] ^= 0x55;
        server.Send(wrongId, port);
        byte[] wrongName = Answer(asked);
        wrongName[14] ^= 1;
        server.Send(wrongName, port);
        server.Send([1, 2, 3], port);
        Assert.True(TestNat.Within(2, () => bench.Drops[DropCause.DnsAnswerMismatch] == 3));
        bench.ExpectSilence(50);
        byte[] right = Answer(asked);
        right[13] ^= 0x20; // a letter in the other case is the same name
        server.Send(right, port);
        bench.Next();
    }

    [Fact]
    public void A_resolver_that_is_not_there_or_fails_is_passed_over()
    {
        var gone = new UdpPeer();
        using var failing = new UdpPeer();
        using var good = new UdpPeer();
        using Bench bench = Start(gone, failing, good);
        gone.Dispose();
        Ask(bench, Query(7, "example.org"));
        (byte[] asked, int port) = failing.Receive();
        failing.Send(Answer(asked, code: 2), port);
        (asked, port) = good.Receive();
        good.Send(Answer(asked), port);
        Assert.Equal(Answer(Query(7, "example.org")), Frames.UdpOf(bench.Next()).Payload.ToArray());
        // The one that answered is asked first from now on.
        Ask(bench, Query(8, "example.org"));
        Assert.NotEmpty(good.Receive().Data);
        Assert.True(failing.HasNothing(50));
    }

    [Fact]
    public void A_silent_resolver_is_left_after_a_while()
    {
        using var silent = new UdpPeer();
        using var good = new UdpPeer();
        using Bench bench = Start(silent, good);
        Ask(bench, Query(7, "example.org"));
        silent.Receive();
        (byte[] asked, int port) = good.Receive();
        good.Send(Answer(asked), port);
        bench.Next();
    }

    [Fact]
    public void Without_a_resolver_the_server_has_failed()
    {
        using Bench bench = Start();
        byte[] query = Query(7, "example.org");
        Ask(bench, query);
        byte[] answer = Frames.UdpOf(bench.Next()).Payload.ToArray();
        Assert.Equal([0, 7, 0x81, 0x82, 0, 1, 0, 0, 0, 0, 0, 0, .. query[12..]], answer);
        Ask(bench, Query(8, "example.org", opcode: 5));
        Assert.Equal(4, Frames.UdpOf(bench.Next()).Payload[3] & 15); // NOTIMP: updates are not for proxies
    }

    [Fact]
    public void Changes_of_the_file_are_followed()
    {
        using var first = new UdpPeer();
        using var second = new UdpPeer();
        using Bench bench = Start(first);
        Ask(bench, Query(1, "example.org"));
        first.Receive();
        File.WriteAllText(_file + ".new", $"# changed\nsearch example.org\nnameserver 127.0.0.1:{second.Port}\n");
        File.Move(_file + ".new", _file, overwrite: true);
        Thread.Sleep(1100);
        Ask(bench, Query(2, "example.org"));
        second.Receive();
        Assert.True(first.HasNothing(50));
    }

    [Fact]
    public void Queries_under_way_are_bounded_per_guest()
    {
        using var server = new UdpPeer();
        using Bench bench = Start(server);
        for (int i = 0; i < 300; i++)
            Ask(bench, Query((ushort)i, "example.org"));
        Assert.Equal(300UL - 256, bench.Drops[DropCause.DnsQueryLimit]);
    }

    [Theory]
    [InlineData(new byte[0])]
    [InlineData(new byte[] { 0, 1, 1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1 })] // two questions
    [InlineData(new byte[] { 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xC0, 12, 0, 1, 0, 1 })] // a pointer to itself
    [InlineData(new byte[] { 0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 60, 97 })] // a label that is cut
    [InlineData(new byte[] { 0, 1, 0x81, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1 })] // an answer
    public void What_is_no_query_is_dropped(byte[] message)
    {
        using Bench bench = Start();
        Ask(bench, message);
        Assert.Equal(1UL, bench.Drops[DropCause.DnsMalformed]);
        bench.ExpectSilence(30);
    }

    [Fact]
    public void Resolv_conf_is_read_as_libc_reads_it()
    {
        List<HostEndpoint> servers = ResolverList.Parse(["; comment", "nameserver 192.0.2.53", "  nameserver\t2001:db8::53 ", "nameserver 127.0.0.1:5300", "nameserver nonsense", "options timeout:1"]);
        Assert.Equal(["192.0.2.53:53", "2001:db8::53:53", "127.0.0.1:5300"], servers.Select(server => server.ToString()));
    }
}
