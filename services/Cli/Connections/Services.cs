using Grpc.Core;
using Grpc.Health.V1;
using Grpc.Net.Client;
using VNetMesh.Hosting;
using VNetMesh.V1;

namespace VNetMesh.Cli.Connections;

/// <summary>The services of the instance that the environment names. Channels are made when they are first used.</summary>
internal sealed class Services : IDisposable
{
    /// <summary>The four, in the order in which `vnet up` waits for them.</summary>
    public static readonly string[] Names = ["switch", "dhcp", "nat", "agent"];

    private readonly Dictionary<string, GrpcChannel> _channels = [];

    public RuntimePaths Paths { get; } = RuntimePaths.FromEnvironment();

    public NetworkService.NetworkServiceClient Networks => new(Channel("switch"));

    public PortService.PortServiceClient Ports => new(Channel("switch"));

    public CaptureService.CaptureServiceClient Captures => new(Channel("switch"));

    public DhcpService.DhcpServiceClient Dhcp => new(Channel("dhcp"));

    public NatService.NatServiceClient Nat => new(Channel("nat"));

    public AgentService.AgentServiceClient Agent => new(Channel("agent"));

    /// <summary>What every service answers beside its own API.</summary>
    public DiagnosticsService.DiagnosticsServiceClient Diagnostics(string service) => new(Channel(service));

    /// <summary>A deadline for calls that only ask.</summary>
    public static DateTime Soon => DateTime.UtcNow.AddSeconds(10);

    /// <summary>What the service says of its health; null: it does not answer.</summary>
    public async Task<HealthCheckResponse.Types.ServingStatus?> HealthAsync(string service, CancellationToken cancellation)
    {
        if (!File.Exists(Paths.Socket(service)))
            return null;
        try
        {
            HealthCheckResponse response = await new Health.HealthClient(Channel(service)).CheckAsync(new HealthCheckRequest(),
                deadline: DateTime.UtcNow.AddSeconds(2), cancellationToken: cancellation);
            return response.Status;
        }
        catch (RpcException)
        {
            return null;
        }
    }

    public void Dispose()
    {
        foreach (GrpcChannel channel in _channels.Values)
            channel.Dispose();
    }

    private GrpcChannel Channel(string service)
    {
        if (_channels.TryGetValue(service, out GrpcChannel? channel))
            return channel;
        return _channels[service] = UnixChannel.Create(Paths.Socket(service));
    }
}
