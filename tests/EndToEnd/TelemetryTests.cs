using VNetMesh.EndToEnd.Tests.Harness;

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
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "spans of a DHCP exchange and of a NAT flow", () => HasChildren("vnetmesh-dhcp") && HasChildren("vnetmesh-nat"));
        Log(_receiver.Describe());

        ReceivedSpan[] exchange = TraceOf("vnetmesh-dhcp");
        string names = string.Join(' ', exchange.SelectMany(span => span.Events.Append(span.Name))).ToLowerInvariant();
        foreach (string step in new[] { "discover", "offer", "request", "ack" })
            Assert.Contains(step, names, StringComparison.Ordinal);

        ReceivedSpan[] flow = TraceOf("vnetmesh-nat");
        names = string.Join(' ', flow.SelectMany(span => span.Events.Append(span.Name))).ToLowerInvariant();
        foreach (string step in new[] { "dial", "established" })
            Assert.Contains(step, names, StringComparison.Ordinal);
        await Wait.UntilAsync(TimeSpan.FromSeconds(6), "metrics and logs come as well", () => _receiver.Signals.Contains("/v1/metrics") && _receiver.Signals.Contains("/v1/logs"));
    }

    private bool HasChildren(string service) => TraceOf(service).Length > 1;

    /// <summary>The largest trace in which the service has a child span whose parent is in the trace as well.</summary>
    private ReceivedSpan[] TraceOf(string service) => _receiver.Spans
        .GroupBy(span => span.TraceId)
        .Where(trace => trace.Any(span => span.Service == service && trace.Any(parent => parent.SpanId == span.ParentId)))
        .OrderByDescending(trace => trace.Count())
        .Select(trace => trace.ToArray())
        .FirstOrDefault() ?? [];
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
}
