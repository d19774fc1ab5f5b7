using Grpc.Core;
using Grpc.Health.V1;
using Grpc.Net.Client;

namespace VNetMesh.Hosting;

/// <summary>
/// `vnetmesh-SERVICE health`: asks the service that runs with the same run directory by the standard health service, for
/// a container's health check; so an image needs neither a shell nor curl.
/// </summary>
public static class HealthCommand
{
    private const string Name = "health";
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(3);

    public static bool IsAsked(string[] args) => args is [Name];

    /// <returns>0: it serves. 1: it does not, or does not answer within 3 s; standard error says which.</returns>
    public static async Task<int> RunAsync(string service)
    {
        using GrpcChannel channel = UnixChannel.Create(RuntimePaths.FromEnvironment().Socket(service));
        try
        {
            HealthCheckResponse answer = await new Health.HealthClient(channel).CheckAsync(new HealthCheckRequest(), deadline: DateTime.UtcNow + Limit);
            if (answer.Status == HealthCheckResponse.Types.ServingStatus.Serving)
                return 0;
            await Console.Error.WriteLineAsync($"{service} answers {answer.Status}");
        }
        catch (RpcException exception)
        {
            await Console.Error.WriteLineAsync($"{service} does not answer: {exception.Status.Detail}");
        }
        return 1;
    }
}
