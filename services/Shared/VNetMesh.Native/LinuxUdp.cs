namespace VNetMesh.Native;

/// <summary>linux/udp.h, and what of netinet/in.h goes with it.</summary>
public static class LinuxUdp
{
    public const int SOL_UDP = 17;

    /// <summary>Octets of each datagram that one call sends; the last may be shorter. Also a control message.</summary>
    public const int UDP_SEGMENT = 103;

    /// <summary>Datagrams may come several in one; a control message of this type says how many octets each has.</summary>
    public const int UDP_GRO = 104;
}
