using System.Collections.Concurrent;
using System.Diagnostics.Metrics;
using VNetMesh.Dhcp.Leases;
using VNetMesh.Links;

namespace VNetMesh.Dhcp.Observability;

/// <summary>What the metrics read of a network's server, from any thread.</summary>
public interface IObservedServer
{
    /// <summary>The network's id, e.g. "vmnet8".</summary>
    string NetworkId { get; }

    DhcpCounters Counters { get; }

    LeaseTable Table { get; }

    bool IsLinkUp { get; }

    /// <summary>Addresses in the range.</summary>
    long PoolSize { get; }
}

/// <summary>dhcp's instruments. Counts that the loop keeps anyway are read when they are asked for.</summary>
public sealed class DhcpMetrics : IDisposable
{
    public const string MeterName = DhcpTelemetry.Name;

    private readonly Meter _meter;
    private readonly ConcurrentDictionary<string, IObservedServer> _servers = new(StringComparer.Ordinal);
    private readonly Histogram<double> _answerTime;
    private readonly Histogram<double> _commitTime;

    public DhcpMetrics(IMeterFactory factory)
    {
        _meter = factory.Create(MeterName);
        _answerTime = _meter.CreateHistogram("vnetmesh.dhcp.answer.duration", "s", "From a client's message to its answer, by the answer's type; probe and disk included.", advice: DurationBuckets.Short);
        _commitTime = _meter.CreateHistogram("vnetmesh.dhcp.commit.duration", "s", "From the decision to grant a lease until it was on disk, or the disk had failed.", advice: DurationBuckets.Short);
        _meter.CreateObservableCounter("vnetmesh.dhcp.messages", Messages, "{message}", "DHCP messages received and sent, by network and type.");
        _meter.CreateObservableCounter("vnetmesh.dhcp.drops", Drops, "{packet}", "What dhcp did not act on, or could not answer, by network and cause.");
        _meter.CreateObservableUpDownCounter("vnetmesh.dhcp.leases", Leases, "{lease}", "Addresses in use, by network and state.");
        _meter.CreateObservableUpDownCounter("vnetmesh.dhcp.pool.size", () => Read(server => server.PoolSize), "{address}", "Addresses in the range of a network.");
        _meter.CreateObservableUpDownCounter("vnetmesh.dhcp.link.up", () => Read(server => server.IsLinkUp ? 1 : 0), "{link}", "1 while the server's port on the switch is connected.");
    }

    /// <summary>Tells of the health of the loop as well.</summary>
    public void Watch(EventLoop loop) => LoopInstruments.Create(_meter, [loop]);

    public void Add(IObservedServer server) => _servers[server.NetworkId] = server;

    public void Remove(IObservedServer server) => _servers.TryRemove(new KeyValuePair<string, IObservedServer>(server.NetworkId, server));

    public void Answered(string networkId, string type, TimeSpan took)
    {
        if (_answerTime.Enabled)
            _answerTime.Record(took.TotalSeconds, new("vnetmesh.network", networkId), new("dhcp.message.type", type));
    }

    public void Committed(string networkId, bool succeeded, TimeSpan took)
    {
        if (_commitTime.Enabled)
            _commitTime.Record(took.TotalSeconds, new("vnetmesh.network", networkId), new("result", succeeded ? "ok" : "failed"));
    }

    public void Dispose() => _meter.Dispose();

    private IEnumerable<Measurement<long>> Messages() => _servers.Values.SelectMany(server => server.Counters.Messages()
        .Select(entry => new Measurement<long>(entry.Count, new("vnetmesh.network", server.NetworkId), new("dhcp.message.type", entry.Type))));

    private IEnumerable<Measurement<long>> Drops() => _servers.Values.SelectMany(server => server.Counters.Drops()
        .Select(entry => new Measurement<long>(entry.Count, new("vnetmesh.network", server.NetworkId), new("cause", entry.Cause))));

    private IEnumerable<Measurement<long>> Leases() => _servers.Values.SelectMany(server => new[] { ("bound", server.Table.Bound), ("offered", server.Table.Offered), ("declined", server.Table.Declined) }
        .Select(entry => new Measurement<long>(entry.Item2, new("vnetmesh.network", server.NetworkId), new("state", entry.Item1))));

    private IEnumerable<Measurement<long>> Read(Func<IObservedServer, long> value) =>
        _servers.Values.Select(server => new Measurement<long>(value(server), new KeyValuePair<string, object?>("vnetmesh.network", server.NetworkId)));
}
