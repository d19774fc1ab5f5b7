using VNetMesh.Agent.HostChanges;
using VNetMesh.Agent.Netlink;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Egress;

/// <summary>An interface of the host that is up, is not lo and none of ours.</summary>
/// <param name="Ipv6">Those of global scope.</param>
public sealed record HostInterface(string Name, IReadOnlyList<Ipv4Address> Ipv4, IReadOnlyList<Ipv6Address> Ipv6);

/// <summary>What egress needs to know of the host, as it is now.</summary>
/// <param name="ForwardsIpv4">net.ipv4.conf.all.forwarding (which is ip_forward) is on.</param>
/// <param name="ForwardsIpv6">net.ipv6.conf.all.forwarding is on.</param>
public sealed record HostFacts(IReadOnlyList<HostInterface> Interfaces, bool ForwardsIpv4, bool ForwardsIpv6)
{
    public const string AllIpv4 = "net.ipv4.conf.all.forwarding";

    /// <param name="ours">Names of our own adapters.</param>
    public static HostFacts Look(IReadOnlySet<string> ours)
    {
        using RtNetlink netlink = RtNetlink.Open();
        ILookup<int, Ipv4Address> ipv4 = netlink.ListAddresses().ToLookup(info => info.LinkIndex, info => info.Address);
        ILookup<int, Ipv6Address> ipv6 = netlink.ListIpv6Addresses().Where(info => info.IsGlobal).ToLookup(info => info.LinkIndex, info => info.Address);
        return new HostFacts(
            [.. netlink.ListLinks().Where(link => link.IsUp && link.Name != "lo" && !ours.Contains(link.Name)).Select(link => new HostInterface(link.Name, [.. ipv4[link.Index]], [.. ipv6[link.Index]]))],
            IsOn(AllIpv4), IsOn(Ipv6ForwardingChange.All));
    }

    private static bool IsOn(string sysctl) => SysctlChange.Exists(sysctl) && SysctlChange.Read(sysctl) == "1";
}
