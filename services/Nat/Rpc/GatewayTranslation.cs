using System.Security.Cryptography;
using System.Text;
using VNetMesh.Nat.Gateways;
using VNetMesh.Packets;
using VNetMesh.V1;

namespace VNetMesh.Nat.Rpc;

/// <summary>What the switch's registry says, as the gateways understand it.</summary>
internal static class GatewayTranslation
{
    public const string PortId = "nat";

    /// <summary>Settings of the networks that want a gateway.</summary>
    public static List<GatewaySettings> ToSettings(IEnumerable<Network> networks)
    {
        var wanted = new List<GatewaySettings>();
        foreach (Network network in networks)
        {
            if (network.Kind != NetworkKind.Nat || !Ipv4Subnet.TryParse(network.Ipv4Subnet, out Ipv4Subnet subnet) || !Ipv4Address.TryParse(network.Ipv4Gateway, out Ipv4Address address))
                continue;
            Ipv4Address host = AddressOrAny(network.Ipv4HostAddress);
            Ipv4Address server = AddressOrAny(network.Dhcpv4 is { Enabled: true } dhcp ? dhcp.ServerAddress : "");
            wanted.Add(new GatewaySettings(network.Name, subnet, address, host, server, (int)Math.Clamp(network.Mtu == 0 ? 1500 : network.Mtu, 576, 65535), MacOf(network.Name)));
        }
        return wanted;
    }

    private static Ipv4Address AddressOrAny(string text) => Ipv4Address.TryParse(text, out Ipv4Address address) ? address : default;

    /// <summary>The gateway's MAC: the same for the same network each time.</summary>
    public static MacAddress MacOf(string network)
    {
        Span<byte> hash = stackalloc byte[SHA256.HashSizeInBytes];
        SHA256.HashData(Encoding.UTF8.GetBytes($"{network}/ports/{PortId}"), hash);
        return new MacAddress(0x02564E_000000 | ((ulong)hash[0] << 16) | ((ulong)hash[1] << 8) | hash[2]);
    }
}
