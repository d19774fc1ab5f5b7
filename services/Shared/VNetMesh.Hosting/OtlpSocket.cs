using OpenTelemetry.Exporter;

namespace VNetMesh.Hosting;

/// <summary>
/// OTLP for services that have no network: they reach the endpoint of the standard variables through a Unix socket, behind which
/// the agent passes octets on to that endpoint (docs/adr/0013). TLS, where the endpoint is https, is between the service and the endpoint.
/// </summary>
public static class OtlpSocket
{
    public const string Variable = "VNETMESH_OTLP_SOCKET";

    /// <summary>Null: services reach the endpoint by themselves.</summary>
    public static string? Path => Environment.GetEnvironmentVariable(Variable) is { Length: > 0 } path ? path : null;

    /// <summary>What an exporter is to be told. The agent has a network, and is the other end of the socket.</summary>
    internal static Action<OtlpExporterOptions> Configure(string service, string? path) => options =>
    {
        if (path is null || service == ServiceHost.AgentName)
            return;
        options.HttpClientFactory = () => new HttpClient(new SocketsHttpHandler { ConnectCallback = (_, cancellation) => UnixConnection.OpenAsync(path, cancellation) })
        {
            Timeout = TimeSpan.FromMilliseconds(options.TimeoutMilliseconds),
        };
    };
}
