namespace VNetMesh.EndToEnd.Tests.Harness;

/// <summary>The instance that tests share which do it no harm; started by the first that asks.</summary>
public sealed class SharedInstance : IAsyncDisposable
{
    private readonly SemaphoreSlim _gate = new(1);
    private Instance? _instance;

    public async Task<Instance> GetAsync()
    {
        await _gate.WaitAsync();
        try
        {
            return _instance ??= await Instance.StartAsync();
        }
        finally
        {
            _gate.Release();
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (_instance is not null)
            await _instance.DisposeAsync();
        _gate.Dispose();
    }
}

/// <summary>A test on an instance. When it fails, the ends of the services' logs stand in its output.</summary>
public abstract class InstanceTest : IAsyncLifetime
{
    protected Instance Instance { get; private set; } = null!;

    protected static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public virtual async ValueTask InitializeAsync()
    {
        Require.Root();
        Instance = await StartAsync();
    }

    public virtual async ValueTask DisposeAsync()
    {
        GC.SuppressFinalize(this);
        if (Instance is null)
            return;
        if (TestContext.Current.TestState?.Result == TestResult.Failed)
            TestContext.Current.TestOutputHelper?.WriteLine(Instance.Logs());
        await EndAsync();
    }

    protected static void Log(string line) => TestContext.Current.TestOutputHelper?.WriteLine(line);

    protected abstract Task<Instance> StartAsync();

    protected abstract Task EndAsync();
}

/// <summary>A test on the instance that others use as well.</summary>
public abstract class SharedInstanceTest(SharedInstance shared) : InstanceTest
{
    protected override Task<Instance> StartAsync() => shared.GetAsync();

    protected override Task EndAsync() => Task.CompletedTask;
}

/// <summary>A test on an instance of its own.</summary>
public abstract class OwnInstanceTest : InstanceTest
{
    protected virtual InstanceOptions Options => new();

    protected override Task<Instance> StartAsync() => Instance.StartAsync(Options);

    protected override Task EndAsync() => Instance.DisposeAsync().AsTask();
}
