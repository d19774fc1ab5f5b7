using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Devices;

/// <summary>What the agent needs to know of a network.</summary>
/// <param name="HostAddress">The host's own address on it; null where the host has no adapter.</param>
/// <param name="Mtu">Octets of the largest IP packet.</param>
public sealed record NetworkSpec(string Id, Ipv4Subnet? Subnet, bool IsSubnetAuto, Ipv4Address? HostAddress, bool IsNat, uint Mtu, ulong Revision)
{
    public string Name => "networks/" + Id;

    public EgressMode Egress { get; init; }

    /// <summary>The NIC that it is bridged to, or "auto"; empty: none.</summary>
    public string Uplink { get; init; } = "";

    public UplinkDriver UplinkDriver { get; init; }

    /// <summary>A /64; null where the network has no IPv6 of ours.</summary>
    public Ipv6Prefix? Ipv6Prefix { get; init; }
}

/// <summary>How a bridged network is joined to its NIC.</summary>
public enum UplinkDriver
{
    Tc,
    Pcap,
}

/// <summary>What leads out of a network by way of the host.</summary>
public enum EgressMode
{
    None,

    /// <summary>The host forwards, and puts its own address in the guests' place.</summary>
    Snat,

    /// <summary>The host forwards.</summary>
    Routed,
}

public enum PortRole
{
    Guest,
    Host,
    Uplink,
}

/// <summary>A port of the switch that the agent plugs a device into.</summary>
public sealed record PortSpec(string NetworkId, string Id, PortRole Role, MacAddress Mac)
{
    /// <summary>The id of every host adapter's port.</summary>
    public const string HostAdapterId = "host";

    /// <summary>The id of every uplink's port.</summary>
    public const string UplinkId = "uplink";

    public string Name => NameOf(NetworkId, Id);

    public static string NameOf(string networkId, string id) => $"networks/{networkId}/ports/{id}";
}

/// <summary>What the agent's ports bear as their owner.</summary>
public static class FabricOwner
{
    public const string Name = "agent";
}

/// <summary>The switch, as far as the agent uses it.</summary>
public interface IFabric
{
    /// <summary>Whether the switch has told its networks and ports, and is there now.</summary>
    bool IsReachable { get; }

    /// <summary>Registers a port and hands a queue of its device over; a queue that the switch had before is let go.</summary>
    /// <exception cref="FabricException">It did not work.</exception>
    Task ConnectAsync(PortSpec port, TapQueue queue, CancellationToken cancellation);

    /// <summary>Registers a port and hands the socket of a VM over; what the switch had before is let go.</summary>
    /// <exception cref="FabricException">It did not work.</exception>
    Task ConnectAsync(PortSpec port, FileDescriptor connection, CancellationToken cancellation);

    /// <summary>Takes a port away; one that is not there is as good.</summary>
    /// <exception cref="FabricException">It did not work.</exception>
    Task DeleteAsync(string port, CancellationToken cancellation);

    /// <summary>Lets the switch choose the next free subnet for a network whose subnet VNetMesh chose.</summary>
    /// <returns>The network as it is then.</returns>
    /// <exception cref="FabricException">It did not work.</exception>
    Task<NetworkSpec> ChooseNextSubnetAsync(NetworkSpec network, CancellationToken cancellation);
}

/// <summary>The switch refused, or is away.</summary>
public sealed class FabricException(string message, bool isUnavailable, Exception? inner = null) : IOException(message, inner)
{
    public bool IsUnavailable { get; } = isUnavailable;
}
