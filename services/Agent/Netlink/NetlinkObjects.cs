using System.Runtime.InteropServices;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Netlink;

/// <summary>A network interface as the kernel tells of it.</summary>
/// <param name="Kind">IFLA_INFO_KIND, "tun" for a TAP; empty for a physical device.</param>
/// <param name="Alias">IFLA_IFALIAS; empty when it has none.</param>
public sealed record LinkInfo(int Index, string Name, MacAddress Mac, uint Mtu, bool IsUp, string Kind, string Alias)
{
    /// <summary>ARPHRD_…: 1 is Ethernet.</summary>
    public ushort HardwareType { get; init; }

    public bool IsPromiscuous { get; init; }

    /// <summary>Something is plugged in: of a TAP, somebody has it open.</summary>
    public bool HasCarrier { get; init; }

    /// <summary>The bridge or bond that it belongs to; 0 where it belongs to none.</summary>
    public int Master { get; init; }

    internal static LinkInfo? Parse(in NetlinkMessage message)
    {
        if (message.Type != LinuxRtnetlink.RTM_NEWLINK || message.Payload.Length < LinuxRtnetlink.IfInfoLength)
            return null;
        int index = MemoryMarshal.Read<int>(message.Payload[4..]);
        uint flags = MemoryMarshal.Read<uint>(message.Payload[8..]), mtu = 0, master = 0;
        string name = "", kind = "", alias = "";
        MacAddress mac = default;
        foreach (NetlinkAttribute attribute in message.Attributes(LinuxRtnetlink.IfInfoLength))
        {
            switch (attribute.Type)
            {
                case LinuxRtnetlink.IFLA_IFNAME:
                    name = attribute.Text;
                    break;
                case LinuxRtnetlink.IFLA_ADDRESS when attribute.Value.Length == MacAddress.Length:
                    mac = MacAddress.Read(attribute.Value);
                    break;
                case LinuxRtnetlink.IFLA_MTU:
                    attribute.TryGetUInt32(out mtu);
                    break;
                case LinuxRtnetlink.IFLA_MASTER:
                    attribute.TryGetUInt32(out master);
                    break;
                case LinuxRtnetlink.IFLA_IFALIAS:
                    alias = attribute.Text;
                    break;
                case LinuxRtnetlink.IFLA_LINKINFO:
                    kind = ReadKind(attribute.Value);
                    break;
            }
        }
        return new LinkInfo(index, name, mac, mtu, (flags & LinuxRtnetlink.IFF_UP) != 0, kind, alias)
        {
            HardwareType = MemoryMarshal.Read<ushort>(message.Payload[2..]),
            HasCarrier = (flags & LinuxRtnetlink.IFF_LOWER_UP) != 0,
            IsPromiscuous = (flags & LinuxRtnetlink.IFF_PROMISC) != 0,
            Master = (int)master,
        };
    }

    private static string ReadKind(ReadOnlySpan<byte> nested)
    {
        foreach (NetlinkAttribute attribute in new NetlinkAttributes(nested))
        {
            if (attribute.Type == LinuxRtnetlink.IFLA_INFO_KIND)
                return attribute.Text;
        }
        return "";
    }
}

/// <summary>An IPv4 address on an interface.</summary>
/// <param name="IsPermanent">Set without a lifetime: by hand, or by an endless lease.</param>
public sealed record AddressInfo(int LinkIndex, Ipv4Address Address, int PrefixLength, bool IsPermanent)
{
    internal static AddressInfo? Parse(in NetlinkMessage message)
    {
        if (message.Type != LinuxRtnetlink.RTM_NEWADDR || message.Payload.Length < LinuxRtnetlink.IfAddrLength || message.Payload[0] != SysSocket.AF_INET)
            return null;
        Ipv4Address? local = null, address = null;
        foreach (NetlinkAttribute attribute in message.Attributes(LinuxRtnetlink.IfAddrLength))
        {
            if (attribute.Type == LinuxRtnetlink.IFA_LOCAL && attribute.TryGetIpv4(out Ipv4Address own))
                local = own;
            else if (attribute.Type == LinuxRtnetlink.IFA_ADDRESS && attribute.TryGetIpv4(out Ipv4Address peer))
                address = peer;
        }
        // On a point-to-point link IFA_ADDRESS is the far end's.
        return (local ?? address) is { } found && message.Payload[1] <= 32
            ? new AddressInfo(MemoryMarshal.Read<int>(message.Payload[4..]), found, message.Payload[1], (message.Payload[2] & LinuxRtnetlink.IFA_F_PERMANENT) != 0)
            : null;
    }

    public override string ToString() => $"{Address}/{PrefixLength}";
}

/// <summary>An IPv6 address on an interface.</summary>
/// <param name="IsGlobal">Of global scope, which unique local addresses have as well.</param>
public sealed record Ipv6AddressInfo(int LinkIndex, Ipv6Address Address, int PrefixLength, bool IsGlobal)
{
    internal static Ipv6AddressInfo? Parse(in NetlinkMessage message)
    {
        if (message.Type != LinuxRtnetlink.RTM_NEWADDR || message.Payload.Length < LinuxRtnetlink.IfAddrLength
            || message.Payload[0] != SysSocket.AF_INET6 || message.Payload[1] > 128)
            return null;
        Ipv6Address? local = null, address = null;
        foreach (NetlinkAttribute attribute in message.Attributes(LinuxRtnetlink.IfAddrLength))
        {
            if (attribute.Value.Length != Ipv6Address.Length)
                continue;
            if (attribute.Type == LinuxRtnetlink.IFA_LOCAL)
                local = Ipv6Address.Read(attribute.Value);
            else if (attribute.Type == LinuxRtnetlink.IFA_ADDRESS)
                address = Ipv6Address.Read(attribute.Value);
        }
        return (local ?? address) is { } found
            ? new Ipv6AddressInfo(MemoryMarshal.Read<int>(message.Payload[4..]), found, message.Payload[1], message.Payload[3] == LinuxRtnetlink.RT_SCOPE_UNIVERSE)
            : null;
    }

    public override string ToString() => $"{Address}/{PrefixLength}";
}

/// <summary>An IPv4 route.</summary>
/// <param name="LinkIndex">Zero where it leads to no interface (blackhole), or to several.</param>
/// <param name="Type">RTN_….</param>
public sealed record RouteInfo(Ipv4Subnet Destination, int LinkIndex, uint Table, byte Type)
{
    /// <summary>The lowest is preferred.</summary>
    public uint Metric { get; init; }

    internal static RouteInfo? Parse(in NetlinkMessage message)
    {
        if (message.Type != LinuxRtnetlink.RTM_NEWROUTE || message.Payload.Length < LinuxRtnetlink.RtMsgLength
            || message.Payload[0] != SysSocket.AF_INET || message.Payload[1] > 32)
            return null;
        Ipv4Address destination = default;
        uint table = message.Payload[4], link = 0, metric = 0;
        foreach (NetlinkAttribute attribute in message.Attributes(LinuxRtnetlink.RtMsgLength))
        {
            if (attribute.Type == LinuxRtnetlink.RTA_DST)
                attribute.TryGetIpv4(out destination);
            else if (attribute.Type == LinuxRtnetlink.RTA_OIF)
                attribute.TryGetUInt32(out link);
            else if (attribute.Type == LinuxRtnetlink.RTA_PRIORITY)
                attribute.TryGetUInt32(out metric);
            else if (attribute.Type == LinuxRtnetlink.RTA_TABLE && attribute.TryGetUInt32(out uint wide))
                table = wide;
        }
        return new RouteInfo(new Ipv4Subnet(destination, message.Payload[1]), (int)link, table, message.Payload[7]) { Metric = metric };
    }
}

/// <summary>The kernel refused a request: its errno, and its own words where it has some.</summary>
public sealed class NetlinkException(string request, int errno, string text)
    : IOException(text.Length > 0 ? $"{request}: {text} (errno {errno})" : $"{request}: {new System.ComponentModel.Win32Exception(errno).Message} (errno {errno})")
{
    public int Errno { get; } = errno;
}
