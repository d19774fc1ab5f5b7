using System.Diagnostics;
using VNetMesh.Hosting;
using VNetMesh.Nat.Flows;
using VNetMesh.Nat.Gateways;

namespace VNetMesh.Nat.Observability;

/// <summary>
/// A trace for each flow: root "nat.flow" (child of the switch's span where the first frame bore one) with the flow's ends as
/// attributes and what befell it as events; a child "nat.dial" for each connect of the host's. They are made when the flow has
/// ended, from its story: only then is it known whether it failed or was slow, and so is worth a trace that was not sampled;
/// and a flow that is not costs nothing.
/// </summary>
internal static class NatTelemetry
{
    public static readonly ActivitySource Source = new("VNetMesh.Nat");

    /// <summary>A connect that takes longer is worth a trace. Microseconds.</summary>
    public const long SlowDial = 1_000_000;

    public static void End(Flow flow, GatewaySettings settings)
    {
        if (!Source.HasListeners())
            return;
        // The loop's thread serves many flows in turn: none of their spans may stay its current one.
        Activity.Current = null;
        string? reason = Interest(flow);
        KeyValuePair<string, object?>[] begun = reason is null ? [] : [new(ServiceSampler.Reason, reason)];
        using (Activity? span = Source.StartActivity("nat.flow", flow.Inbound ? ActivityKind.Server : ActivityKind.Internal, flow.Story.Trace.ToParent(), begun, startTime: TimeOf(flow, flow.Started)))
        {
            if (span is { IsAllDataRequested: true })
                Describe(span, flow, settings, begun);
        }
        Activity.Current = null;
    }

    private static void Describe(Activity span, Flow flow, GatewaySettings settings, KeyValuePair<string, object?>[] begun)
    {
        FlowStory story = flow.Story;
        span.SetTag("vnetmesh.network", settings.NetworkId);
        span.SetTag("vnetmesh.flow", $"{settings.Network}/flows/{flow.Number}");
        span.SetTag("network.transport", flow.Protocol switch { FlowProtocol.Tcp => "tcp", FlowProtocol.Udp => "udp", _ => "icmp" });
        span.SetTag("client.address", (flow.Inbound ? flow.Remote : flow.Guest.Address).ToString());
        span.SetTag("client.port", (int)(flow.Inbound ? flow.RemotePort : flow.GuestPort));
        span.SetTag("server.address", (flow.Inbound ? flow.Guest.Address : flow.Remote).ToString());
        span.SetTag("server.port", (int)(flow.Inbound ? flow.GuestPort : flow.RemotePort));
        span.SetTag("vnetmesh.bytes_to_remote", (long)flow.BytesToRemote);
        span.SetTag("vnetmesh.bytes_to_guest", (long)flow.BytesToGuest);
        span.SetTag("vnetmesh.retransmits", (long)flow.Retransmits);
        span.SetTag("vnetmesh.end_reason", flow.EndReason);
        if (story.DnsName is { } name)
        {
            span.SetTag("dns.question.name", name);
            span.AddEvent(new ActivityEvent("dns_answer", TimeOf(flow, story.DnsAnswered)));
        }
        foreach ((FlowMoment moment, long time) in story.Moments())
            span.AddEvent(new ActivityEvent(FlowStory.NameOf(moment), TimeOf(flow, time)));
        if (IsFailure(flow.EndReason))
        {
            span.SetStatus(ActivityStatusCode.Error, flow.EndReason);
            span.SetTag("error.type", flow.EndReason);
        }
        foreach (DialAttempt attempt in story.Dial?.All() ?? [])
            MakeDial(span, flow, attempt, begun);
        span.SetEndTime(TimeOf(flow, story.Ended).UtcDateTime);
    }

    private static void MakeDial(Activity parent, Flow flow, DialAttempt attempt, KeyValuePair<string, object?>[] begun)
    {
        using Activity? dial = Source.StartActivity("nat.dial", ActivityKind.Client, parent.Context, begun, startTime: TimeOf(flow, attempt.Began));
        if (dial is null)
            return;
        dial.SetTag("network.peer.address", attempt.Target.Address.ToString());
        dial.SetTag("network.peer.port", attempt.Target.Port);
        if (attempt.Result != "connected")
        {
            dial.SetStatus(ActivityStatusCode.Error, attempt.Result);
            dial.SetTag("error.type", attempt.Result);
        }
        dial.SetEndTime(TimeOf(flow, attempt.Ended == 0 ? flow.Story.Ended : attempt.Ended).UtcDateTime);
    }

    /// <summary>Why a flow is worth a trace that nobody sampled; null: it is not.</summary>
    private static string? Interest(Flow flow)
    {
        if (IsFailure(flow.EndReason))
            return flow.EndReason;
        for (DialAttempt? dial = flow.Story.Dial; dial is not null; dial = dial.Earlier)
        {
            if (dial.Ended - dial.Began >= SlowDial)
                return "slow_dial";
        }
        return null;
    }

    // A reset is how many applications end; that nobody was reached, or that an end went away, is a failure.
    private static bool IsFailure(string reason) =>
        reason.StartsWith("dial_", StringComparison.Ordinal) || reason is "guest_refused" or "guest_unreachable" or "handshake_timeout" or "guest_timeout";

    private static DateTimeOffset TimeOf(Flow flow, long time) => flow.StartTime + TimeSpan.FromMicroseconds(time - flow.Started);
}
