using Google.Protobuf.WellKnownTypes;
using VNetMesh.Switch.Forwarding;
using VNetMesh.Switch.Registry;
using VNetMesh.V1;
using NetworkEgress = VNetMesh.Switch.Registry.NetworkEgress;
using NetworkKind = VNetMesh.Switch.Registry.NetworkKind;
using UplinkDriver = VNetMesh.Switch.Registry.UplinkDriver;
using V1Counters = VNetMesh.V1.TrafficCounters;

namespace VNetMesh.Switch.Rpc;

/// <summary>Networks between their records and their messages.</summary>
internal static class NetworkMessages
{
    public static Network ToMessage(this NetworkDefinition network, V1Counters? counters = null)
    {
        var message = new Network
        {
            Name = network.Name,
            Kind = (V1.NetworkKind)network.Kind,
            Ipv4Subnet = network.Subnet?.ToString() ?? "",
            Ipv4SubnetAuto = network.SubnetAuto,
            Ipv4HostAddress = network.HostAddress?.ToString() ?? "",
            Ipv4Gateway = network.Gateway?.ToString() ?? "",
            Egress = (V1.NetworkEgress)network.Egress,
            Ipv6Prefix = network.Ipv6Prefix?.ToString() ?? "",
            Uplink = network.Uplink,
            UplinkDriver = (V1.UplinkDriver)network.UplinkDriver,
            Mtu = (uint)network.Mtu,
            Dhcpv4 = ToMessage(network.Dhcp),
            MacAgeing = Duration.FromTimeSpan(network.MacAgeing),
            MaxMacs = (uint)network.MaxMacs,
            MaxMacsPerPort = (uint)network.MaxMacsPerPort,
            IsolatePorts = network.IsolatePorts,
            Revision = network.Revision,
            CreateTime = Timestamp.FromDateTimeOffset(network.CreateTime),
            Counters = counters,
        };
        message.Conditions.AddRange(network.Conditions);
        return message;
    }

    public static V1Counters ToMessage(this Forwarding.TrafficCounters counters, Func<DropCause, long> drops)
    {
        var message = new V1Counters
        {
            RxFrames = (ulong)Volatile.Read(ref counters.RxFrames),
            RxBytes = (ulong)Volatile.Read(ref counters.RxBytes),
            TxFrames = (ulong)Volatile.Read(ref counters.TxFrames),
            TxBytes = (ulong)Volatile.Read(ref counters.TxBytes),
        };
        foreach (DropCause cause in DropCauses.All)
        {
            if (drops(cause) is > 0 and long count)
                message.Drops.Add(DropCauses.NameOf(cause), (ulong)count);
        }
        return message;
    }

    /// <summary>What a client wants made.</summary>
    public static NetworkDraft ToDraft(string id, Network message) => new()
    {
        Id = id,
        Kind = (NetworkKind)message.Kind,
        Subnet = message.Ipv4Subnet,
        SubnetAuto = message.Ipv4SubnetAuto,
        HostAddress = message.Ipv4HostAddress,
        Gateway = message.Ipv4Gateway,
        Egress = (NetworkEgress)message.Egress,
        Ipv6Prefix = message.Ipv6Prefix,
        Uplink = message.Uplink,
        UplinkDriver = (UplinkDriver)message.UplinkDriver,
        Mtu = message.Mtu,
        Dhcp = message.Dhcpv4 is null ? new DhcpDraft() : ToDraft(message.Dhcpv4),
        MacAgeing = ToTimeSpan(message.MacAgeing),
        MaxMacs = message.MaxMacs,
        MaxMacsPerPort = message.MaxMacsPerPort,
        IsolatePorts = message.IsolatePorts,
    };

    /// <summary>Sets the fields of a mask in the draft of a network; null for a path that there is not.</summary>
    public static Func<NetworkDraft, NetworkDraft>? Setter(string path, Network message)
    {
        V1.Dhcpv4Settings dhcp = message.Dhcpv4 ?? new V1.Dhcpv4Settings();
        return path switch
        {
            "kind" => draft => draft with { Kind = (NetworkKind)message.Kind },
            "ipv4_subnet" => draft => draft with { Subnet = message.Ipv4Subnet },
            "ipv4_subnet_auto" => draft => draft with { SubnetAuto = message.Ipv4SubnetAuto },
            "ipv4_host_address" => draft => draft with { HostAddress = message.Ipv4HostAddress },
            "ipv4_gateway" => draft => draft with { Gateway = message.Ipv4Gateway },
            "egress" => draft => draft with { Egress = (NetworkEgress)message.Egress },
            // "auto" leaves the prefix that there is: an update made again changes nothing.
            "ipv6_prefix" => draft => message.Ipv6Prefix == NetworkPlanner.AutoPrefix && !string.IsNullOrEmpty(draft.Ipv6Prefix) ? draft : draft with { Ipv6Prefix = message.Ipv6Prefix },
            "uplink" => draft => draft with { Uplink = message.Uplink },
            "uplink_driver" => draft => draft with { UplinkDriver = (UplinkDriver)message.UplinkDriver },
            "mtu" => draft => draft with { Mtu = message.Mtu },
            "dhcpv4" => draft => draft with { Dhcp = message.Dhcpv4 is null ? new DhcpDraft() : ToDraft(dhcp) },
            "dhcpv4.enabled" => draft => draft with { Dhcp = draft.Dhcp with { Enabled = dhcp.Enabled } },
            "dhcpv4.range_start" => draft => draft with { Dhcp = draft.Dhcp with { RangeStart = dhcp.RangeStart } },
            "dhcpv4.range_end" => draft => draft with { Dhcp = draft.Dhcp with { RangeEnd = dhcp.RangeEnd } },
            "dhcpv4.server_address" => draft => draft with { Dhcp = draft.Dhcp with { ServerAddress = dhcp.ServerAddress } },
            "dhcpv4.default_lease" => draft => draft with { Dhcp = draft.Dhcp with { DefaultLease = ToTimeSpan(dhcp.DefaultLease) } },
            "dhcpv4.max_lease" => draft => draft with { Dhcp = draft.Dhcp with { MaxLease = ToTimeSpan(dhcp.MaxLease) } },
            "dhcpv4.domain" => draft => draft with { Dhcp = draft.Dhcp with { Domain = dhcp.Domain } },
            "dhcpv4.dns_servers" => draft => draft with { Dhcp = draft.Dhcp with { DnsServers = [.. dhcp.DnsServers] } },
            "dhcpv4.routers" => draft => draft with { Dhcp = draft.Dhcp with { Routers = [.. dhcp.Routers] } },
            "mac_ageing" => draft => draft with { MacAgeing = ToTimeSpan(message.MacAgeing) },
            "max_macs" => draft => draft with { MaxMacs = message.MaxMacs },
            "max_macs_per_port" => draft => draft with { MaxMacsPerPort = message.MaxMacsPerPort },
            "isolate_ports" => draft => draft with { IsolatePorts = message.IsolatePorts },
            _ => null,
        };
    }

    private static DhcpDraft ToDraft(V1.Dhcpv4Settings message) => new()
    {
        Enabled = message.Enabled,
        RangeStart = message.RangeStart,
        RangeEnd = message.RangeEnd,
        ServerAddress = message.ServerAddress,
        DefaultLease = ToTimeSpan(message.DefaultLease),
        MaxLease = ToTimeSpan(message.MaxLease),
        Domain = message.Domain,
        DnsServers = [.. message.DnsServers],
        Routers = [.. message.Routers],
    };

    private static V1.Dhcpv4Settings ToMessage(DhcpDefinition dhcp)
    {
        var message = new V1.Dhcpv4Settings
        {
            Enabled = dhcp.Enabled,
            RangeStart = dhcp.RangeStart?.ToString() ?? "",
            RangeEnd = dhcp.RangeEnd?.ToString() ?? "",
            ServerAddress = dhcp.ServerAddress?.ToString() ?? "",
            DefaultLease = Duration.FromTimeSpan(dhcp.DefaultLease),
            MaxLease = Duration.FromTimeSpan(dhcp.MaxLease),
            Domain = dhcp.Domain,
        };
        message.DnsServers.AddRange(dhcp.DnsServers.Select(address => address.ToString()));
        message.Routers.AddRange(dhcp.Routers.Select(address => address.ToString()));
        return message;
    }

    /// <summary>Any two numbers may stand in a Duration: those that are none are out of every range here.</summary>
    private static TimeSpan? ToTimeSpan(Duration? duration) => duration switch
    {
        null => null,
        { Seconds: > 100_000_000_000 or < -100_000_000_000 } or { Nanos: >= 1_000_000_000 or <= -1_000_000_000 } => TimeSpan.MinValue,
        _ => TimeSpan.FromSeconds(duration.Seconds) + TimeSpan.FromTicks(duration.Nanos / 100),
    };
}
