using System.Threading.Channels;
using Grpc.Core;
using Grpc.Net.Client;
using Microsoft.Extensions.Logging;
using VNetMesh.V1;

namespace VNetMesh.Hosting;

/// <summary>
/// Tells a service which networks there are. It is level-triggered: each call gets the whole list as it is now, changes
/// that come while one is handled are put together into the next, and a call that failed is made again.
///
/// While the switch is away nothing is told: the last list stands, and so does what was built from it. The watch is
/// taken up where it ended, or begun anew with a snapshot where the switch cannot do that.
/// </summary>
public sealed partial class NetworkWatcher(GrpcChannel switchChannel, ILogger logger)
{
    private readonly NetworkService.NetworkServiceClient _client = new(switchChannel);
    private readonly Dictionary<string, Network> _networks = new(StringComparer.Ordinal);
    private readonly Channel<bool> _changed = Channel.CreateBounded<bool>(new BoundedChannelOptions(1) { FullMode = BoundedChannelFullMode.DropWrite });
    private readonly Lock _gate = new();
    private string _resumeToken = "";

    /// <summary>
    /// Watches until cancelled, and then returns. To be called once.
    /// </summary>
    /// <param name="onNetworks">
    /// Called with all networks, ordered by name, first when the switch has answered and then after every change; never
    /// twice at a time. When it throws, it is called again after 50 ms to 1 s.
    /// </param>
    public async Task RunAsync(Func<IReadOnlyList<Network>, CancellationToken, Task> onNetworks, CancellationToken cancellation)
    {
        using var both = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        Task watch = WatchForeverAsync(both.Token);
        Task tell = TellForeverAsync(onNetworks, both.Token);
        await Task.WhenAny(watch, tell).ConfigureAwait(false);
        await both.CancelAsync().ConfigureAwait(false);
        try
        {
            await Task.WhenAll(watch, tell).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
        }
    }

    private async Task WatchForeverAsync(CancellationToken cancellation)
    {
        var backoff = new Backoff();
        string lastFailure = "";
        while (true)
        {
            bool heard = false, away = false;
            try
            {
                using AsyncServerStreamingCall<WatchNetworksResponse> call = _client.WatchNetworks(new WatchNetworksRequest { ResumeToken = _resumeToken }, cancellationToken: cancellation);
                await foreach (WatchNetworksResponse response in call.ResponseStream.ReadAllAsync(cancellation).ConfigureAwait(false))
                {
                    if (!heard)
                        LogWatching();
                    heard = true;
                    lastFailure = "";
                    backoff.Reset();
                    Apply(response);
                }
                LogEnded("the switch ended the watch");
            }
            catch (Exception exception) when (exception is RpcException or OperationCanceledException or InvalidOperationException)
            {
                cancellation.ThrowIfCancellationRequested();
                away = exception is RpcException { StatusCode: StatusCode.Unavailable };
                string failure = exception is RpcException rpc ? rpc.Status.Detail : exception.Message;
                if (failure != lastFailure)
                    LogEnded(failure);
                lastFailure = failure;
            }
            // A place to resume at that a switch, being there, answers with nothing may itself be what is wrong.
            if (!heard && !away)
                _resumeToken = "";
            await Task.Delay(backoff.Next(), cancellation).ConfigureAwait(false);
        }
    }

    private void Apply(WatchNetworksResponse response)
    {
        lock (_gate)
        {
            switch (response.EventCase)
            {
                case WatchNetworksResponse.EventOneofCase.Snapshot:
                    _networks.Clear();
                    foreach (Network network in response.Snapshot.Networks)
                        _networks[network.Name] = network;
                    break;
                case WatchNetworksResponse.EventOneofCase.Change when response.Change.Network is { } network:
                    if (response.Change.Type == ChangeType.Deleted)
                        _networks.Remove(network.Name);
                    else
                        _networks[network.Name] = network;
                    break;
                default:
                    return;
            }
            _resumeToken = response.ResumeToken;
        }
        _changed.Writer.TryWrite(true);
    }

    private async Task TellForeverAsync(Func<IReadOnlyList<Network>, CancellationToken, Task> onNetworks, CancellationToken cancellation)
    {
        var backoff = new Backoff();
        while (true)
        {
            await _changed.Reader.ReadAsync(cancellation).ConfigureAwait(false);
            Network[] networks;
            lock (_gate)
                networks = [.. _networks.Values.OrderBy(network => network.Name, StringComparer.Ordinal)];
            try
            {
                await onNetworks(networks, cancellation).ConfigureAwait(false);
                backoff.Reset();
            }
            catch (Exception exception)
            {
                cancellation.ThrowIfCancellationRequested();
                LogNotTaken(exception);
                _changed.Writer.TryWrite(true);
                await Task.Delay(backoff.Next(), cancellation).ConfigureAwait(false);
            }
        }
    }

    [LoggerMessage(LogLevel.Information, "watching the switch's networks")]
    private partial void LogWatching();

    [LoggerMessage(LogLevel.Warning, "not watching the switch's networks, trying again: {Reason}")]
    private partial void LogEnded(string reason);

    [LoggerMessage(LogLevel.Error, "the networks could not be brought in line, trying again")]
    private partial void LogNotTaken(Exception exception);
}
