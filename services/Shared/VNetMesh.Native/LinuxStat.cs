using System.Runtime.InteropServices;

namespace VNetMesh.Native;

/// <summary>linux/stat.h: statx(2), whose structure is the same on every architecture.</summary>
public static unsafe partial class LinuxStat
{
    public const int AT_EMPTY_PATH = 0x1000;
    public const uint STATX_INO = 0x100;

    /// <summary>struct statx, as far as it is used: 256 octets.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 256)]
    public struct statx_buffer
    {
        [FieldOffset(0)] public uint stx_mask;
        [FieldOffset(32)] public ulong stx_ino;
    }

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    public static partial int statx(int directory, string path, int flags, uint mask, statx_buffer* buffer);

    /// <summary>The inode's number of an open file.</summary>
    /// <exception cref="SyscallException">The descriptor is not open.</exception>
    public static ulong InodeOf(int fd)
    {
        statx_buffer buffer;
        Syscall.Check(statx(fd, "", AT_EMPTY_PATH, STATX_INO, &buffer), "statx");
        return buffer.stx_ino;
    }
}
