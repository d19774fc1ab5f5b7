using System.ComponentModel;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace VNetMesh.Native;

/// <summary>An owned descriptor of the kernel's, closed once.</summary>
public sealed class FileDescriptor : SafeHandleMinusOneIsInvalid
{
    public FileDescriptor() : base(ownsHandle: true)
    {
    }

    public FileDescriptor(int descriptor) : base(ownsHandle: true) => SetHandle(descriptor);

    /// <summary>The number, for calls on hot paths; the caller keeps this object alive.</summary>
    public int Number => (int)handle;

    /// <summary>A second descriptor for the same open file, close-on-exec.</summary>
    public FileDescriptor Duplicate() => new(Syscall.Check(Fcntl.fcntl(Number, Fcntl.F_DUPFD_CLOEXEC, 0), "fcntl(F_DUPFD_CLOEXEC)"));

    // close is not retried on EINTR: Linux has let go of the descriptor already (close(2)).
    protected override bool ReleaseHandle() => Unistd.close((int)handle) == 0;
}

/// <summary>A system call failed: what was called, and errno.</summary>
public sealed class SyscallException : IOException
{
    public SyscallException(string call, int errno) : base($"{call}: {new Win32Exception(errno).Message} (errno {errno})")
    {
        Call = call;
        Errno = errno;
    }

    public string Call { get; }

    public int Errno { get; }
}

/// <summary>The one place that turns a result of −1 into an exception and owns the EINTR retry.</summary>
public static class Syscall
{
    /// <summary>errno of the last call made by this thread through LibraryImport.</summary>
    public static int Errno => Marshal.GetLastPInvokeError();

    /// <exception cref="SyscallException">The result is negative.</exception>
    public static int Check(int result, string call) => result >= 0 ? result : throw new SyscallException(call, Errno);

    /// <exception cref="SyscallException">The result is negative.</exception>
    public static nint Check(nint result, string call) => result >= 0 ? result : throw new SyscallException(call, Errno);

    /// <summary>Calls until the call was not interrupted by a signal; −1 and errno are left to the caller.</summary>
    public static nint Retry<T>(T argument, Func<T, nint> call)
    {
        nint result;
        do
        {
            result = call(argument);
        }
        while (result < 0 && Errno == NativeErrno.EINTR);
        return result;
    }
}
