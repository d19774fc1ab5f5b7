using System.Runtime.InteropServices;

namespace VNetMesh.Native;

/// <summary>sys/resource.h</summary>
public static unsafe partial class SysResource
{
    public const int RLIMIT_NOFILE = 7;

    [StructLayout(LayoutKind.Sequential)]
    public struct rlimit
    {
        public ulong rlim_cur;
        public ulong rlim_max;
    }

    [LibraryImport("libc", SetLastError = true)]
    public static partial int getrlimit(int resource, rlimit* limit);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int setrlimit(int resource, rlimit* limit);

    /// <summary>Raises the soft limit on open descriptors to the hard one.</summary>
    /// <returns>Descriptors that the process may have open now.</returns>
    public static long RaiseDescriptorLimit()
    {
        rlimit limit;
        Syscall.Check(getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
        ulong soft = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit) == 0)
            soft = limit.rlim_max;
        return (long)Math.Min(soft, int.MaxValue);
    }
}
