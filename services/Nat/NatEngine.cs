using System.Collections.Concurrent;
using VNetMesh.Links;
using VNetMesh.Nat.Flows;
using VNetMesh.Nat.Forwards;
using VNetMesh.Nat.Gateways;
using VNetMesh.Packets;

namespace VNetMesh.Nat;

/// <summary>Keeps a gateway's port on the switch connected until cancelled, telling the gateway of each link.</summary>
public delegate Task ConnectPort(Gateway gateway, CancellationToken cancellation);

/// <summary>
/// The gateways of this process, one for each NAT network, brought in line with what the switch's registry says. Here the
/// asynchronous world ends: what is asked of a gateway is asked on its loop's thread.
/// </summary>
public sealed partial class NatEngine : IAsyncDisposable
{
    private readonly NatShared _shared;
    private readonly ConnectPort _connect;
    private readonly ForwardStore _store;
    private readonly ConcurrentDictionary<string, Served> _served = new(StringComparer.Ordinal);
    private readonly ILogger _logger;
    private readonly SemaphoreSlim _gate = new(1);
    private List<ForwardRule> _rules = [];

    public NatEngine(NatShared shared, ForwardStore store, ConnectPort connect)
    {
        _shared = shared;
        _logger = shared.Logger;
        _store = store;
        _connect = connect;
    }

    public NatLimits Limits => _shared.Limits;

    public FlowHub Hub => _shared.Hub;

    /// <summary>
    /// Reads the stored forwards. Before the first <see cref="ReconcileAsync"/>. A file that cannot be understood is set aside, so that
    /// the guests' network does not depend on it.
    /// </summary>
    public void Load()
    {
        try
        {
            _rules = _store.Load();
        }
        catch (IOException exception)
        {
            LogSetAside(_store.SetAside(), exception.Message);
        }
    }

    /// <summary>Opens gateways that are missing, closes those whose network is gone, and builds anew those whose network changed.</summary>
    /// <param name="existing">Names of all networks that there are, where they are known: forwards of others are forgotten.</param>
    /// <exception cref="IOException">Forwards could not be forgotten; all else is done.</exception>
    public async Task ReconcileAsync(IReadOnlyCollection<GatewaySettings> wanted, IReadOnlySet<string>? existing = null)
    {
        await _gate.WaitAsync();
        try
        {
            var byNetwork = wanted.ToDictionary(settings => settings.Network, StringComparer.Ordinal);
            foreach ((string network, Served served) in _served)
            {
                if (!byNetwork.TryGetValue(network, out GatewaySettings? settings))
                    await CloseAsync(network, served, "network_deleted");
                else if (settings != served.Gateway.Settings)
                    await CloseAsync(network, served, "network_changed");
            }
            foreach (GatewaySettings settings in wanted)
            {
                if (!_served.ContainsKey(settings.Network))
                    await OpenAsync(settings);
            }
            if (existing is not null)
                ForgetForwards(existing);
        }
        finally
        {
            _gate.Release();
        }
    }

    /// <summary>Runs a function for a network's gateway on the loop's thread; the default where nat does not serve it.</summary>
    public Task<T?> AskAsync<T>(string network, Func<Gateway, T> function) =>
        _served.TryGetValue(network, out Served? served) ? _shared.Loop.InvokeAsync(() => (T?)function(served.Gateway)) : Task.FromResult<T?>(default);

    /// <summary>Runs a function for each gateway in one go, on the loop's thread; in the order of the networks' names.</summary>
    public Task<List<T>> AskAllAsync<T>(Func<Gateway, T> function)
    {
        Gateway[] gateways = [.. _served.Values.Select(served => served.Gateway).OrderBy(gateway => gateway.Settings.Network, StringComparer.Ordinal)];
        return _shared.Loop.InvokeAsync(() => gateways.Select(function).ToList());
    }

    public bool Serves(string network) => _served.ContainsKey(network);

    public GatewaySettings? SettingsOf(string network) => _served.TryGetValue(network, out Served? served) ? served.Gateway.Settings : null;

    /// <summary>Addresses of the host's resolvers, as now in use.</summary>
    public Task<List<string>> ResolversAsync() =>
        _shared.Loop.InvokeAsync(() => _shared.Resolvers.Current(EventLoop.Now).Select(server => server.Port == 53 ? server.Address.ToString() : server.ToString()).ToList());

    /// <summary>All forwards, in the order of network and id, those of networks that are not there included.</summary>
    public async Task<List<ForwardStatus>> ForwardsAsync()
    {
        ForwardRule[] rules = [.. _rules.OrderBy(rule => rule.Network, StringComparer.Ordinal).ThenBy(rule => rule.Id, StringComparer.Ordinal)];
        var list = new List<ForwardStatus>(rules.Length);
        foreach (ForwardRule rule in rules)
        {
            ForwardStatus? status = await AskAsync(rule.Network, gateway => gateway.Forwards.Status(rule.Id));
            list.Add(status ?? new ForwardStatus(rule, Listening: false, $"{rule.Network} is not a NAT network now"));
        }
        return list;
    }

    /// <summary>Begins to listen, and keeps the rule. When it returns, both are done.</summary>
    /// <returns>Null: nat does not serve the network. Otherwise the rule as it is at work.</returns>
    /// <exception cref="ListenRefusedException">The host refused; nothing was kept.</exception>
    /// <exception cref="IOException">The rule could not be stored; it does not listen.</exception>
    /// <exception cref="InvalidOperationException">There is one of that id.</exception>
    public async Task<ForwardStatus?> AddForwardAsync(ForwardRule rule)
    {
        await _gate.WaitAsync();
        try
        {
            if (!Serves(rule.Network))
                return null;
            if (_rules.Exists(other => other.Network == rule.Network && other.Id == rule.Id))
                throw new InvalidOperationException("the forward exists");
            await AskAsync(rule.Network, gateway =>
            {
                gateway.Forwards.Add(rule, mustListen: true);
                return true;
            });
            try
            {
                _store.Save([.. _rules, rule]);
            }
            catch
            {
                await RemoveListenerAsync(rule);
                throw;
            }
            _rules = [.. _rules, rule];
            return new ForwardStatus(rule, Listening: true, "");
        }
        finally
        {
            _gate.Release();
        }
    }

    /// <returns>False: there is none.</returns>
    /// <exception cref="IOException">The change could not be stored; the forward is still there.</exception>
    public async Task<bool> RemoveForwardAsync(string network, string id)
    {
        await _gate.WaitAsync();
        try
        {
            if (_rules.Find(rule => rule.Network == network && rule.Id == id) is not { } found)
                return false;
            List<ForwardRule> left = [.. _rules.Where(rule => rule != found)];
            _store.Save(left);
            _rules = left;
            await RemoveListenerAsync(found);
            return true;
        }
        finally
        {
            _gate.Release();
        }
    }

    /// <summary>Closes every gateway.</summary>
    public async ValueTask DisposeAsync()
    {
        await _gate.WaitAsync();
        foreach ((string network, Served served) in _served)
            await CloseAsync(network, served, "nat_stopped");
        _gate.Dispose();
    }

    private void ForgetForwards(IReadOnlySet<string> existing)
    {
        List<ForwardRule> left = [.. _rules.Where(rule => existing.Contains(rule.Network))];
        if (left.Count == _rules.Count)
            return;
        _store.Save(left);
        LogForgot(_rules.Count - left.Count);
        _rules = left;
    }

    private async Task OpenAsync(GatewaySettings settings)
    {
        var gateway = new Gateway(settings, _shared);
        ForwardRule[] rules = [.. _rules.Where(rule => rule.Network == settings.Network)];
        await _shared.Loop.InvokeAsync(() =>
        {
            gateway.Open();
            foreach (ForwardRule rule in rules)
                gateway.Forwards.Add(rule, mustListen: false);
            return true;
        });
        var stop = new CancellationTokenSource();
        _served[settings.Network] = new Served(gateway, stop, Task.Run(() => _connect(gateway, stop.Token)));
        LogOpened(settings.Network, settings.Address, settings.Subnet);
    }

    private async Task CloseAsync(string network, Served served, string reason)
    {
        // The flows end while the link is still there, so that guests hear of it.
        await _shared.Loop.InvokeAsync(() =>
        {
            served.Gateway.Close(reason);
            return true;
        });
        await served.Stop.CancelAsync();
        try
        {
            await served.Connection;
        }
        catch (OperationCanceledException)
        {
        }
        served.Stop.Dispose();
        _served.TryRemove(network, out _);
        LogClosed(network, reason);
    }

    private Task<bool> RemoveListenerAsync(ForwardRule rule) => AskAsync(rule.Network, gateway =>
    {
        gateway.Forwards.Remove(rule.Id);
        return true;
    });

    private ILogger Logger => _shared.Logger;

    [LoggerMessage(LogLevel.Information, "{Network}: gateway {Address} for {Subnet}")]
    private partial void LogOpened(string network, Ipv4Address address, Ipv4Subnet subnet);

    [LoggerMessage(LogLevel.Error, "the stored forwards were set aside as {Path}, none is at work: {Reason}")]
    private partial void LogSetAside(string path, string reason);

    [LoggerMessage(LogLevel.Information, "forgot {Count} forwards of networks that are gone")]
    private partial void LogForgot(int count);

    [LoggerMessage(LogLevel.Information, "{Network}: gateway closed ({Reason})")]
    private partial void LogClosed(string network, string reason);

    private sealed record Served(Gateway Gateway, CancellationTokenSource Stop, Task Connection);
}
