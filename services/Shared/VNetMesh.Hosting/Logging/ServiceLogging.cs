using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Console;

namespace VNetMesh.Hosting.Logging;

/// <summary>A service's logs: lines (or JSON) on standard output; rules that can be changed while it runs.</summary>
internal static class ServiceLogging
{
    /// <summary>VNETMESH_LOG_LEVEL (Trace to Critical; Information) is the default rule's; VNETMESH_LOG_FORMAT is "line" or "json".</summary>
    public static void AddServiceLogging(this WebApplicationBuilder builder)
    {
        var rules = new LogRules(Initial(Environment.GetEnvironmentVariable("VNETMESH_LOG_LEVEL")), TimeProvider.System);
        builder.Services.AddSingleton(rules);
        builder.Logging.ClearProviders();
        builder.Logging.AddConfiguration(new ConfigurationBuilder().Add(rules).Build());
        builder.Logging.Configure(options => options.ActivityTrackingOptions = ActivityTrackingOptions.TraceId | ActivityTrackingOptions.SpanId);
        // A log that nobody takes must not stop a forwarding thread.
        builder.Logging.AddConsole(options =>
        {
            options.FormatterName = Environment.GetEnvironmentVariable("VNETMESH_LOG_FORMAT") == "json" ? ConsoleFormatterNames.Json : LineFormatter.FormatterName;
            options.QueueFullMode = ConsoleLoggerQueueFullMode.DropWrite;
        });
        builder.Logging.AddConsoleFormatter<LineFormatter, ConsoleFormatterOptions>();
        builder.Services.Configure<JsonConsoleFormatterOptions>(options =>
        {
            options.IncludeScopes = true;
            options.UseUtcTimestamp = true;
            options.TimestampFormat = "yyyy-MM-ddTHH:mm:ss.fffZ";
        });
    }

    private static Dictionary<string, LogLevel> Initial(string? level) => new()
    {
        [LogRules.DefaultCategory] = Enum.TryParse(level, ignoreCase: true, out LogLevel parsed) ? parsed : LogLevel.Information,
        ["Grpc"] = LogLevel.Warning,
        ["Microsoft"] = LogLevel.Warning,
        ["System"] = LogLevel.Warning,
    };
}
