using VNetMesh.Switch.Observability;
using VNetMesh.Switch.Registry;

namespace VNetMesh.Switch;

/// <summary>Opens the registry and brings what the user declares into it before anyone can ask for it.</summary>
internal sealed partial class SwitchStartup(NetworkRegistry registry, SwitchMetrics metrics, ILogger<SwitchStartup> logger) : IHostedService
{
    public Task StartAsync(CancellationToken cancellationToken)
    {
        LogStarted(registry.List().Count);
        GC.KeepAlive(metrics);
        return Task.CompletedTask;
    }

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    [LoggerMessage(LogLevel.Information, "The switch serves {Count} networks")]
    private partial void LogStarted(int count);
}
