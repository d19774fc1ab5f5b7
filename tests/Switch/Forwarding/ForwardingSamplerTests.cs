using System.Diagnostics.Metrics;
using Microsoft.Extensions.DependencyInjection;
using VNetMesh.Links;
using VNetMesh.Switch.Forwarding;
using VNetMesh.Switch.Observability;
using VNetMesh.Switch.Registry;
using VNetMesh.Switch.Tests.Support;

namespace VNetMesh.Switch.Tests.Forwarding;

/// <summary>Some batches are measured: at most one a millisecond, and none that carried nothing.</summary>
public sealed class ForwardingSamplerTests : IDisposable
{
    private readonly ServiceProvider _services = new ServiceCollection().AddMetrics().BuildServiceProvider();
    private readonly MeterListener _listener = new();
    private readonly List<(string Name, double Value, string Tags)> _measured = [];
    private readonly NetworkForwarder _forwarder;
    private readonly ForwardingPort _a;
    private readonly FakeLink _linkA = new() { Occupancy = new LinkOccupancy(0.25, 0) };
    private readonly FakeLink _linkB = new() { Occupancy = new LinkOccupancy(0, 0.5) };

    public ForwardingSamplerTests()
    {
        var factory = _services.GetRequiredService<IMeterFactory>();
        _listener.InstrumentPublished = (instrument, listener) =>
        {
            if (instrument.Meter.Scope == factory)
                listener.EnableMeasurementEvents(instrument);
        };
        _listener.SetMeasurementEventCallback<double>((instrument, value, tags, _) => _measured.Add((instrument.Name, value, string.Join(' ', tags.ToArray().Select(tag => tag.Value)))));
        _listener.Start();
        _forwarder = new NetworkForwarder("networks/test", new ForwardingSettings(1500, 300_000_000, 64, 8, false), loop: null, new Deaf(), new ForwardingSamples(factory).For("networks/test"));
        _a = Plug("a", _linkA);
        Plug("b", _linkB);
    }

    public void Dispose()
    {
        _listener.Dispose();
        _services.Dispose();
    }

    [Fact]
    public void A_batch_tells_how_long_it_took_and_how_full_the_queues_were()
    {
        Serve(EventLoop.Now);
        Assert.Equal([("vnetmesh.switch.queue.occupancy", 0.25, "test receive"), ("vnetmesh.switch.queue.occupancy", 0.5, "test transmit")], _measured.Take(2));
        (string name, double seconds, string tags) = Assert.Single(_measured.Skip(2));
        Assert.Equal(("vnetmesh.switch.forward.duration", "test"), (name, tags));
        Assert.InRange(seconds, 0, 1);
    }

    [Fact]
    public void Batches_that_follow_at_once_are_not_measured()
    {
        long now = EventLoop.Now;
        Serve(now);
        Serve(now + 1);
        Assert.Equal(3, _measured.Count);
        Serve(EventLoop.Now + (2 * ForwardingSampler.Interval));
        Assert.Equal(6, _measured.Count);
    }

    [Fact]
    public void A_batch_without_frames_is_not_measured()
    {
        _forwarder.Serve(_a, EventLoop.Now);
        Assert.Empty(_measured);
    }

    private void Serve(long now)
    {
        _linkA.Inbox.Enqueue(Frames.Record(Frames.B, Frames.A));
        _forwarder.Serve(_a, now);
    }

    private ForwardingPort Plug(string id, IFrameLink link)
    {
        ForwardingPort port = _forwarder.CreatePort("networks/test/ports/" + id, PortRole.Guest);
        _forwarder.AddPort(port);
        _forwarder.Connect(port, link, 1, null);
        return port;
    }

    private sealed class Deaf : ILinkObserver
    {
        public void OnLinkLost(ForwardingPort port, long connection, string reason)
        {
        }
    }
}
