namespace VNetMesh.Native;

/// <summary>linux/rtnetlink.h, if_link.h, if_addr.h and net/if.h: what the agent asks of it.</summary>
public static class LinuxRtnetlink
{
    public const ushort RTM_NEWLINK = 16;
    public const ushort RTM_DELLINK = 17;
    public const ushort RTM_GETLINK = 18;
    public const ushort RTM_NEWADDR = 20;
    public const ushort RTM_DELADDR = 21;
    public const ushort RTM_GETADDR = 22;
    public const ushort RTM_NEWROUTE = 24;
    public const ushort RTM_GETROUTE = 26;

    /// <summary>struct ifinfomsg: family u8, pad, type u16, index i32, flags u32, change u32.</summary>
    public const int IfInfoLength = 16;

    /// <summary>struct ifaddrmsg: family u8, prefix length u8, flags u8, scope u8, index u32.</summary>
    public const int IfAddrLength = 8;

    /// <summary>struct rtmsg: family, destination length, source length, TOS, table, protocol, scope, type (u8 each), flags u32.</summary>
    public const int RtMsgLength = 12;

    public const ushort IFLA_ADDRESS = 1;
    public const ushort IFLA_IFNAME = 3;
    public const ushort IFLA_MTU = 4;
    public const ushort IFLA_MASTER = 10;
    public const ushort IFLA_LINKINFO = 18;
    public const ushort IFLA_IFALIAS = 20;
    public const ushort IFLA_INFO_KIND = 1;

    public const ushort IFA_ADDRESS = 1;
    public const ushort IFA_LOCAL = 2;
    public const byte IFA_F_PERMANENT = 0x80;
    public const ushort IFA_BROADCAST = 4;

    /// <summary>No duplicate address detection: the address is usable at once.</summary>
    public const byte IFA_F_NODAD = 2;

    public const ushort RTA_DST = 1;
    public const ushort RTA_OIF = 4;
    public const ushort RTA_PRIORITY = 6;
    public const ushort RTA_TABLE = 15;

    public const byte RT_TABLE_MAIN = 254;
    public const byte RT_TABLE_LOCAL = 255;
    public const byte RTN_UNICAST = 1;
    public const byte RTN_BLACKHOLE = 6;
    public const byte RTN_UNREACHABLE = 7;
    public const byte RTN_PROHIBIT = 8;
    public const byte RT_SCOPE_UNIVERSE = 0;
    public const byte RT_SCOPE_LINK = 253;

    public const uint IFF_UP = 1;
    public const uint IFF_NOARP = 0x80;
    public const uint IFF_PROMISC = 0x100;
    public const uint IFF_LOWER_UP = 0x10000;

    /// <summary>linux/if_arp.h</summary>
    public const ushort ARPHRD_ETHER = 1;
}
