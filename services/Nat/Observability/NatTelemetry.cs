using System.Buffers.Binary;
using System.Diagnostics;
using VNetMesh.Links;
using VNetMesh.Nat.Flows;
using VNetMesh.Nat.Gateways;

namespace VNetMesh.Nat.Observability;

/// <summary>
/// A trace for each flow: root "nat.flow" (child of the switch's span where the first frame bore one) with the flow's
/// ends as attributes and what befell it as events; child "nat.dial" for the host's connect. Made only when someone listens.
/// </summary>
internal static class NatTelemetry
{
    public static readonly ActivitySource Source = new("VNetMesh.Nat");

    public static void Begin(Flow flow, GatewaySettings settings, in TraceContext parent)
    {
        if (!Source.HasListeners())
            return;
        flow.Span = Start("nat.flow", flow.Inbound ? ActivityKind.Server : ActivityKind.Internal, ContextOf(parent));
        if (flow.Span is not { IsAllDataRequested: true } span)
            return;
        span.SetTag("vnetmesh.network", settings.NetworkId);
        span.SetTag("vnetmesh.flow", $"{settings.Network}/flows/{flow.Number}");
        span.SetTag("network.transport", flow.Protocol switch { FlowProtocol.Tcp => "tcp", FlowProtocol.Udp => "udp", _ => "icmp" });
        span.SetTag("client.address", (flow.Inbound ? flow.Remote : flow.Guest.Address).ToString());
        span.SetTag("client.port", (int)(flow.Inbound ? flow.RemotePort : flow.GuestPort));
        span.SetTag("server.address", (flow.Inbound ? flow.Guest.Address : flow.Remote).ToString());
        span.SetTag("server.port", (int)(flow.Inbound ? flow.GuestPort : flow.RemotePort));
    }

    /// <summary>Begins the child span of the host's connect; null when nobody listens.</summary>
    public static Activity? BeginDial(Flow flow, string address, int port)
    {
        if (flow.Span is null)
            return null;
        Activity? dial = Start("nat.dial", ActivityKind.Client, flow.Span.Context);
        dial?.SetTag("network.peer.address", address);
        dial?.SetTag("network.peer.port", port);
        return dial;
    }

    public static void EndDial(Activity? dial, string result)
    {
        if (dial is null)
            return;
        if (result != "connected")
        {
            dial.SetStatus(ActivityStatusCode.Error, result);
            dial.SetTag("error.type", result);
        }
        Stop(dial);
    }

    public static void Event(Flow flow, string name)
    {
        if (flow.Span is { IsAllDataRequested: true } span)
            span.AddEvent(new ActivityEvent(name));
    }

    public static void End(Flow flow)
    {
        if (flow.Span is not { } span)
            return;
        span.SetTag("vnetmesh.end_reason", flow.EndReason);
        span.SetTag("vnetmesh.bytes_to_remote", (long)flow.BytesToRemote);
        span.SetTag("vnetmesh.bytes_to_guest", (long)flow.BytesToGuest);
        Stop(span);
        flow.Span = null;
    }

    // The loop's thread serves many flows in turn: none of their spans may stay its current one.
    private static Activity? Start(string name, ActivityKind kind, ActivityContext parent)
    {
        Activity.Current = null;
        Activity? activity = Source.StartActivity(name, kind, parent);
        Activity.Current = null;
        return activity;
    }

    private static void Stop(Activity activity)
    {
        activity.Dispose();
        Activity.Current = null;
    }

    private static ActivityContext ContextOf(in TraceContext trace)
    {
        if (!trace.IsPresent)
            return default;
        Span<byte> id = stackalloc byte[24];
        BinaryPrimitives.WriteUInt64BigEndian(id, trace.TraceIdHigh);
        BinaryPrimitives.WriteUInt64BigEndian(id[8..], trace.TraceIdLow);
        BinaryPrimitives.WriteUInt64BigEndian(id[16..], trace.SpanId);
        return new ActivityContext(ActivityTraceId.CreateFromBytes(id[..16]), ActivitySpanId.CreateFromBytes(id[16..]), ActivityTraceFlags.Recorded, isRemote: true);
    }
}
