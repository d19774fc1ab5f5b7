using System.Diagnostics.Metrics;

namespace VNetMesh.Links;

/// <summary>The health of event loops, as instruments of a service's meter: read when someone collects, nothing between.</summary>
public static class LoopInstruments
{
    public static void Create(Meter meter, IReadOnlyCollection<EventLoop> loops)
    {
        meter.CreateObservableCounter("vnetmesh.loop.turns", () => Of(loops, loop => loop.Turns), "{turn}", "Times that an event loop went around.");
        meter.CreateObservableCounter("vnetmesh.loop.busy", () => Of(loops, loop => loop.Busy / 1e6), "s", "Time that an event loop was at work, not asleep; its rate is its load.");
        meter.CreateObservableUpDownCounter("vnetmesh.loop.queue", () => Of(loops, loop => loop.Queued), "{action}", "What other threads have asked of an event loop and it has not done yet.");
        meter.CreateObservableGauge("vnetmesh.loop.turn.longest", () => Of(loops, loop => loop.TakeLongestTurn() / 1e6), "s", "The longest turn of an event loop since this was read last: how long a frame may have waited for the thread.");
    }

    private static IEnumerable<Measurement<T>> Of<T>(IReadOnlyCollection<EventLoop> loops, Func<EventLoop, T> value)
        where T : struct => loops.Select(loop => new Measurement<T>(value(loop), new KeyValuePair<string, object?>("vnetmesh.loop", loop.Name)));
}
