using System.Diagnostics.Metrics;
using VNetMesh.Links;
using VNetMesh.Switch.Forwarding;
using VNetMesh.Switch.Registry;

namespace VNetMesh.Switch.Observability;

/// <summary>
/// The switch's metrics, read from the counters when someone collects. Names and attributes follow the style of
/// OpenTelemetry's semantic conventions for network interfaces (hw.network.io, system.network.io).
/// </summary>
public sealed class SwitchMetrics
{
    public const string MeterName = SwitchTelemetry.Name;

    /// <summary>Ports that have series of their own; those that come when there are so many are summed as "other".</summary>
    public const int MaxPortSeries = 200;

    private const string OtherPorts = "other";

    private readonly NetworkRegistry _registry;
    private readonly PortDirectory _ports;
    private readonly ForwardingPlane _plane;
    private readonly HashSet<string> _named = new(StringComparer.Ordinal);
    private readonly Lock _gate = new();

    public SwitchMetrics(IMeterFactory factory, NetworkRegistry registry, PortDirectory ports, ForwardingPlane plane)
    {
        _registry = registry;
        _ports = ports;
        _plane = plane;
        Meter meter = factory.Create(MeterName);
        LoopInstruments.Create(meter, plane.Loops);
        meter.CreateObservableCounter("vnetmesh.switch.port.io", () => OfPorts(c => c.RxBytes, c => c.TxBytes), "By", "Octets of frames at a port; receive is from the port into the switch.");
        meter.CreateObservableCounter("vnetmesh.switch.port.frames", () => OfPorts(c => c.RxFrames, c => c.TxFrames), "{frame}", "Frames at a port; a segment that the kernel left whole counts once.");
        meter.CreateObservableCounter("vnetmesh.switch.port.drops", PortDrops, "{frame}", "Frames dropped at a port, by cause.");
        meter.CreateObservableCounter("vnetmesh.switch.network.io", () => OfNetworks(c => c.RxBytes, c => c.TxBytes), "By", "Octets of frames on a network.");
        meter.CreateObservableCounter("vnetmesh.switch.network.frames", () => OfNetworks(c => c.RxFrames, c => c.TxFrames), "{frame}", "Frames on a network.");
        meter.CreateObservableCounter("vnetmesh.switch.drops", NetworkDrops, "{frame}", "Frames dropped on a network, by cause.");
        meter.CreateObservableCounter("vnetmesh.switch.address_conflicts", () => Forwarders().Select(forwarder => new Measurement<long>(forwarder.Addresses.Count, Tags(forwarder))), "{sign}", "Signs in ARP that two stations of a bridged network have one address.");
        meter.CreateObservableUpDownCounter("vnetmesh.switch.ports", CountPorts, "{port}", "Ports of a network, by state.");
        meter.CreateObservableUpDownCounter("vnetmesh.switch.macs", CountMacs, "{address}", "Addresses learned on a network.");
    }

    private IEnumerable<Measurement<long>> OfPorts(Func<TrafficCounters, long> received, Func<TrafficCounters, long> sent) => Series().SelectMany(series => Both(
        series.Sum(entry => received(entry.Forwarding.Counters)), series.Sum(entry => sent(entry.Forwarding.Counters)), PortTags(series.Key)));

    private IEnumerable<Measurement<long>> OfNetworks(Func<TrafficCounters, long> received, Func<TrafficCounters, long> sent) => Forwarders().SelectMany(forwarder => Both(received(forwarder.Counters), sent(forwarder.Counters), Tags(forwarder)));

    private IEnumerable<Measurement<long>> PortDrops() => Series().SelectMany(series => Drops(cause => series.Sum(entry => entry.Forwarding.Drops(cause)), PortTags(series.Key)));

    // Who has a name keeps it while the port lives: a series that changed its meaning would be worse than none.
    private List<IGrouping<(string Network, string Port), PortEntry>> Series()
    {
        IReadOnlyList<PortEntry> ports = _ports.List();
        lock (_gate)
        {
            _named.IntersectWith(ports.Select(entry => entry.Forwarding.Name));
            foreach (PortEntry entry in ports)
            {
                if (_named.Count < MaxPortSeries)
                    _named.Add(entry.Forwarding.Name);
            }
            return [.. ports.GroupBy(entry => (Id(entry.Info.Network), _named.Contains(entry.Forwarding.Name) ? entry.Info.Id : OtherPorts))];
        }
    }

    private IEnumerable<Measurement<long>> NetworkDrops() => Forwarders().SelectMany(forwarder => Drops(forwarder.Counters.Drops, Tags(forwarder)));

    private IEnumerable<Measurement<long>> CountPorts() => _ports.List()
        .GroupBy(entry => (entry.Info.Network, entry.Info.State))
        .Select(group => new Measurement<long>(group.Count(), new("vnetmesh.network", Id(group.Key.Network)), new("state", group.Key.State.ToString().ToLowerInvariant())));

    private IEnumerable<Measurement<long>> CountMacs() => Forwarders().Select(forwarder => new Measurement<long>(forwarder.MacCount, Tags(forwarder)));

    private IEnumerable<NetworkForwarder> Forwarders() => _registry.List().Select(network => _plane.TryFind(network.Name)).OfType<NetworkForwarder>();

    private static IEnumerable<Measurement<long>> Both(long received, long sent, KeyValuePair<string, object?>[] tags)
    {
        yield return new Measurement<long>(received, [.. tags, new("network.io.direction", "receive")]);
        yield return new Measurement<long>(sent, [.. tags, new("network.io.direction", "transmit")]);
    }

    private static IEnumerable<Measurement<long>> Drops(Func<DropCause, long> drops, KeyValuePair<string, object?>[] tags)
    {
        foreach (DropCause cause in DropCauses.All.ToArray())
        {
            if (drops(cause) is > 0 and long count)
                yield return new Measurement<long>(count, [.. tags, new("cause", DropCauses.NameOf(cause))]);
        }
    }

    private static KeyValuePair<string, object?>[] PortTags((string Network, string Port) key) => [new("vnetmesh.network", key.Network), new("vnetmesh.port", key.Port)];

    private static KeyValuePair<string, object?>[] Tags(NetworkForwarder forwarder) => [new("vnetmesh.network", Id(forwarder.Name))];

    private static string Id(string name) => name[NetworkDefinition.Prefix.Length..];
}
