using System.Runtime.InteropServices;

namespace VNetMesh.Native;

/// <summary>sched.h: namespaces of the calling thread.</summary>
public static partial class Sched
{
    public const int CLONE_FS = 0x0000_0200;
    public const int CLONE_NEWNS = 0x0002_0000;
    public const int CLONE_NEWNET = 0x4000_0000;

    [LibraryImport("libc", SetLastError = true)]
    public static partial int setns(int fd, int kind);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int unshare(int flags);
}
