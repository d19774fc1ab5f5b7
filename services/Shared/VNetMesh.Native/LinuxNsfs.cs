using System.Runtime.InteropServices;

namespace VNetMesh.Native;

/// <summary>linux/nsfs.h</summary>
public static partial class LinuxNsfs
{
    /// <summary>_IO(0xb7, 0x3): the CLONE_NEW… of the namespace that a descriptor stands for.</summary>
    public const nuint NS_GET_NSTYPE = 0xB703;

    [LibraryImport("libc", SetLastError = true)]
    public static partial int ioctl(int fd, nuint request);
}
