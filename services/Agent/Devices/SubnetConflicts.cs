using VNetMesh.Agent.Netlink;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Devices;

/// <summary>Whether the host routes a subnet already: a network must never take what the host reaches elsewhere.</summary>
public static class SubnetConflicts
{
    /// <summary>
    /// Routes that are as wide as these stand for "everywhere" (a default route, or the halves 0.0.0.0/1 and 128.0.0.0/1
    /// that VPNs set), and leave no subnet free.
    /// </summary>
    private const int WidestPrefix = 7;

    /// <returns>The route in the way; null where there is none.</returns>
    /// <param name="ownLinks">Indices of our own devices, whose routes do not count.</param>
    public static RouteInfo? Find(Ipv4Subnet subnet, IEnumerable<RouteInfo> routes, IReadOnlySet<int> ownLinks) =>
        routes.FirstOrDefault(route => IsReal(route) && !ownLinks.Contains(route.LinkIndex) && route.Destination.Overlaps(subnet));

    private static bool IsReal(RouteInfo route) =>
        route.Destination.PrefixLength > WidestPrefix && route.Table != LinuxRtnetlink.RT_TABLE_LOCAL
        && route.Type is LinuxRtnetlink.RTN_UNICAST or LinuxRtnetlink.RTN_BLACKHOLE or LinuxRtnetlink.RTN_UNREACHABLE or LinuxRtnetlink.RTN_PROHIBIT;
}
