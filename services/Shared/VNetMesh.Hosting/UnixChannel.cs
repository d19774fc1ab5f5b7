using Grpc.Net.Client;

namespace VNetMesh.Hosting;

/// <summary>gRPC over a Unix socket.</summary>
public static class UnixChannel
{
    /// <summary>A channel that connects when it is first used, and again whenever the service comes back.</summary>
    public static GrpcChannel Create(string socketPath)
    {
        var handler = new SocketsHttpHandler
        {
            // A service that died and came back must be reached at once, not after the default back-off of minutes.
            EnableMultipleHttp2Connections = true,
            PooledConnectionIdleTimeout = Timeout.InfiniteTimeSpan,
            ConnectCallback = (_, cancellation) => UnixConnection.OpenAsync(socketPath, cancellation),
        };
        return GrpcChannel.ForAddress("http://localhost", new GrpcChannelOptions
        {
            HttpHandler = handler,
            DisposeHttpClient = true,
            MaxReceiveMessageSize = 16 * 1024 * 1024,
        });
    }
}
