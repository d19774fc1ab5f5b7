using System.Net;

namespace VNetMesh.EndToEnd.Tests.Harness;

/// <summary>A guest that <c>vnet guest add</c> made; removed when disposed.</summary>
public sealed class TestGuest(Instance instance, string name, string network) : IAsyncDisposable
{
    public string Name { get; } = name;

    /// <summary>The id of its network, e.g. "vmnet8".</summary>
    public string Network { get; } = network;

    public NetworkNamespace Namespace { get; } = new(name);

    /// <summary>A folder for files of the test; removed with the instance.</summary>
    public string ScratchDirectory => instance.ScratchDirectory;

    public Task<CommandResult> RunAsync(params string[] command) => Namespace.RunAsync(command);

    public Task<CommandResult> RunAsync(TimeSpan limit, params string[] command) => Namespace.RunAsync(limit, command);

    /// <summary>Its one IPv4 address.</summary>
    public async Task<IPAddress> AddressAsync() => IPAddress.Parse(Assert.Single(await Namespace.AddressesAsync("eth0")));

    /// <summary>True when the HTTP server in the wan says hello.</summary>
    public async Task<bool> FetchesAsync(string timeout = "1") =>
        (await RunAsync("curl", "-s", "--max-time", timeout, $"http://{Instance.WanAddress}/")) is { ExitCode: 0 } result && result.Output.StartsWith("hello", StringComparison.Ordinal);

    public async ValueTask DisposeAsync() => await instance.VnetAsync("guest", "rm", Name);
}
