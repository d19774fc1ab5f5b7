using System.Globalization;
using Google.Protobuf.WellKnownTypes;
using VNetMesh.Nat.Flows;
using VNetMesh.Nat.Forwards;
using VNetMesh.Nat.Gateways;
using VNetMesh.V1;
using Endpoint = VNetMesh.V1.Endpoint;
using FlowState = VNetMesh.Nat.Flows.FlowState;

namespace VNetMesh.Nat.Rpc;

/// <summary>What nat knows, in the API's shapes.</summary>
internal static class NatTranslation
{
    public static V1.Flow ToProto(Flows.FlowSnapshot flow)
    {
        var message = new V1.Flow
        {
            Name = string.Create(CultureInfo.InvariantCulture, $"{flow.Network}/flows/{flow.Number}"),
            Protocol = ToProto(flow.Protocol),
            Guest = ToProto(flow.Guest),
            Remote = ToProto(flow.Remote),
            State = ToProto(flow.State),
            Inbound = flow.Inbound,
            BytesToRemote = flow.BytesToRemote,
            BytesToGuest = flow.BytesToGuest,
            StartTime = Timestamp.FromDateTimeOffset(flow.StartTime),
            Idle = Duration.FromTimeSpan(flow.Idle),
            Retransmits = flow.Retransmits,
            EndReason = flow.EndReason,
            DnsName = flow.DnsName,
            TraceId = flow.TraceId,
        };
        if (flow.Host is { } host)
            message.Host = ToProto(host);
        if (flow.RoundTrip is { } roundTrip)
            message.Rtt = Duration.FromTimeSpan(roundTrip);
        return message;
    }

    public static V1.FlowStory ToProto(FlowRecord record) => new()
    {
        Flow = ToProto(record.Flow),
        Events = { record.Events.Select(entry => new V1.FlowEvent { Time = Timestamp.FromDateTimeOffset(entry.Time), What = entry.What, Detail = entry.Detail }) },
    };

    public static PortForward ToProto(ForwardStatus status) => new()
    {
        Name = $"{status.Rule.Network}/forwards/{status.Rule.Id}",
        Protocol = ToProto(status.Rule.Protocol),
        Listen = new Endpoint { Address = status.Rule.ListenAddress.ToString(), Port = (uint)status.Rule.ListenPort },
        Guest = new Endpoint { Address = status.Rule.GuestAddress.ToString(), Port = (uint)status.Rule.GuestPort },
        Listening = status.Listening,
        Condition = status.Condition,
    };

    public static V1.Gateway ToProto(Gateways.Gateway gateway, NatLimits limits, IEnumerable<string> resolvers)
    {
        var message = new V1.Gateway
        {
            Network = gateway.Settings.Network,
            Ipv4Address = gateway.Settings.Address.ToString(),
            Mac = gateway.Settings.Mac.ToString(),
            LinkUp = gateway.IsLinkUp,
            TcpFlows = (uint)gateway.Flows.CountOf(FlowProtocol.Tcp),
            UdpFlows = (uint)gateway.Flows.CountOf(FlowProtocol.Udp),
            IcmpFlows = (uint)gateway.Flows.CountOf(FlowProtocol.Icmp),
            MaxFlows = (uint)limits.MaxFlows,
            MaxFlowsPerGuest = (uint)limits.MaxFlowsPerGuest,
        };
        foreach ((string cause, ulong count) in gateway.Drops.Seen())
            message.Drops[cause] = count;
        message.DnsServers.AddRange(resolvers);
        return message;
    }

    public static ChangeType ToProto(FlowChangeKind kind) => kind switch
    {
        FlowChangeKind.Created => ChangeType.Created,
        FlowChangeKind.Updated => ChangeType.Updated,
        _ => ChangeType.Deleted,
    };

    private static Protocol ToProto(FlowProtocol protocol) => protocol switch
    {
        FlowProtocol.Tcp => Protocol.Tcp,
        FlowProtocol.Udp => Protocol.Udp,
        _ => Protocol.Icmp,
    };

    private static V1.FlowState ToProto(FlowState state) => state switch
    {
        FlowState.Dialing => V1.FlowState.Dialing,
        FlowState.Handshake => V1.FlowState.Handshake,
        FlowState.Established => V1.FlowState.Established,
        FlowState.HalfClosed => V1.FlowState.HalfClosed,
        FlowState.Closing => V1.FlowState.Closing,
        _ => V1.FlowState.Closed,
    };

    private static Endpoint ToProto(FlowAddress address) => new() { Address = address.Address, Port = (uint)address.Port };
}
