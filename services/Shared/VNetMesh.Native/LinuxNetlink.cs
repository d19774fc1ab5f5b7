using System.Runtime.InteropServices;

namespace VNetMesh.Native;

/// <summary>linux/netlink.h</summary>
public static class LinuxNetlink
{
    public const int NETLINK_ROUTE = 0;

    public const int SOL_NETLINK = 270;
    public const int NETLINK_EXT_ACK = 11;
    public const int NETLINK_GET_STRICT_CHK = 12;

    public const ushort NLMSG_NOOP = 1;
    public const ushort NLMSG_ERROR = 2;
    public const ushort NLMSG_DONE = 3;
    public const ushort NLMSG_OVERRUN = 4;

    public const ushort NLM_F_REQUEST = 0x01;
    public const ushort NLM_F_MULTI = 0x02;
    public const ushort NLM_F_ACK = 0x04;
    public const ushort NLM_F_DUMP_INTR = 0x10;
    public const ushort NLM_F_REPLACE = 0x100;
    public const ushort NLM_F_EXCL = 0x200;
    public const ushort NLM_F_CREATE = 0x400;
    public const ushort NLM_F_DUMP = 0x300;
    public const ushort NLM_F_CAPPED = 0x100;
    public const ushort NLM_F_ACK_TLVS = 0x200;

    public const ushort NLMSGERR_ATTR_MSG = 1;

    public const ushort NLA_F_NESTED = 0x8000;
    public const ushort NLA_TYPE_MASK = 0x3FFF;

    /// <summary>Octets of struct nlmsghdr: length u32, type u16, flags u16, sequence u32, port u32.</summary>
    public const int NLMSG_HDRLEN = 16;

    /// <summary>Octets of struct nlattr: length u16, type u16.</summary>
    public const int NLA_HDRLEN = 4;

    /// <summary>Messages and attributes begin at multiples of four octets.</summary>
    public static int Align(int length) => (length + 3) & ~3;

    [StructLayout(LayoutKind.Sequential)]
    public struct sockaddr_nl
    {
        public ushort nl_family;
        public ushort nl_pad;
        public uint nl_pid;
        public uint nl_groups;
    }
}
