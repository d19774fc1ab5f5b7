using System.Diagnostics;
using System.Diagnostics.Metrics;
using CsCheck;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Time.Testing;
using VNetMesh.Dhcp.Leases;
using VNetMesh.Dhcp.Observability;
using VNetMesh.Dhcp.Protocol;
using VNetMesh.Dhcp.Serving;
using VNetMesh.Dhcp.Tests.Support;
using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Tests.Serving;

/// <summary>A server on a loop with a real store, and a link whose far side is the test.</summary>
public sealed class NetworkServerTests : IDisposable
{
    private static readonly MacAddress Client = MacAddress.Parse("02:00:5e:10:00:01");
    private static readonly Ipv4Address ServerAddress = CoreScript.Server;

    private readonly string _directory = Directory.CreateTempSubdirectory("vnmd").FullName;
    private readonly EventLoop _loop = new("dhcp-test", exception => throw new InvalidOperationException("the loop met a fault", exception));
    private readonly ServiceProvider _services = new ServiceCollection().AddMetrics().BuildServiceProvider();
    private readonly FakeTimeProvider _time = new(DateTimeOffset.FromUnixTimeSeconds(1_800_000_000));
    private readonly FakeLink _link = new();
    private readonly LeaseStore _store;
    private readonly StoreWriter _writer;
    private readonly DhcpMetrics _metrics;
    private readonly NetworkServer _server;

    public NetworkServerTests()
    {
        _store = new LeaseStore(Path.Combine(_directory, "leases.db"));
        _writer = new StoreWriter(_store, NullLogger.Instance);
        _metrics = new DhcpMetrics(_services.GetRequiredService<IMeterFactory>());
        _server = new NetworkServer("networks/test", MacAddress.Parse("02:56:4e:00:00:01"), new ServerContext(_loop, _writer, new DhcpOptions(), _time, new LeaseFeed(), _metrics, NullLogger.Instance));
        _server.Open();
        _server.Configure(CoreScript.Settings);
        _server.OnLinkUp(_link);
        _loop.Start();
    }

    public void Dispose()
    {
        _writer.Dispose();
        _loop.Dispose();
        _store.Dispose();
        _metrics.Dispose();
        _services.Dispose();
        _link.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    [Fact]
    public async Task A_client_is_probed_for_offered_bound_on_disk_and_acknowledged_as_one_trace()
    {
        var spans = new List<Activity>();
        using var listener = new ActivityListener
        {
            ShouldListenTo = source => source.Name == DhcpTelemetry.Name,
            Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllDataAndRecorded,
            ActivityStopped = spans.Add,
        };
        ActivitySource.AddActivityListener(listener);

        await GiveAsync(Dhcp(Dhcpv4MessageType.Discover));
        byte[] probe = await TakeAsync();
        Assert.True(ArpPacket.TryParse(probe.AsSpan(26), out ArpPacket arp));
        Assert.Equal((ArpPacket.Request, default(Ipv4Address)), (arp.Operation, arp.SenderIp));
        _time.Advance(TimeSpan.FromMilliseconds(300));
        await GiveAsync([]);
        (Dhcpv4MessageType type, Ipv4Address offered) = ReadReply(await TakeAsync());
        Assert.Equal((Dhcpv4MessageType.Offer, arp.TargetIp), (type, offered));
        await GiveAsync(Dhcp(Dhcpv4MessageType.Request, offered));
        Assert.Equal((Dhcpv4MessageType.Ack, offered), ReadReply(await TakeAsync()));
        Assert.Equal(LeaseState.Bound, Assert.Single(await _writer.RunAsync(store => store.ReadLeases(null))).State);

        await _loop.InvokeAsync(() => 0);
        Activity root = Assert.Single(spans, span => span.OperationName == "dhcp exchange");
        Activity[] children = [.. spans.Where(span => span != root)];
        Assert.Equal(["discover", "offer", "request", "ack"], children.Select(span => span.DisplayName));
        Assert.All(children, span => Assert.Equal((root.TraceId, root.SpanId), (span.TraceId, span.ParentSpanId)));
        Assert.All(children, span => Assert.NotEmpty((string)span.GetTagItem("dhcp.reason")!));
        Assert.Equal((1, 1, 1, 1), (_server.Counters[Dhcpv4MessageType.Discover], _server.Counters[Dhcpv4MessageType.Offer], _server.Counters[Dhcpv4MessageType.Request], _server.Counters[Dhcpv4MessageType.Ack]));
    }

    [Fact]
    public async Task No_ACK_comes_from_a_full_disk_and_the_cause_is_counted()
    {
        await _writer.RunAsync(store => ((LeaseStore)store).LimitPages(6));
        // Rows of the smallest size go in until none does: then there is no room for a lease either.
        for (int i = 0; ; i++)
        {
            try
            {
                await _writer.RunAsync(store => store.Write([new LeaseWrite([Filler(i)], [])]));
            }
            catch (IOException)
            {
                break;
            }
        }
        await GiveAsync(Dhcp(Dhcpv4MessageType.Request, CoreScript.Address(140)));
        for (int i = 0; i < 500 && _server.Counters[DropCause.StoreFailed] == 0; i++)
            await Task.Delay(10, TestContext.Current.CancellationToken);
        Assert.Equal((1, 0, 0), (_server.Counters[DropCause.StoreFailed], _server.Counters[Dhcpv4MessageType.Ack], _server.Table.Bound));
        Assert.Empty(_link.Sent);
    }

    [Fact]
    public async Task ARP_and_echo_are_answered_for_the_servers_address_alone()
    {
        await GiveAsync(Arp(ServerAddress), Arp(CoreScript.Address(2)));
        byte[] answer = await TakeAsync();
        Assert.True(ArpPacket.TryParse(answer.AsSpan(26), out ArpPacket arp));
        Assert.Equal(new ArpPacket(ArpPacket.Reply, _server.Mac, ServerAddress, Client, CoreScript.Address(9)), arp);
        await GiveAsync(Echo(CoreScript.Address(9), ServerAddress), Echo(CoreScript.Address(9), CoreScript.Address(2)), Echo(Ipv4Address.Parse("198.51.100.1"), ServerAddress));
        answer = await TakeAsync();
        Assert.True(Ipv4View.TryParse(answer.AsSpan(26), out Ipv4View ip));
        Assert.True(Icmpv4View.TryParse(ip.Payload, out Icmpv4View icmp));
        Assert.True(ip.HasValidChecksum && icmp.HasValidChecksum);
        Assert.Equal((Icmpv4Type.EchoReply, 0x1234_0001u, CoreScript.Address(9), ServerAddress), (icmp.Type, icmp.Rest, ip.Destination, ip.Source));
        Assert.Equal("ping", System.Text.Encoding.ASCII.GetString(icmp.Data));
        await GiveAsync([]);
        Assert.Empty(_link.Sent);
    }

    [Fact]
    public async Task Checksums_are_verified_unless_they_are_still_partial()
    {
        byte[] bad = Dhcp(Dhcpv4MessageType.Discover);
        bad[^1] ^= 1;
        byte[] partial = (byte[])bad.Clone();
        new VirtioNetHeader { Flags = VirtioNetHeader.FlagNeedsChecksum, ChecksumStart = 34, ChecksumOffset = 6, BufferCount = 1 }.Write(partial);
        byte[] header = Dhcp(Dhcpv4MessageType.Discover);
        header[12 + 14 + 8]--;
        await GiveAsync(bad, header);
        Assert.Equal((2, 0), (_server.Counters[DropCause.BadChecksum], _server.Counters[Dhcpv4MessageType.Discover]));
        await GiveAsync(partial);
        Assert.Equal(1, _server.Counters[Dhcpv4MessageType.Discover]);
    }

    [Fact]
    public void Any_bytes_are_taken_without_a_throw_and_counted()
    {
        byte[] sound = Dhcp(Dhcpv4MessageType.Discover);
        Gen.Select(Gen.Byte.Array[0, 600], Gen.Select(Gen.Int[0, sound.Length - 1], Gen.Byte).Array[0, 6], Gen.Int[0, sound.Length], Gen.Bool).Sample((random, changes, cut, fix) =>
        {
            byte[] record = (byte[])sound.Clone();
            foreach ((int place, byte value) in changes)
                record[place] = value;
            // Headers are made right again, so that what is inside is looked at.
            if (fix)
                FixChecksums(record);
            record = record[..(changes.Length > 4 ? cut : record.Length)];
            _loop.InvokeAsync(() =>
            {
                _server.Receive(random, default, EventLoop.Now);
                _server.Receive(record, default, EventLoop.Now);
                return 0;
            }).GetAwaiter().GetResult();
        }, iter: 2000, threads: 1);
        Assert.True(_server.Counters[DropCause.Malformed] > 0 && _server.Counters[DropCause.BadChecksum] > 0 && _server.Counters[DropCause.NotForUs] > 0);
    }

    [Fact]
    public async Task A_link_that_is_full_or_gone_is_counted()
    {
        _link.IsFull = true;
        await GiveAsync(Arp(ServerAddress));
        Assert.Equal(1, _server.Counters[DropCause.LinkFull]);
        await _loop.InvokeAsync(() =>
        {
            _server.OnLinkDown("gone");
            _server.Receive(Arp(ServerAddress), default, EventLoop.Now);
            return 0;
        });
        Assert.Equal((1, false), (_server.Counters[DropCause.LinkDown], _server.IsLinkUp));
    }

    private static Lease Filler(int i) => new()
    {
        Network = "networks/x",
        Address = new Ipv4Address((uint)i),
        State = LeaseState.Bound,
        Client = new ClientKey("x"),
        Expire = DateTimeOffset.FromUnixTimeSeconds(1),
    };

    /// <summary>Hands records to the server, and waits for a turn of its loop.</summary>
    private Task<long> GiveAsync(params byte[][] records) => _loop.InvokeAsync(() =>
    {
        foreach (byte[] record in records)
        {
            if (record.Length > 0)
                _server.Receive(record, default, EventLoop.Now);
        }
        return _server.OnTurn(EventLoop.Now);
    });

    private async Task<byte[]> TakeAsync()
    {
        for (int i = 0; i < 500; i++)
        {
            if (await _loop.InvokeAsync(() => _link.Sent.TryDequeue(out byte[]? sent) ? sent : null) is { } record)
                return record;
            await Task.Delay(10, TestContext.Current.CancellationToken);
        }
        throw new TimeoutException("the server sent nothing");
    }

    private static (Dhcpv4MessageType Type, Ipv4Address Address) ReadReply(byte[] record)
    {
        Assert.True(Dhcpv4View.TryParse(record.AsSpan(12 + 42), out Dhcpv4View view));
        Assert.True(view.TryGetOption(Dhcpv4Option.MessageType, out ReadOnlySpan<byte> type));
        return ((Dhcpv4MessageType)type[0], view.YourAddress);
    }

    private byte[] Dhcp(Dhcpv4MessageType type, Ipv4Address? requested = null)
    {
        byte[] record = new byte[12 + 14 + 20 + 8 + 300];
        var writer = new Dhcpv4Writer(record.AsSpan(54), new Dhcpv4Header { Operation = Dhcpv4.BootRequest, TransactionId = 7, HardwareAddress = Client });
        writer.TryAdd(Dhcpv4Option.MessageType, (byte)type);
        if (requested is { } address)
        {
            writer.TryAdd(Dhcpv4Option.RequestedAddress, address);
            writer.TryAdd(Dhcpv4Option.ServerIdentifier, ServerAddress);
        }
        writer.Finish();
        EthernetView.Write(record.AsSpan(12), MacAddress.Broadcast, Client, EtherType.Ipv4);
        new Ipv4Header(default, Ipv4Address.Broadcast, IpProtocol.Udp, 308).Write(record.AsSpan(26));
        UdpView.Write(record.AsSpan(46), default, Ipv4Address.Broadcast, 68, 67);
        return record;
    }

    private static void FixChecksums(byte[] record)
    {
        new Ipv4Header(default, Ipv4Address.Broadcast, IpProtocol.Udp, 308).Write(record.AsSpan(26));
        UdpView.Write(record.AsSpan(46), default, Ipv4Address.Broadcast, 68, 67);
    }

    private static byte[] Arp(Ipv4Address target)
    {
        byte[] record = new byte[12 + 14 + 28];
        EthernetView.Write(record.AsSpan(12), MacAddress.Broadcast, Client, EtherType.Arp);
        new ArpPacket(ArpPacket.Request, Client, CoreScript.Address(9), default, target).Write(record.AsSpan(26));
        return record;
    }

    private byte[] Echo(Ipv4Address source, Ipv4Address destination)
    {
        byte[] record = new byte[12 + 14 + 20 + 8 + 4];
        "ping"u8.CopyTo(record.AsSpan(54));
        EthernetView.Write(record.AsSpan(12), _server.Mac, Client, EtherType.Ipv4);
        new Ipv4Header(source, destination, IpProtocol.Icmp, 12).Write(record.AsSpan(26));
        Icmpv4View.Write(record.AsSpan(46), Icmpv4Type.EchoRequest, 0, 0x1234_0001);
        return record;
    }

    private sealed class FakeLink : IFrameLink
    {
        private readonly FileDescriptor _event = SysEpoll.CreateEvent();
        private readonly byte[] _room = new byte[FrameRecord.MaxLength];

        public Queue<byte[]> Sent { get; } = new();
        public bool IsFull { get; set; }
        public int Descriptor => _event.Number;
        public LinkOffloads Offloads => LinkOffloads.None;

        public ReceiveStatus TryReceive(out ReadOnlySpan<byte> record, out TraceContext trace)
        {
            record = default;
            trace = default;
            return ReceiveStatus.Empty;
        }

        public SendStatus TrySend(ReadOnlySpan<byte> record, in TraceContext trace) => throw new UnreachableException();

        public Span<byte> Reserve(int length) => IsFull ? default : _room.AsSpan(0, length);

        public SendStatus Commit(int length, in TraceContext trace)
        {
            Sent.Enqueue(_room[..length]);
            return SendStatus.Sent;
        }

        public void Flush()
        {
        }

        public bool PrepareToSleep() => true;

        public void Dispose() => _event.Dispose();
    }
}
