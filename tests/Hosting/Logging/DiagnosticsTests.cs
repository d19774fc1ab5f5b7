using System.Diagnostics;
using Google.Protobuf.WellKnownTypes;
using Grpc.Core;
using Grpc.Net.Client;
using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using VNetMesh.V1;

namespace VNetMesh.Hosting.Tests.Logging;

/// <summary>A service host as all services make it, asked over its socket.</summary>
public sealed class DiagnosticsTests : IAsyncLifetime
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vnet-hosting-").FullName;
    private WebApplication? _app;
    private GrpcChannel? _channel;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private DiagnosticsService.DiagnosticsServiceClient Client => new(_channel);

    public async ValueTask InitializeAsync()
    {
        Environment.SetEnvironmentVariable(RuntimePaths.RunDirectoryVariable, _folder);
        Environment.SetEnvironmentVariable(RuntimePaths.StateDirectoryVariable, _folder);
        WebApplicationBuilder builder = ServiceHost.CreateBuilder([], "switch", "VNetMesh.Test");
        _app = builder.Build();
        _app.MapCommon();
        await _app.StartAsync(Cancellation);
        _channel = UnixChannel.Create(Path.Combine(_folder, "switch.sock"));
    }

    public async ValueTask DisposeAsync()
    {
        _channel!.Dispose();
        await _app!.DisposeAsync();
        Directory.Delete(_folder, recursive: true);
    }

    [Fact]
    public async Task A_rule_holds_at_once_for_the_loggers_it_names_and_is_taken_back()
    {
        ILogger flows = Logger("VNetMesh.Nat.Flows.TcpFlow"), other = Logger("VNetMesh.Nat.Dns");
        Assert.False(flows.IsEnabled(Microsoft.Extensions.Logging.LogLevel.Debug));
        SetLogRuleResponse response = await Set("VNetMesh.Nat.Flows", LogSeverity.Debug);
        Assert.Contains(response.Rules, rule => rule is { Category: "VNetMesh.Nat.Flows", Severity: LogSeverity.Debug, ExpireTime: null });
        Assert.True(flows.IsEnabled(Microsoft.Extensions.Logging.LogLevel.Debug));
        Assert.False(other.IsEnabled(Microsoft.Extensions.Logging.LogLevel.Debug));
        await Set("", LogSeverity.None);
        Assert.False(other.IsEnabled(Microsoft.Extensions.Logging.LogLevel.Critical));
        Assert.True(flows.IsEnabled(Microsoft.Extensions.Logging.LogLevel.Debug));
        await Set("", LogSeverity.Unspecified);
        await Set("VNetMesh.Nat.Flows", LogSeverity.Unspecified);
        Assert.True(other.IsEnabled(Microsoft.Extensions.Logging.LogLevel.Information));
        Assert.False(flows.IsEnabled(Microsoft.Extensions.Logging.LogLevel.Debug));
    }

    [Fact]
    public async Task A_rule_with_a_duration_ends_by_itself()
    {
        ILogger logger = Logger("VNetMesh.Test");
        var clock = Stopwatch.StartNew();
        SetLogRuleResponse response = await Set("VNetMesh.Test", LogSeverity.Trace, TimeSpan.FromSeconds(1));
        Assert.NotNull(Assert.Single(response.Rules, rule => rule.Category == "VNetMesh.Test").ExpireTime);
        Assert.True(logger.IsEnabled(Microsoft.Extensions.Logging.LogLevel.Trace));
        while (logger.IsEnabled(Microsoft.Extensions.Logging.LogLevel.Trace))
        {
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(20), "the rule did not end");
            await Task.Delay(20, Cancellation);
        }
        Assert.True(clock.Elapsed > TimeSpan.FromSeconds(0.9), "the rule ended too early");
        ListLogRulesResponse rules = await Client.ListLogRulesAsync(new ListLogRulesRequest(), cancellationToken: Cancellation);
        Assert.DoesNotContain(rules.Rules, rule => rule.Category == "VNetMesh.Test");
    }

    [Theory]
    [InlineData("a b", LogSeverity.Debug, null, "LOG_CATEGORY_INVALID")]
    [InlineData("x", (LogSeverity)99, null, "LOG_SEVERITY_INVALID")]
    [InlineData("x", LogSeverity.Debug, 0.5, "LOG_DURATION_OUT_OF_RANGE")]
    [InlineData("x", LogSeverity.Debug, 86401.0, "LOG_DURATION_OUT_OF_RANGE")]
    public async Task What_makes_no_sense_is_refused_with_a_reason(string category, LogSeverity severity, double? seconds, string reason)
    {
        RpcException refusal = await Assert.ThrowsAsync<RpcException>(() => Set(category, severity, seconds is { } s ? TimeSpan.FromSeconds(s) : null));
        Assert.Equal((StatusCode.InvalidArgument, reason), (refusal.StatusCode, RpcErrors.ReasonOf(refusal)));
    }

    [Fact]
    public async Task Rules_are_bounded()
    {
        for (int i = 0; i < 64; i++)
            await Set($"c{i}", LogSeverity.Debug);
        RpcException refusal = await Assert.ThrowsAsync<RpcException>(() => Set("one.more", LogSeverity.Debug));
        Assert.Equal((StatusCode.ResourceExhausted, "TOO_MANY_LOG_RULES"), (refusal.StatusCode, RpcErrors.ReasonOf(refusal)));
        await Set("c7", LogSeverity.Error);
        await Set("c7", LogSeverity.Unspecified);
        await Set("one.more", LogSeverity.Debug);
    }

    private ILogger Logger(string category) => _app!.Services.GetRequiredService<ILoggerFactory>().CreateLogger(category);

    private async Task<SetLogRuleResponse> Set(string category, LogSeverity severity, TimeSpan? duration = null) =>
        await Client.SetLogRuleAsync(new SetLogRuleRequest
        {
            Rule = new LogRule { Category = category, Severity = severity },
            Duration = duration is { } time ? Duration.FromTimeSpan(time) : null,
        }, cancellationToken: Cancellation);
}
