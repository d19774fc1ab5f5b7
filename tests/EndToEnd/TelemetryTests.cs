using System.Net;
using Google.Protobuf;
using Grpc.Core;
using VNetMesh.EndToEnd.Tests.Harness;
using VNetMesh.V1;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>Traces of a DHCP exchange and of a NAT flow, as exported by OTLP.</summary>
public sealed class TelemetryTests : OwnInstanceTest
{
    private OtlpReceiver _receiver = null!;

    protected override InstanceOptions Options => new() { Up = false, Environment = OtlpReceiver.Environment };

    public override async ValueTask InitializeAsync()
    {
        await base.InitializeAsync();
        _receiver = new OtlpReceiver(Instance.Host);
        (await Instance.VnetAsync("up")).EnsureSuccess();
    }

    public override async ValueTask DisposeAsync()
    {
        if (TestContext.Current.TestState?.Result == TestResult.Failed && _receiver is not null)
            Log(_receiver.Describe());
        _receiver?.Dispose();
        await base.DisposeAsync();
        GC.SuppressFinalize(this);
    }

    [Fact]
    public async Task A_dhcp_exchange_and_a_nat_flow_are_a_trace_each()
    {
        await using TestGuest guest = await Instance.AddGuestAsync("traced", "vmnet8");
        Assert.True(await guest.FetchesAsync("3"));
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "spans of a DHCP exchange and of a NAT flow", () => HasChildren("vnetmesh-dhcp", "dhcp exchange") && HasChildren("vnetmesh-nat", "nat.flow")
            && _receiver.Spans.Count(span => span.Name == "switch.first_frame") >= 2);
        // A connection is some dozens of frames: there must not be a span for each.
        Assert.InRange(_receiver.Spans.Count(span => span.Name == "switch.first_frame"), 2, 20);
        Log(_receiver.Describe());

        ReceivedSpan exchange = Root("vnetmesh-dhcp", "dhcp exchange");
        Assert.Equal(["discover", "offer", "request", "ack"], Children(exchange).Select(span => span.Name));
        Assert.Equal((await guest.AddressAsync()).ToString(), Children(exchange)[^1].Attributes["dhcp.address"]);
        Assert.NotEmpty(AssertBeganAtTheSwitch(exchange, guest, "flooded", "dhcp").ParentId);

        ReceivedSpan flow = Root("vnetmesh-nat", "nat.flow");
        Assert.Contains(Children(flow), span => span.Name == "nat.dial");
        // The server may have closed before its first byte is sent on: the order of the rest is nobody's promise.
        Assert.Equal(["established", "first_byte_to_remote", "first_byte_from_remote"], flow.Events.Take(3));
        Assert.Contains("first_byte_to_guest", flow.Events);
        Assert.Empty(AssertBeganAtTheSwitch(flow, guest, "forwarded", "nat").ParentId);
        Assert.Equal(Instance.WanAddress, flow.Attributes["server.address"]);
        Assert.NotEmpty(flow.Attributes["vnetmesh.end_reason"]);
        await Wait.UntilAsync(TimeSpan.FromSeconds(6), "metrics and logs come as well", () => _receiver.Signals.Contains("/v1/metrics") && _receiver.Signals.Contains("/v1/logs"));
    }

    // One trace across processes: the switch's span of the first frame is the parent of what the service made of it.
    private ReceivedSpan AssertBeganAtTheSwitch(ReceivedSpan child, TestGuest guest, string verdict, string service)
    {
        ReceivedSpan first = _receiver.Spans.First(span => span.TraceId == child.TraceId && span.SpanId == child.ParentId);
        Assert.Equal(("vnetmesh-switch", "switch.first_frame", guest.Name, verdict), (first.Service, first.Name, first.Attributes["vnetmesh.port"], first.Attributes["vnetmesh.verdict"]));
        Assert.True(verdict == "flooded" || first.Attributes["vnetmesh.port.egress"] == service);
        return first;
    }

    [Fact]
    public async Task What_vnet_guest_add_leads_to_is_one_tree()
    {
        await using TestGuest guest = await Instance.AddGuestAsync("tree", "vmnet8");
        ReceivedSpan[] Tree() => [.. _receiver.Spans.Where(span => span.TraceId == _receiver.Spans.FirstOrDefault(one => one.Name == "vnet guest add")?.TraceId)];
        // Each process exports when it likes: complete is a tree in which nothing hangs in the air.
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "the spans of a guest's creation", () => HasChildren("vnetmesh-dhcp", "dhcp exchange") && _receiver.Spans.Any(span => span.Name == "agent.guest.addressing")
            && Tree() is { Length: > 0 } spans && spans.Count(span => spans.All(other => other.SpanId != span.ParentId)) == 1);
        ReceivedSpan root = Root("vnetmesh-cli", "vnet guest add");
        Assert.Empty(root.ParentId);
        ReceivedSpan[] tree = Tree();
        Assert.Equal(["vnetmesh-agent", "vnetmesh-cli", "vnetmesh-dhcp", "vnetmesh-switch"], tree.Select(span => span.Service).Distinct().Order(StringComparer.Ordinal));
        foreach (string name in (string[])["agent.guest.create", "agent.device.create", "agent.handoff", "switch.handoff", "agent.dhcp_client.start", "agent.guest.addressing", "switch.first_frame", "dhcp exchange", "ack"])
            Assert.Single(tree, span => span.Name == name);
        // What the guest does later is no part of it.
        Assert.True(await guest.FetchesAsync("3"));
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "the span of a NAT flow", () => HasChildren("vnetmesh-nat", "nat.flow"));
        Assert.DoesNotContain(_receiver.Spans, span => span.Service == "vnetmesh-nat" && span.TraceId == root.TraceId);
    }

    /// <summary>A peer that is connected by Attach, and not by a ring, has the same trace: both ways.</summary>
    [Fact]
    public async Task Traces_travel_through_attach_as_well()
    {
        const string Trace = "0af7651916cd43dd8448eb211c80319c", Span = "b7ad6b7169203331";
        using AsyncDuplexStreamingCall<AttachRequest, AttachResponse> call = new PortService.PortServiceClient(Instance.Channel("switch")).Attach(cancellationToken: Cancellation);
        await call.RequestStream.WriteAsync(new AttachRequest { Hello = new AttachHello { Network = "networks/vmnet8", Role = PortRole.Service, PortId = "listener" } }, Cancellation);
        Assert.True(await call.ResponseStream.MoveNext(Cancellation));
        byte[] mac = [2, 0, 0, 0, 0, 9];
        var own = IPAddress.Parse("192.168.108.50");
        var gateway = IPAddress.Parse("192.168.108.2");
        var received = new List<Frame>();
        _ = Task.Run(async () =>
        {
            while (await call.ResponseStream.MoveNext(Cancellation))
            {
                lock (received)
                    received.AddRange(call.ResponseStream.Current.Frames.Frames);
            }
        }, Cancellation);
        Frame[] Received() { lock (received) return [.. received]; }

        // The switch's context comes with the first frame of a conversation…
        await using TestGuest guest = await Instance.AddGuestAsync("heard", "vmnet8");
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "a frame with the switch's context", () => _receiver.Spans.Any(span => span.Name == "switch.first_frame" && Received().Any(frame => frame.Traceparent == $"00-{span.TraceId}-{span.SpanId}-01")));
        // …and frames after the first have none.
        Assert.True(Received().Count(frame => frame.Traceparent.Length > 0) < Received().Length);

        // What a client says of its frame is what nat goes by.
        await call.RequestStream.WriteAsync(BatchOf(Frames.ArpRequest(mac, own, gateway), ""), Cancellation);
        byte[]? gatewayMac = null;
        await Wait.UntilAsync(TimeSpan.FromSeconds(5), "the gateway's ARP reply", () => (gatewayMac = Received().Select(frame => frame.Data.ToByteArray()).FirstOrDefault(data => data[12] == 8 && data[13] == 6 && data[21] == 2 && data.AsSpan(0, 6).SequenceEqual(mac))?[6..12]) is not null);
        await call.RequestStream.WriteAsync(BatchOf(Frames.TcpSyn(mac, gatewayMac!, own, IPAddress.Parse(Instance.WanAddress), 4000, 9), $"00-{Trace}-{Span}-01"), Cancellation);
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "the flow's span", () => HasChildren("vnetmesh-nat", "nat.flow"));
        ReceivedSpan flow = Root("vnetmesh-nat", "nat.flow");
        Assert.Equal((Trace, Span, "dial_refused"), (flow.TraceId, flow.ParentId, flow.Attributes["vnetmesh.end_reason"]));
    }

    private static AttachRequest BatchOf(byte[] frame, string trace) => new() { Frames = new FrameBatch { Frames = { new Frame { Data = ByteString.CopyFrom(frame), Traceparent = trace } } } };

    private bool HasChildren(string service, string name) => _receiver.Spans.Any(span => span.Service == service && span.Name == name && Children(span).Length > 0);

    private ReceivedSpan Root(string service, string name) => _receiver.Spans.First(span => span.Service == service && span.Name == name);

    private ReceivedSpan[] Children(ReceivedSpan parent) => [.. _receiver.Spans.Where(span => span.TraceId == parent.TraceId && span.ParentId == parent.SpanId)];
}

/// <summary>Each service answers Prometheus on a socket of its own.</summary>
public sealed class MetricsTests(SharedInstance shared) : SharedInstanceTest(shared)
{
    [Theory]
    [InlineData("switch")]
    [InlineData("dhcp")]
    [InlineData("nat")]
    [InlineData("agent")]
    public async Task Prometheus_is_answered(string service)
    {
        CommandResult metrics = (await Command.RunAsync("curl", "-sSf", "--unix-socket", Path.Combine(Instance.RunDirectory, service + ".metrics.sock"), "http://localhost/metrics")).EnsureSuccess();
        string[] names = [.. metrics.Output.Split('\n').Where(line => line.StartsWith("# TYPE ", StringComparison.Ordinal)).Select(line => line.Split(' ')[2])];
        Assert.Contains(names, name => name.StartsWith("dotnet_", StringComparison.Ordinal));
        Assert.Contains(names, name => name.StartsWith("vnetmesh_", StringComparison.Ordinal));
    }

    [Fact]
    public async Task The_agent_answers_for_all_of_them_over_tcp_and_for_nothing_else()
    {
        foreach (string service in (string[])["switch", "dhcp", "nat", "agent"])
        {
            string metrics = (await Instance.Host.RunAsync("curl", "-sSf", "http://127.0.0.1:9470/metrics/" + service)).EnsureSuccess().Output;
            Assert.Contains($"service_name=\"vnetmesh-{service}\"", metrics, StringComparison.Ordinal);
        }
        foreach (string path in (string[])["/", "/metrics", "/metrics/other", "/vnetmesh.v1.AgentService/ListGuests"])
            Assert.Equal("404", (await Instance.Host.RunAsync("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:9470" + path)).Output);
        // What is not HTTP/1.1 gets nothing either.
        Assert.NotEqual(0, (await Instance.Host.RunAsync("curl", "-sS", "-m", "3", "--http2-prior-knowledge", "http://127.0.0.1:9470/metrics/agent")).ExitCode);
    }
}
