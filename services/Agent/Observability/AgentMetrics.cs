using System.Diagnostics.Metrics;
using VNetMesh.Links;

namespace VNetMesh.Agent.Observability;

/// <summary>The agent's instruments.</summary>
public sealed class AgentMetrics
{
    public const string MeterName = AgentTelemetry.Name;

    private readonly Counter<long> _handoffs;
    private readonly Counter<long> _clientStarts;
    private readonly Histogram<double> _passes;
    private readonly Histogram<double> _addressing;
    private volatile Counts _counts = new(0, 0, 0, 0);

    public AgentMetrics(IMeterFactory meters)
    {
        Meter meter = meters.Create(MeterName);
        _handoffs = meter.CreateCounter<long>("vnetmesh.agent.handoffs", "{handoff}", "Devices handed to the switch, by outcome.");
        _clientStarts = meter.CreateCounter<long>("vnetmesh.agent.dhcp_client.starts", "{start}", "DHCP clients started in guests.");
        _passes = meter.CreateHistogram("vnetmesh.agent.reconcile.duration", "s", "Time that it took to bring the host in line.", advice: DurationBuckets.Long);
        _addressing = meter.CreateHistogram("vnetmesh.agent.guest.addressing.duration", "s", "Time from a DHCP client's start to the guest's first address.", advice: DurationBuckets.Long);
        meter.CreateObservableGauge("vnetmesh.agent.guests", () => (IEnumerable<Measurement<long>>)[
            new(_counts.Ready, new KeyValuePair<string, object?>("state", "ready")),
            new(_counts.NotReady, new KeyValuePair<string, object?>("state", "not_ready"))], "{guest}", "Guests, by state.");
        meter.CreateObservableGauge("vnetmesh.agent.devices", () => _counts.Devices, "{device}", "Devices that the agent owns.");
        meter.CreateObservableGauge("vnetmesh.agent.host_changes", () => _counts.Changes, "{change}", "Changes of the host that are not undone.");
    }

    public void HandedOver(bool succeeded) => _handoffs.Add(1, new KeyValuePair<string, object?>("outcome", succeeded ? "ok" : "failed"));

    public void ClientStarted() => _clientStarts.Add(1);

    public void Reconciled(TimeSpan duration) => _passes.Record(duration.TotalSeconds);

    public void Addressed(TimeSpan duration) => _addressing.Record(duration.TotalSeconds);

    public void Count(int ready, int notReady, int devices, int changes) => _counts = new Counts(ready, notReady, devices, changes);

    private sealed record Counts(int Ready, int NotReady, int Devices, int Changes);
}
