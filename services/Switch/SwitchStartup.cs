using System.Runtime.InteropServices;
using VNetMesh.Hosting;
using VNetMesh.Switch.Registry;

namespace VNetMesh.Switch;

/// <summary>Brings what the user declares into the registry before anyone can ask for it, and again at each SIGHUP.</summary>
internal sealed partial class SwitchStartup(NetworkRegistry registry, DeclarationReconciler declarations, ILogger<SwitchStartup> logger) : IHostedService, IDisposable
{
    private PosixSignalRegistration? _hangUp;

    public Task StartAsync(CancellationToken cancellationToken)
    {
        declarations.Reconcile(RuntimePaths.ConfigurationFile);
        _hangUp = PosixSignalRegistration.Create(PosixSignal.SIGHUP, signal =>
        {
            signal.Cancel = true;
            declarations.Reconcile(RuntimePaths.ConfigurationFile);
        });
        LogStarted(registry.List().Count);
        return Task.CompletedTask;
    }

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public void Dispose() => _hangUp?.Dispose();

    [LoggerMessage(LogLevel.Information, "The switch serves {Count} networks")]
    private partial void LogStarted(int count);
}
