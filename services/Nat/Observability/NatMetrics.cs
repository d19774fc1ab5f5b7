using System.Collections.Concurrent;
using System.Diagnostics;
using System.Diagnostics.Metrics;
using VNetMesh.Links;
using VNetMesh.Nat.Flows;
using VNetMesh.Nat.Gateways;

namespace VNetMesh.Nat.Observability;

/// <summary>nat's instruments. Counts that the loop keeps anyway are read when they are asked for.</summary>
public sealed class NatMetrics : IDisposable
{
    public const string MeterName = "VNetMesh.Nat";

    private static readonly string[] ProtocolNames = ["tcp", "udp", "icmp"];

    private readonly Meter _meter;
    private readonly ConcurrentDictionary<string, Gateway> _gateways = new(StringComparer.Ordinal);
    private readonly Counter<long> _flowsEnded;
    private readonly Histogram<double> _flowDuration;
    private readonly Histogram<double> _dialDuration;
    private readonly Histogram<double> _firstByte;
    private readonly Counter<long> _flowOctets;
    private readonly Histogram<double> _dnsDuration;

    public NatMetrics(IMeterFactory factory)
    {
        _meter = factory.Create(MeterName);
        _flowsEnded = _meter.CreateCounter<long>("vnetmesh.nat.flows.ended", "{flow}", "Flows that ended, by protocol and reason.");
        _flowDuration = _meter.CreateHistogram("vnetmesh.nat.flow.duration", "s", "How long flows lived.", advice: DurationBuckets.Lifetime);
        _dialDuration = _meter.CreateHistogram("vnetmesh.nat.dial.duration", "s", "How long the host's connects took, by result.", advice: DurationBuckets.Long);
        _firstByte = _meter.CreateHistogram("vnetmesh.nat.first_byte.duration", "s", "From a guest's first segment until the remote's first octet had come, of flows that ended.", advice: DurationBuckets.Long);
        _flowOctets = _meter.CreateCounter<long>("vnetmesh.nat.flow.io", "By", "Payload of flows that ended, by direction.");
        _dnsDuration = _meter.CreateHistogram("vnetmesh.nat.dns.duration", "s", "How long guests waited for the DNS proxy's answer, by outcome.", advice: DurationBuckets.Long);
        _meter.CreateObservableCounter("vnetmesh.nat.flows.begun", ObserveBegun, "{flow}", "Flows that began, by network and protocol.");
        _meter.CreateObservableCounter("vnetmesh.nat.retransmits", ObserveRetransmits, "{segment}", "TCP segments sent to guests again, by network.");
        _meter.CreateObservableCounter("vnetmesh.nat.guest.io", ObserveGuests, "By", "Payload of flows as it moves, by guest; transmit is from the guest to the outside.");
        _meter.CreateObservableUpDownCounter("vnetmesh.nat.flows", ObserveFlows, "{flow}", "Flows alive, by network and protocol.");
        _meter.CreateObservableCounter("vnetmesh.nat.drops", ObserveDrops, "{packet}", "What nat did not act on, by network and cause.");
        _meter.CreateObservableUpDownCounter("vnetmesh.nat.link.up", ObserveLinks, "{link}", "1 while the gateway's port on the switch is connected.");
    }

    /// <summary>Tells of the health of the loop as well.</summary>
    public void Watch(EventLoop loop) => LoopInstruments.Create(_meter, [loop]);

    internal void Add(Gateway gateway) => _gateways[gateway.Settings.NetworkId] = gateway;

    internal void Remove(Gateway gateway) => _gateways.TryRemove(new KeyValuePair<string, Gateway>(gateway.Settings.NetworkId, gateway));

    public void FlowEnded(string network, Flow flow, long now)
    {
        string protocol = ProtocolNames[(int)flow.Protocol];
        if (_flowsEnded.Enabled)
        {
            _flowsEnded.Add(1, new("vnetmesh.network", network), new("network.transport", protocol), new("reason", flow.EndReason));
        }
        if (_flowDuration.Enabled)
            _flowDuration.Record((now - flow.Started) / 1e6, new("vnetmesh.network", network), new("network.transport", protocol));
        if (_firstByte.Enabled && flow.Story.TimeOf(FlowMoment.FirstByteFromRemote) is > 0 and long first)
            _firstByte.Record((first - flow.Started) / 1e6, new("vnetmesh.network", network), new("network.transport", protocol));
        if (_flowOctets.Enabled)
        {
            _flowOctets.Add((long)flow.BytesToRemote, new("vnetmesh.network", network), new("network.io.direction", "transmit"));
            _flowOctets.Add((long)flow.BytesToGuest, new("vnetmesh.network", network), new("network.io.direction", "receive"));
        }
    }

    /// <param name="result">"connected", or why not.</param>
    public void Dialled(string network, string result, long microseconds)
    {
        if (_dialDuration.Enabled)
            _dialDuration.Record(microseconds / 1e6, new("vnetmesh.network", network), new("result", result));
    }

    public void DnsAnswered(string network, string outcome, long microseconds)
    {
        if (_dnsDuration.Enabled)
            _dnsDuration.Record(microseconds / 1e6, new("vnetmesh.network", network), new("result", outcome));
    }

    public void Dispose() => _meter.Dispose();

    private IEnumerable<Measurement<long>> ObserveFlows() =>
        from gateway in _gateways.Values
        from protocol in Enum.GetValues<FlowProtocol>()
        select new Measurement<long>(gateway.Flows.CountOf(protocol), new TagList { { "vnetmesh.network", gateway.Settings.NetworkId }, { "network.transport", ProtocolNames[(int)protocol] } });

    private IEnumerable<Measurement<long>> ObserveBegun() =>
        from gateway in _gateways.Values
        from protocol in Enum.GetValues<FlowProtocol>()
        select new Measurement<long>(gateway.Flows.BegunOf(protocol), new TagList { { "vnetmesh.network", gateway.Settings.NetworkId }, { "network.transport", ProtocolNames[(int)protocol] } });

    private IEnumerable<Measurement<long>> ObserveRetransmits() =>
        from gateway in _gateways.Values
        select new Measurement<long>(gateway.Flows.Retransmits, new TagList { { "vnetmesh.network", gateway.Settings.NetworkId } });

    private IEnumerable<Measurement<long>> ObserveGuests() =>
        from gateway in _gateways.Values
        from talker in gateway.Flows.Talkers.List()
        from way in talker.Ways
        select new Measurement<long>(way.Octets, new TagList { { "vnetmesh.network", gateway.Settings.NetworkId }, { "vnetmesh.guest.address", talker.Name }, { "network.io.direction", way.Direction } });

    private IEnumerable<Measurement<long>> ObserveDrops() =>
        from gateway in _gateways.Values
        from drop in gateway.Drops.Seen()
        select new Measurement<long>((long)drop.Value, new TagList { { "vnetmesh.network", gateway.Settings.NetworkId }, { "cause", drop.Key } });

    private IEnumerable<Measurement<int>> ObserveLinks() =>
        from gateway in _gateways.Values
        select new Measurement<int>(gateway.IsLinkUp ? 1 : 0, new TagList { { "vnetmesh.network", gateway.Settings.NetworkId } });
}
