using Grpc.Net.Client;
using VNetMesh.Dhcp.Leases;
using VNetMesh.Dhcp.Observability;
using VNetMesh.Dhcp.Protocol;
using VNetMesh.Dhcp.Serving;
using VNetMesh.Hosting;
using VNetMesh.Links;
using VNetMesh.V1;

namespace VNetMesh.Dhcp.Rpc;

/// <summary>Puts the service together.</summary>
internal static partial class DhcpRegistration
{
    /// <summary>The section of configuration, and so the prefix of environment variables (VNETMESH_DHCP__ProbeTime=00:00:00.2), that sets <see cref="DhcpOptions"/>.</summary>
    private const string OptionsSection = "VNETMESH_DHCP";

    public static IServiceCollection AddDhcp(this IServiceCollection services, IConfiguration configuration)
    {
        services.AddSingleton<DhcpMetrics>();
        services.AddSingleton<LeaseFeed>();
        services.AddSingleton((configuration.GetSection(OptionsSection).Get<DhcpOptions>() ?? new DhcpOptions()).Checked());
        services.AddSingleton(provider => UnixChannel.Create(provider.GetRequiredService<RuntimePaths>().Socket("switch")));
        services.AddSingleton(provider => CreateLoop(provider.GetRequiredService<ILoggerFactory>().CreateLogger("VNetMesh.Dhcp.Loop")));
        services.AddSingleton<ILeaseStore>(provider => new LeaseStore(Path.Combine(provider.GetRequiredService<RuntimePaths>().State("dhcp"), "leases.db")));
        services.AddSingleton(provider => new StoreWriter(provider.GetRequiredService<ILeaseStore>(), provider.GetRequiredService<ILogger<StoreWriter>>()));
        services.AddSingleton(provider => new ServerContext(
            provider.GetRequiredService<EventLoop>(),
            provider.GetRequiredService<StoreWriter>(),
            provider.GetRequiredService<DhcpOptions>(),
            provider.GetRequiredService<TimeProvider>(),
            provider.GetRequiredService<LeaseFeed>(),
            provider.GetRequiredService<DhcpMetrics>(),
            provider.GetRequiredService<ILoggerFactory>().CreateLogger("VNetMesh.Dhcp")));
        services.AddSingleton(CreateDirectory);
        services.AddHostedService<DhcpWorker>();
        return services;
    }

    private static EventLoop CreateLoop(ILogger logger) => new("vnetmesh-dhcp", exception => LogFault(logger, exception));

    private static ServerDirectory CreateDirectory(IServiceProvider provider)
    {
        ServerContext context = provider.GetRequiredService<ServerContext>();
        GrpcChannel channel = provider.GetRequiredService<GrpcChannel>();
        string handoff = provider.GetRequiredService<RuntimePaths>().HandoffSocket;
        ILogger logger = provider.GetRequiredService<ILogger<PortClient>>();
        return new ServerDirectory(context, (server, cancellation) => new PortClient(context.Loop, channel, handoff, new PortClientOptions
        {
            Network = server.Network,
            PortId = ServerDirectory.PortId,
            Owner = "dhcp",
            Mac = server.Mac,
            AcceptedOffloads = LinkOffloads.Checksum,
        }, server, logger).RunAsync(cancellation));
    }

    [LoggerMessage(LogLevel.Error, "the loop goes on after a fault")]
    private static partial void LogFault(ILogger logger, Exception exception);
}

/// <summary>Runs the loop, and keeps the servers in line with the switch's registry.</summary>
internal sealed partial class DhcpWorker(ServerDirectory directory, EventLoop loop, DhcpMetrics metrics, StoreWriter writer, GrpcChannel channel, ILogger<DhcpWorker> logger) : IHostedService, IDisposable
{
    private static readonly TimeSpan PurgeInterval = TimeSpan.FromHours(24);
    private static readonly TimeSpan ResolverInterval = TimeSpan.FromSeconds(10);

    private readonly CancellationTokenSource _stop = new();
    private readonly HostResolvers _hostResolvers = HostResolvers.FromEnvironment();
    private readonly SemaphoreSlim _serving = new(1);
    private volatile IReadOnlyList<Network>? _networks;
    private volatile HostResolvers.List _resolvers = new([], []);
    private Task _work = Task.CompletedTask;

    /// <summary>Leases are read before the first question about them can come.</summary>
    public async Task StartAsync(CancellationToken cancellationToken)
    {
        await directory.LoadAsync();
        metrics.Watch(loop);
        loop.Start();
        _work = Task.WhenAll(WatchAsync(_stop.Token), FollowResolversAsync(_stop.Token), PurgeAsync(_stop.Token));
    }

    /// <summary>Ports go first, then what is still to be written.</summary>
    public async Task StopAsync(CancellationToken cancellationToken)
    {
        await _stop.CancelAsync();
        await _work.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        await directory.DisposeAsync();
        writer.Dispose();
        loop.Dispose();
    }

    public void Dispose()
    {
        _stop.Dispose();
        _serving.Dispose();
    }

    private Task WatchAsync(CancellationToken cancellation) =>
        new NetworkWatcher(channel, logger).RunAsync((networks, _) => ServeAsync(networks), cancellation);

    /// <param name="networks">As the switch told them; null: as it told them last.</param>
    private async Task ServeAsync(IReadOnlyList<Network>? networks)
    {
        await _serving.WaitAsync();
        try
        {
            _networks = networks ?? _networks;
            _resolvers = _hostResolvers.Read();
            await directory.ReconcileAsync(DhcpTranslation.ToServed(_networks!, _resolvers), _networks!.Select(network => network.Name).ToHashSet());
        }
        finally
        {
            _serving.Release();
        }
    }

    /// <summary>The host's nameservers change as it moves from one LAN to another; guests hear of it when they renew.</summary>
    private async Task FollowResolversAsync(CancellationToken cancellation)
    {
        while (true)
        {
            await Task.Delay(ResolverInterval, cancellation);
            if (_networks is null || _hostResolvers.Read().Means(_resolvers))
                continue;
            try
            {
                await ServeAsync(null);
                LogResolvers(string.Join(' ', _resolvers.Ipv4.Select(address => address.ToString()).Concat(_resolvers.Ipv6.Select(address => address.ToString()))));
            }
            catch (IOException exception)
            {
                LogNotServed(exception.Message);
            }
        }
    }

    private async Task PurgeAsync(CancellationToken cancellation)
    {
        while (true)
        {
            await Task.Delay(PurgeInterval, cancellation);
            try
            {
                await directory.PurgeAsync();
            }
            catch (IOException exception)
            {
                LogNotPurged(exception.Message);
            }
        }
    }

    [LoggerMessage(LogLevel.Information, "the host's nameservers are now: {Servers}")]
    private partial void LogResolvers(string servers);

    [LoggerMessage(LogLevel.Warning, "the networks cannot be brought in line: {Reason}")]
    private partial void LogNotServed(string reason);

    [LoggerMessage(LogLevel.Warning, "leases that ended long ago are still kept: {Reason}")]
    private partial void LogNotPurged(string reason);
}
