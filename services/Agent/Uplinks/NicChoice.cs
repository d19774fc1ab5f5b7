using VNetMesh.Agent.Netlink;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Uplinks;

/// <summary>Which interface of the host an uplink's name stands for, and whether it can be one.</summary>
public static class NicChoice
{
    /// <summary>Stands for the NIC of the default route.</summary>
    public const string Auto = "auto";

    /// <summary>Begins the alias of every device of ours.</summary>
    private const string OwnAlias = "vnetmesh ";

    // What is one station of another interface's, and is sent frames of its own address only.
    private static readonly HashSet<string> OneMacKinds = ["macvlan", "macvtap", "ipvlan", "ipvtap"];

    /// <param name="wanted">A name, or <see cref="Auto"/>.</param>
    /// <param name="present">The index of the NIC that is in use: kept while there is no default route at all. 0: none.</param>
    /// <param name="isStation">Whether a link is a Wi-Fi station.</param>
    /// <exception cref="UplinkException">There is none, or it cannot be used.</exception>
    public static LinkInfo Choose(string wanted, int present, IReadOnlyList<LinkInfo> links, IReadOnlyList<RouteInfo> routes, Func<LinkInfo, bool> isStation)
    {
        LinkInfo nic = wanted == Auto ? OfDefaultRoute(present, links, routes) : links.FirstOrDefault(link => link.Name == wanted)
            ?? throw new UplinkException("UPLINK_NOT_FOUND", $"this host has no interface {wanted}: 'ip link' lists those that there are");
        Refuse(nic, links, isStation);
        return nic;
    }

    /// <summary>
    /// The default route of the lowest metric that leads to an Ethernet interface which is none of ours: a tunnel's (a VPN's) is
    /// passed over, for the LAN is not behind it.
    /// </summary>
    private static LinkInfo OfDefaultRoute(int present, IReadOnlyList<LinkInfo> links, IReadOnlyList<RouteInfo> routes)
    {
        Dictionary<int, LinkInfo> byIndex = links.ToDictionary(link => link.Index);
        foreach (RouteInfo route in routes.Where(IsDefault).OrderBy(route => route.Metric))
        {
            if (byIndex.GetValueOrDefault(route.LinkIndex) is { HardwareType: LinuxRtnetlink.ARPHRD_ETHER } link && !IsOurs(link) && !IsTunnel(link))
                return link;
        }
        return byIndex.GetValueOrDefault(present) ?? throw new UplinkException("UPLINK_NOT_FOUND", "this host has no default route by an Ethernet interface: name the interface instead of 'auto'");
    }

    private static bool IsDefault(RouteInfo route) =>
        route is { Type: LinuxRtnetlink.RTN_UNICAST, Table: LinuxRtnetlink.RT_TABLE_MAIN } && route.Destination == new Ipv4Subnet(default, 0);

    private static void Refuse(LinkInfo nic, IReadOnlyList<LinkInfo> links, Func<LinkInfo, bool> isStation)
    {
        if (IsOurs(nic))
            throw new UplinkException("UPLINK_IS_OURS", $"{nic.Name} is a device that VNetMesh made: an uplink leads to a NIC of the host");
        if (nic.HardwareType != LinuxRtnetlink.ARPHRD_ETHER)
            throw new UplinkException("UPLINK_NOT_ETHERNET", $"{nic.Name} carries no Ethernet frames (link type {nic.HardwareType}): a network cannot be bridged to a tunnel, a modem or the loopback; use a NAT network, such as vmnet8");
        if (OneMacKinds.Contains(nic.Kind))
            throw new UplinkException("UPLINK_ONE_MAC", $"{nic.Name} is a {nic.Kind}, which gets frames for its own address alone: bridge to the interface beneath it, or use a NAT network, such as vmnet8");
        if (isStation(nic))
            throw new UplinkException("UPLINK_ONE_MAC", $"{nic.Name} is a Wi-Fi station, whose access point takes frames from its own address alone: use a wired NIC, or a NAT network, such as vmnet8");
        if (nic.Master != 0)
        {
            string master = links.FirstOrDefault(link => link.Index == nic.Master)?.Name ?? $"interface {nic.Master}";
            throw new UplinkException("UPLINK_ENSLAVED", $"{nic.Name} belongs to {master}, which has its frames: bridge to {master}");
        }
    }

    private static bool IsOurs(LinkInfo link) => link.Alias.StartsWith(OwnAlias, StringComparison.Ordinal);

    /// <summary>A TAP of a VPN's is Ethernet by its type.</summary>
    private static bool IsTunnel(LinkInfo link) => link.Kind is "tun" or "vxlan" or "gretap" or "ip6gretap" or "geneve";
}
