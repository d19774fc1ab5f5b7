using System.Diagnostics.Metrics;
using VNetMesh.Links;
using VNetMesh.Switch.Forwarding;
using VNetMesh.Switch.Registry;

namespace VNetMesh.Switch.Observability;

/// <summary>Histograms of what single batches met on their way. Written by the networks' loops, of one batch in many.</summary>
public sealed class ForwardingSamples
{
    private readonly Histogram<double> _duration;
    private readonly Histogram<double> _occupancy;

    public ForwardingSamples(IMeterFactory factory)
    {
        Meter meter = factory.Create(SwitchMetrics.MeterName);
        _duration = meter.CreateHistogram("vnetmesh.switch.forward.duration", "s", "From the moment that frames were found waiting until the last of the batch was sent on, of one batch a millisecond at most.", advice: DurationBuckets.Tiny);
        _occupancy = meter.CreateHistogram("vnetmesh.switch.queue.occupancy", "1", "Share of the octets of a ring, or of a stream's queue, that were in use as a batch was forwarded, of one batch a millisecond at most.",
            advice: new InstrumentAdvice<double> { HistogramBucketBoundaries = [0.0001, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99] });
    }

    public bool IsOn => _duration.Enabled || _occupancy.Enabled;

    /// <summary>For one network; on its loop's thread from then on.</summary>
    internal ForwardingSampler For(string network) => new(_duration, _occupancy, network[NetworkDefinition.Prefix.Length..], this);
}

/// <summary>Chooses which batches of a network are measured: by time, so that a busy network pays no more than a quiet one.</summary>
internal sealed class ForwardingSampler(Histogram<double> duration, Histogram<double> occupancy, string network, ForwardingSamples samples)
{
    /// <summary>Microseconds from one measured batch to the next, at least.</summary>
    internal const long Interval = 1000;

    private readonly KeyValuePair<string, object?> _network = new("vnetmesh.network", network);
    private readonly KeyValuePair<string, object?> _incoming = new("network.io.direction", "receive");
    private readonly KeyValuePair<string, object?> _outgoing = new("network.io.direction", "transmit");
    private long _next = long.MinValue;
    private LinkOccupancy? _ingress;

    /// <summary>Whether the batch that begins now is to be measured; remembers how much waits.</summary>
    public bool Begin(IFrameLink? ingress, long now)
    {
        if (now < _next || !samples.IsOn)
            return false;
        _ingress = ingress?.Occupancy;
        return true;
    }

    /// <param name="written">Ports whose links got something, or were read from.</param>
    /// <param name="ingress">The port that the batch came from.</param>
    public void Fill(List<ForwardingPort> written, ForwardingPort ingress)
    {
        if (_ingress is { } waiting)
            occupancy.Record(waiting.Incoming, _network, _incoming);
        foreach (ForwardingPort port in written)
        {
            if (port != ingress && port.Link?.Occupancy is { } filled)
                occupancy.Record(filled.Outgoing, _network, _outgoing);
        }
    }

    /// <param name="began">When the batch was found, in microseconds of the loop's clock.</param>
    /// <param name="ended">When the last of it was sent and its receivers were woken.</param>
    public void End(long began, long ended)
    {
        _next = ended + Interval;
        duration.Record((ended - began) / 1e6, _network);
    }
}
