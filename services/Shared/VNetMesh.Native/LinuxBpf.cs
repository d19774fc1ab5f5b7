using System.Runtime.InteropServices;
using System.Text;

namespace VNetMesh.Native;

/// <summary>linux/bpf.h: maps and programs, and the instructions that programs of ours use.</summary>
public static unsafe partial class LinuxBpf
{
    public const int BPF_MAP_CREATE = 0;
    public const int BPF_MAP_LOOKUP_ELEM = 1;
    public const int BPF_PROG_LOAD = 5;

    public const uint BPF_MAP_TYPE_LRU_HASH = 9;
    public const uint BPF_PROG_TYPE_SCHED_CLS = 3;

    public const int BPF_FUNC_map_lookup_elem = 1;
    public const int BPF_FUNC_map_update_elem = 2;
    public const int BPF_FUNC_map_delete_elem = 3;
    public const int BPF_FUNC_clone_redirect = 13;
    public const int BPF_FUNC_redirect = 23;
    public const int BPF_FUNC_skb_load_bytes = 26;

    public const int BPF_F_INGRESS = 1;

    /// <summary>linux/pkt_cls.h: what a program answers.</summary>
    public const int TC_ACT_UNSPEC = -1;
    public const int TC_ACT_SHOT = 2;

    /// <summary>offsetof(struct __sk_buff, tc_index)</summary>
    public const short SkBuffTcIndex = 44;

    private const int AttributesLength = 128;

    /// <summary>__NR_bpf of asm/unistd.h.</summary>
    private static nint CallNumber => RuntimeInformation.ProcessArchitecture switch
    {
        Architecture.X64 => 321,
        Architecture.Arm64 => 280,
        _ => throw new PlatformNotSupportedException("bpf(2) is known here for x86-64 and arm64 alone"),
    };

    /// <exception cref="SyscallException">EPERM: CAP_BPF, or CAP_SYS_ADMIN, is missing.</exception>
    public static FileDescriptor CreateMap(uint type, uint keySize, uint valueSize, uint maxEntries)
    {
        byte* attributes = stackalloc byte[AttributesLength];
        new Span<byte>(attributes, AttributesLength).Clear();
        uint* fields = (uint*)attributes;
        (fields[0], fields[1], fields[2], fields[3]) = (type, keySize, valueSize, maxEntries);
        return new FileDescriptor((int)Syscall.Check((int)Call(BPF_MAP_CREATE, attributes), "bpf(BPF_MAP_CREATE)"));
    }

    /// <summary>Loads a program for the traffic control's classifiers.</summary>
    /// <param name="name">At most 15 of letters, digits, '_' and '.'.</param>
    /// <exception cref="SyscallException">EPERM, or the kernel's verifier refused it (EACCES, EINVAL); the message has its last words.</exception>
    public static FileDescriptor LoadClassifier(string name, ReadOnlySpan<ulong> instructions)
    {
        byte* attributes = stackalloc byte[AttributesLength];
        new Span<byte>(attributes, AttributesLength).Clear();
        byte[] log = new byte[32 * 1024];
        fixed (ulong* code = instructions)
        fixed (byte* license = "MIT\0"u8, words = log)
        {
            ((uint*)attributes)[0] = BPF_PROG_TYPE_SCHED_CLS;
            ((uint*)attributes)[1] = (uint)instructions.Length;
            ((ulong*)attributes)[1] = (ulong)code;
            ((ulong*)attributes)[2] = (ulong)license;
            Encoding.ASCII.GetBytes(name, new Span<byte>(attributes + 48, 15));
            int descriptor = (int)Call(BPF_PROG_LOAD, attributes);
            if (descriptor >= 0)
                return new FileDescriptor(descriptor);
            int errno = Syscall.Errno;
            ((uint*)attributes)[6] = 1;
            ((uint*)attributes)[7] = (uint)log.Length;
            ((ulong*)attributes)[4] = (ulong)words;
            _ = Call(BPF_PROG_LOAD, attributes);
            string said = Encoding.UTF8.GetString(log).TrimEnd('\0').TrimEnd();
            throw new SyscallException($"bpf(BPF_PROG_LOAD, {name}): {said[Math.Max(0, said.Length - 400)..]}", errno);
        }
    }

    private static nint Call(int command, void* attributes) => syscall(CallNumber, command, (nint)attributes, AttributesLength);

    [LibraryImport("libc", SetLastError = true)]
    private static partial nint syscall(nint number, nint command, nint attributes, nint size);
}
