using Grpc.Core;
using Grpc.Net.Client;
using VNetMesh.Hosting;
using VNetMesh.V1;

namespace VNetMesh.Agent.Rpc;

/// <summary>Runs the reconciler's loop, and tells it what the switch says of its networks and ports.</summary>
public sealed partial class AgentWorker(Reconciler reconciler, SwitchClient fabric, GrpcChannel channel, IHostApplicationLifetime lifetime, ILogger<AgentWorker> logger) : BackgroundService
{
    /// <summary>"1" or "true": SIGTERM gives the host back. Guests stay declared, and are made anew by the next start.</summary>
    private const string ReleaseOnStopVariable = "VNETMESH_RELEASE_ON_STOP";

    private readonly PortService.PortServiceClient _ports = new(channel);

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        try
        {
            await Task.WhenAll(
                Task.Run(() => reconciler.RunAsync(stoppingToken), stoppingToken),
                new NetworkWatcher(channel, logger).RunAsync((networks, cancellation) => reconciler.NetworksAreAsync([.. networks.Select(SwitchClient.Read)], cancellation), stoppingToken),
                WatchPortsForeverAsync(stoppingToken));
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // Stopping.
            if (Environment.GetEnvironmentVariable(ReleaseOnStopVariable) is "1" or "true")
                await reconciler.ReleaseHostAsync();
        }
        catch (Exception exception)
        {
            // Without its loop the agent is of no use: its supervisor starts it again.
            LogLoopFailed(exception);
            Environment.ExitCode = 1;
            lifetime.StopApplication();
        }
    }

    private async Task WatchPortsForeverAsync(CancellationToken cancellation)
    {
        var backoff = new Backoff();
        while (true)
        {
            try
            {
                using AsyncServerStreamingCall<WatchPortsResponse> call = _ports.WatchPorts(new WatchPortsRequest { Parent = "networks/-" }, cancellationToken: cancellation);
                await foreach (WatchPortsResponse response in call.ResponseStream.ReadAllAsync(cancellation))
                {
                    backoff.Reset();
                    await TellAsync(response, cancellation);
                }
            }
            catch (RpcException)
            {
                cancellation.ThrowIfCancellationRequested();
            }
            if (fabric.IsReachable)
                LogAway();
            fabric.IsReachable = false;
            await reconciler.FabricIsAwayAsync(cancellation);
            await Task.Delay(backoff.Next(), cancellation);
        }
    }

    private async Task TellAsync(WatchPortsResponse response, CancellationToken cancellation)
    {
        if (response.EventCase == WatchPortsResponse.EventOneofCase.Snapshot)
        {
            List<Port> ours = [.. response.Snapshot.Ports.Where(port => port.Owner == SwitchClient.Owner)];
            // Reachable from when its ports are taken in, and not earlier: what the last switch had is not to be relied upon.
            await reconciler.PortsAreAsync(Names(ours), Names(ours.Where(port => port.State == PortState.Up)), () => fabric.IsReachable = true, cancellation);
            LogBack(ours.Count);
            return;
        }
        if (response.Change?.Port is not { Owner: SwitchClient.Owner } changed)
            return;
        // WAITING is what a registration brings, and a hand-over follows it.
        if (response.Change.Type == ChangeType.Deleted || changed.State is PortState.Up or PortState.Down)
            await reconciler.PortIsAsync(changed.Name, response.Change.Type != ChangeType.Deleted && changed.State == PortState.Up, cancellation);
    }

    private static HashSet<string> Names(IEnumerable<Port> ports) => [.. ports.Select(port => port.Name)];

    [LoggerMessage(LogLevel.Information, "the switch is there; it has {Ports} ports of the agent")]
    private partial void LogBack(int ports);

    [LoggerMessage(LogLevel.Warning, "the switch is away; devices stay")]
    private partial void LogAway();

    [LoggerMessage(LogLevel.Critical, "the agent's loop failed")]
    private partial void LogLoopFailed(Exception exception);
}
