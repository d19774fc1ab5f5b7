namespace VNetMesh.Switch.Tests.Support;

/// <summary>One real switch for a class of tests.</summary>
public sealed class SharedSwitch : IAsyncLifetime
{
    public SwitchProcess Process { get; private set; } = null!;

    public async ValueTask InitializeAsync() => Process = await SwitchProcess.StartAsync();

    public async ValueTask DisposeAsync() => await Process.DisposeAsync();
}
