using System.Diagnostics;
using VNetMesh.Dhcp.Protocol;
using VNetMesh.Links;

namespace VNetMesh.Dhcp.Observability;

/// <summary>
/// One trace for each exchange, known by its transaction id and client: a span for every message from the client (how long
/// deciding took, what was decided and why) and one for every answer (probe and disk included), under a root that ends with
/// the answer to REQUEST. Nothing is kept while nobody listens. Bounded; one thread.
/// </summary>
public sealed class ExchangeTraces(string network, TimeProvider time)
{
    private const int MaxExchanges = 256;
    private static readonly TimeSpan MaxTime = TimeSpan.FromSeconds(10);

    private readonly Dictionary<(uint Transaction, ClientKey Client), Exchange> _exchanges = [];

    /// <summary>Exchanges that have not ended.</summary>
    public int Count => _exchanges.Count;

    /// <summary>A message was decided about.</summary>
    public void Decided(Decision decision, in TraceContext trace)
    {
        if (!DhcpTelemetry.Source.HasListeners())
            return;
        DhcpMessage message = decision.Message;
        Exchange? exchange = Find(message) ?? Begin(message, trace);
        if (exchange is null)
            return;
        DateTimeOffset arrived = time.GetUtcNow() - TimeSpan.FromMicroseconds(Math.Max(0, EventLoop.Now - message.Arrived));
        using (Activity? span = Start(exchange, NameOf((byte)message.Type), ActivityKind.Server, arrived))
            Describe(span, decision);
        Activity.Current = null;
        switch (decision.Kind)
        {
            case DecisionKind.Probe:
                exchange.Answer?.Stop();
                exchange.Answer = Start(exchange, "offer", ActivityKind.Producer, time.GetUtcNow());
                exchange.Answer?.AddEvent(new ActivityEvent("probe", time.GetUtcNow(), new ActivityTagsCollection { ["dhcp.address"] = decision.Address.ToString() }));
                break;
            case DecisionKind.Ack:
                exchange.Answer?.Stop();
                exchange.Answer = Start(exchange, "ack", ActivityKind.Producer, time.GetUtcNow());
                break;
            case DecisionKind.Drop or DecisionKind.Release or DecisionKind.Decline:
                End(message, exchange, decision.Cause is { } cause ? DropCauses.NameOf(cause) : null);
                break;
        }
    }

    /// <summary>An answer was sent, or could not be.</summary>
    /// <param name="failure">The cause of the drop; null when it was sent.</param>
    public void Answered(Decision decision, string? failure)
    {
        if (Find(decision.Message) is not { } exchange)
            return;
        string name = decision.Reply is { } reply ? NameOf((byte)reply.Type) : NameOf(0);
        Activity? span = exchange.Answer ?? Start(exchange, name, ActivityKind.Producer, time.GetUtcNow());
        exchange.Answer = null;
        if (span is not null && decision.Reply is not null)
            span.DisplayName = name;
        Describe(span, decision);
        if (failure is not null)
            span?.SetStatus(ActivityStatusCode.Error, failure);
        span?.Stop();
        Activity.Current = null;
        if (decision.Kind != DecisionKind.Offer)
            End(decision.Message, exchange, failure);
    }

    /// <summary>Ends what went silent.</summary>
    public void Sweep(DateTimeOffset now)
    {
        if (_exchanges.Count == 0)
            return;
        foreach (((uint Transaction, ClientKey Client) key, Exchange exchange) in _exchanges.ToArray())
        {
            if (now - exchange.Began > MaxTime)
                End(key, exchange, "abandoned");
        }
    }

    private Exchange? Find(DhcpMessage message) => _exchanges.GetValueOrDefault((message.TransactionId, message.Client));

    private Exchange? Begin(DhcpMessage message, in TraceContext trace)
    {
        if (_exchanges.Count >= MaxExchanges)
        {
            KeyValuePair<(uint, ClientKey), Exchange> oldest = _exchanges.MinBy(pair => pair.Value.Began);
            End(oldest.Key, oldest.Value, "abandoned");
        }
        Activity.Current = null;
        Activity? root = DhcpTelemetry.Source.StartActivity("dhcp exchange", ActivityKind.Server, trace.ToParent());
        Activity.Current = null;
        if (root is null)
            return null;
        root.SetTag("vnetmesh.network", network);
        root.SetTag("dhcp.xid", message.TransactionId.ToString("x8"));
        root.SetTag("dhcp.client", message.Client.ToString());
        root.SetTag("dhcp.mac", message.Mac.ToString());
        root.SetTag("host.name", message.HostName);
        var exchange = new Exchange(root, time.GetUtcNow());
        _exchanges[(message.TransactionId, message.Client)] = exchange;
        return exchange;
    }

    private void End(DhcpMessage message, Exchange exchange, string? failure) => End((message.TransactionId, message.Client), exchange, failure);

    private void End((uint, ClientKey) key, Exchange exchange, string? failure)
    {
        _exchanges.Remove(key);
        exchange.Answer?.Stop();
        if (failure is not null)
            exchange.Root.SetTag("dhcp.outcome", failure);
        exchange.Root.Stop();
        Activity.Current = null;
    }

    private static Activity? Start(Exchange exchange, string name, ActivityKind kind, DateTimeOffset at)
    {
        Activity? span = DhcpTelemetry.Source.StartActivity(name, kind, exchange.Root.Context, startTime: at);
        Activity.Current = null;
        return span;
    }

    private static void Describe(Activity? span, Decision decision)
    {
        if (span is null)
            return;
        span.SetTag("dhcp.decision", decision.Kind.ToString().ToLowerInvariant());
        span.SetTag("dhcp.reason", decision.Reason);
        if (!decision.Address.IsAny)
            span.SetTag("dhcp.address", decision.Address.ToString());
        if (decision.Reply?.LeaseTime is { } lease)
            span.SetTag("dhcp.lease_time", lease.TotalSeconds);
        if (decision.Cause is { } cause)
            span.SetTag("dhcp.drop", DropCauses.NameOf(cause));
    }

    private static string NameOf(byte type) => type < DhcpCounters.TypeNames.Length ? DhcpCounters.TypeNames[type] : "message";

    private sealed class Exchange(Activity root, DateTimeOffset began)
    {
        public Activity Root { get; } = root;
        public DateTimeOffset Began { get; } = began;
        public Activity? Answer { get; set; }
    }
}
