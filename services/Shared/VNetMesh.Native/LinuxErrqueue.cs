using System.Runtime.InteropServices;

namespace VNetMesh.Native;

/// <summary>linux/errqueue.h, and what of netinet/in.h goes with it.</summary>
public static class LinuxErrqueue
{
    public const byte SO_EE_ORIGIN_LOCAL = 1;
    public const byte SO_EE_ORIGIN_ICMP = 2;

    public const int IP_RECVTTL = 12;
    public const int IP_MTU_DISCOVER = 10;
    public const int IP_PMTUDISC_DONT = 0;
    public const int IP_PMTUDISC_DO = 2;

    /// <summary>struct sock_extended_err; the offender's sockaddr follows it.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct sock_extended_err
    {
        public uint ee_errno;
        public byte ee_origin;
        public byte ee_type;
        public byte ee_code;
        public byte ee_pad;
        public uint ee_info;
        public uint ee_data;
    }
}
