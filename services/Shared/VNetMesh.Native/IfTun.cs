using System.Runtime.InteropServices;
using System.Text;

namespace VNetMesh.Native;

/// <summary>linux/if_tun.h, and what of net/if.h it needs.</summary>
public static unsafe partial class IfTun
{
    /// <summary>Octets of an interface name, the closing zero included.</summary>
    public const int IFNAMSIZ = 16;

    public const short IFF_TAP = 0x0002;
    public const short IFF_NO_PI = 0x1000;
    public const short IFF_VNET_HDR = 0x4000;
    public const short IFF_MULTI_QUEUE = 0x0100;
    public const ushort IFF_PERSIST = 0x0800;
    public const short IFF_ATTACH_QUEUE = 0x0200;
    public const short IFF_DETACH_QUEUE = 0x0400;
    public const short IFF_TUN_EXCL = unchecked((short)0x8000);

    public const uint TUN_F_CSUM = 0x01;
    public const uint TUN_F_TSO4 = 0x02;
    public const uint TUN_F_TSO6 = 0x04;
    public const uint TUN_F_USO4 = 0x20;
    public const uint TUN_F_USO6 = 0x40;

    // _IOW('T', n, int), _IOR('T', 210, unsigned int) of asm-generic/ioctl.h (x86-64 and arm64).
    public const nuint TUNSETIFF = 0x400454CA;
    public const nuint TUNSETPERSIST = 0x400454CB;
    public const nuint TUNSETOFFLOAD = 0x400454D0;
    public const nuint TUNGETIFF = 0x800454D2;
    public const nuint TUNGETVNETHDRSZ = 0x800454D7;
    public const nuint TUNSETVNETHDRSZ = 0x400454D8;
    public const nuint TUNSETQUEUE = 0x400454D9;

    public const string DevicePath = "/dev/net/tun";

    /// <summary>struct ifreq of a 64-bit system: a name and a union of 24 octets, of which the flags are the first two.</summary>
    [StructLayout(LayoutKind.Sequential, Size = 40)]
    public struct ifreq
    {
        public fixed byte ifr_name[IFNAMSIZ];
        public short ifr_flags;
        private fixed byte _rest[22];

        /// <exception cref="ArgumentException">The name has more than 15 octets.</exception>
        public void SetName(string name)
        {
            if (Encoding.UTF8.GetByteCount(name) >= IFNAMSIZ)
                throw new ArgumentException($"the interface name '{name}' is longer than {IFNAMSIZ - 1} octets", nameof(name));
            fixed (byte* octets = ifr_name)
            {
                var target = new Span<byte>(octets, IFNAMSIZ);
                target.Clear();
                Encoding.UTF8.GetBytes(name, target);
            }
        }

        public readonly string GetName()
        {
            fixed (byte* octets = ifr_name)
            {
                var bytes = new ReadOnlySpan<byte>(octets, IFNAMSIZ);
                int end = bytes.IndexOf((byte)0);
                return Encoding.UTF8.GetString(end < 0 ? bytes : bytes[..end]);
            }
        }
    }

    [LibraryImport("libc", SetLastError = true)]
    public static partial int ioctl(int fd, nuint request, void* argument);

    /// <summary>ioctl with a number as argument (TUNSETOFFLOAD, TUNSETPERSIST).</summary>
    [LibraryImport("libc", SetLastError = true)]
    public static partial int ioctl(int fd, nuint request, nuint argument);
}
