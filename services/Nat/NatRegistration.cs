using Grpc.Net.Client;
using VNetMesh.Hosting;
using VNetMesh.Links;
using VNetMesh.Nat.Dns;
using VNetMesh.Nat.Flows;
using VNetMesh.Nat.Forwards;
using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Observability;
using VNetMesh.Nat.Rpc;

namespace VNetMesh.Nat;

/// <summary>Puts the service together.</summary>
internal static partial class NatRegistration
{
    public static IServiceCollection AddNat(this IServiceCollection services)
    {
        services.AddSingleton<NatMetrics>();
        services.AddSingleton<FlowHub>();
        services.AddSingleton(provider => UnixChannel.Create(provider.GetRequiredService<RuntimePaths>().Socket("switch")));
        services.AddSingleton(provider => CreateLoop(provider.GetRequiredService<ILoggerFactory>().CreateLogger("VNetMesh.Nat.Loop")));
        services.AddSingleton(provider => new NatShared(
            provider.GetRequiredService<EventLoop>(),
            NatLimits.FromDescriptorLimit(),
            new DestinationPolicy(),
            provider.GetRequiredService<FlowHub>(),
            provider.GetRequiredService<NatMetrics>(),
            ResolverList.FromEnvironment(),
            provider.GetRequiredService<TimeProvider>(),
            provider.GetRequiredService<ILoggerFactory>().CreateLogger("VNetMesh.Nat")));
        services.AddSingleton(CreateEngine);
        services.AddHostedService<NatWorker>();
        return services;
    }

    private static EventLoop CreateLoop(ILogger logger) => new("vnetmesh-nat", exception => LogFault(logger, exception));

    private static NatEngine CreateEngine(IServiceProvider provider)
    {
        RuntimePaths paths = provider.GetRequiredService<RuntimePaths>();
        NatShared shared = provider.GetRequiredService<NatShared>();
        GrpcChannel channel = provider.GetRequiredService<GrpcChannel>();
        ILogger logger = provider.GetRequiredService<ILoggerFactory>().CreateLogger<PortClient>();
        return new NatEngine(shared, new ForwardStore(Path.Combine(paths.State("nat"), "forwards.json")), (gateway, cancellation) =>
            new PortClient(shared.Loop, channel, paths.HandoffSocket, new PortClientOptions
            {
                Network = gateway.Settings.Network,
                PortId = GatewayTranslation.PortId,
                Owner = "nat",
                Mac = gateway.Settings.Mac,
                AcceptedOffloads = LinkOffloads.All,
                RingCapacity = 4 * 1024 * 1024,
            }, gateway, logger).RunAsync(cancellation));
    }

    [LoggerMessage(LogLevel.Error, "the loop goes on after a fault")]
    private static partial void LogFault(ILogger logger, Exception exception);
}

/// <summary>Runs the loop, and keeps the gateways in line with the switch's registry.</summary>
internal sealed class NatWorker(NatEngine engine, EventLoop loop, NatMetrics metrics, GrpcChannel channel, ILogger<NatWorker> logger) : BackgroundService
{
    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        engine.Load();
        metrics.Watch(loop);
        loop.Start();
        try
        {
            await new NetworkWatcher(channel, logger).RunAsync((networks, _) => engine.ReconcileAsync(GatewayTranslation.ToSettings(networks), networks.Select(network => network.Name).ToHashSet()), stoppingToken);
        }
        catch (OperationCanceledException)
        {
        }
        await engine.DisposeAsync();
        loop.Dispose();
    }
}
