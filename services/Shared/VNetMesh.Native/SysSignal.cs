using System.Runtime.InteropServices;

namespace VNetMesh.Native;

/// <summary>signal.h</summary>
public static partial class SysSignal
{
    public const int SIGKILL = 9;
    public const int SIGTERM = 15;

    [LibraryImport("libc", SetLastError = true)]
    public static partial int kill(int pid, int signal);
}
