using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Gateways;

/// <summary>What a gateway is told about its network. Another value means another gateway.</summary>
/// <param name="Network">"networks/{id}".</param>
/// <param name="Address">Where the gateway answers.</param>
/// <param name="HostAddress">The host's own adapter; Any when it has none.</param>
/// <param name="DhcpServer">The DHCP server's address; Any when there is none.</param>
/// <param name="Mtu">Largest IP packet, 576 to 65535.</param>
/// <param name="Mac">The gateway's own.</param>
public sealed record GatewaySettings(string Network, Ipv4Subnet Subnet, Ipv4Address Address, Ipv4Address HostAddress, Ipv4Address DhcpServer, int Mtu, MacAddress Mac)
{
    /// <summary>"vmnet8" of "networks/vmnet8".</summary>
    public string NetworkId => Network[(Network.IndexOf('/', StringComparison.Ordinal) + 1)..];
}

/// <summary>Bounds of the whole process, and the count of flows in it. The loop's thread alone changes the count.</summary>
public sealed class NatLimits
{
    private const int MostFlows = 65536;
    private const int MostFlowsPerGuest = 16384;
    private const int ReservedDescriptors = 512; // sockets of gRPC and DNS, listeners, rings, files

    public NatLimits(int maxFlows, int maxFlowsPerGuest)
    {
        MaxFlows = maxFlows;
        MaxFlowsPerGuest = maxFlowsPerGuest;
    }

    /// <summary>Each flow holds one descriptor.</summary>
    public int MaxFlows { get; }

    public int MaxFlowsPerGuest { get; }

    /// <summary>Flows alive now, of all protocols and gateways.</summary>
    public int Flows { get; set; }

    /// <summary>As many as the descriptors allow, and no guest may have more than three quarters of them.</summary>
    public static NatLimits FromDescriptorLimit()
    {
        long descriptors = SysResource.RaiseDescriptorLimit();
        int flows = (int)Math.Clamp(descriptors - ReservedDescriptors, 128, MostFlows);
        return new NatLimits(flows, Math.Min(MostFlowsPerGuest, flows / 4 * 3));
    }
}

/// <summary>Which destinations guests may reach through the gateway.</summary>
public class DestinationPolicy
{
    /// <summary>
    /// False for what never leaves a host: loopback (RFC 1122, 3.2.1.3), 0/8 and 240/4. Multicast and broadcast are
    /// not asked about; nothing forwards them here.
    /// </summary>
    public virtual bool Allows(Ipv4Address destination) => !destination.IsLoopback && !destination.IsReserved;
}
