using System.Runtime.InteropServices;

namespace VNetMesh.Native;

/// <summary>signal.h</summary>
public static partial class SysSignal
{
    public const int SIGKILL = 9;
    public const int SIGPIPE = 13;
    public const int SIGTERM = 15;
    public const nint SIG_DFL = 0;

    [LibraryImport("libc", SetLastError = true)]
    public static partial int kill(int pid, int signal);

    /// <summary>Sets what a signal does: SIG_DFL, the usual.</summary>
    [LibraryImport("libc", SetLastError = true)]
    public static partial nint signal(int signal, nint handler);
}
