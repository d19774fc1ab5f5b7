namespace VNetMesh.Native;

/// <summary>linux/pkt_sched.h, linux/pkt_cls.h and what of linux/rtnetlink.h goes with them.</summary>
public static class LinuxTrafficControl
{
    public const ushort RTM_NEWQDISC = 36;
    public const ushort RTM_DELQDISC = 37;
    public const ushort RTM_GETQDISC = 38;
    public const ushort RTM_NEWTFILTER = 44;
    public const ushort RTM_DELTFILTER = 45;
    public const ushort RTM_GETTFILTER = 46;

    /// <summary>struct tcmsg: family u8, pad, ifindex i32, handle u32, parent u32, info u32.</summary>
    public const int TcMsgLength = 20;

    public const ushort TCA_KIND = 1;
    public const ushort TCA_OPTIONS = 2;

    public const ushort TCA_BPF_FD = 6;
    public const ushort TCA_BPF_NAME = 7;
    public const ushort TCA_BPF_FLAGS = 8;
    public const uint TCA_BPF_FLAG_ACT_DIRECT = 1;

    public const uint TC_H_CLSACT = 0xFFFF_FFF1;

    /// <summary>TC_H_MAKE(TC_H_CLSACT, 0): the handle of the ingress and of the clsact discipline.</summary>
    public const uint ClsactHandle = 0xFFFF_0000;

    /// <summary>TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)</summary>
    public const uint IngressHook = 0xFFFF_FFF2;

    /// <summary>TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)</summary>
    public const uint EgressHook = 0xFFFF_FFF3;
}
