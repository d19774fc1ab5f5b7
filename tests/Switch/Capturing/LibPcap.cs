using System.Runtime.InteropServices;
using VNetMesh.Switch.Capturing;

namespace VNetMesh.Switch.Tests.Capturing;

/// <summary>libpcap itself: its compiler, and its interpreter as the oracle.</summary>
internal static unsafe partial class LibPcap
{
    private const string Library = "libpcap.so.0.8";
    private const int DLT_EN10MB = 1;

    public static bool Available { get; } = NativeLibrary.TryLoad(Library, out _);

    /// <summary>Compiles for Ethernet. The netmask is that of a /24.</summary>
    public static BpfInstruction[] Compile(string filter, bool optimized = true)
    {
        nint handle = pcap_open_dead(DLT_EN10MB, 262144);
        try
        {
            bpf_program program;
            if (pcap_compile(handle, &program, filter, optimized ? 1 : 0, 0x00FF_FFFF) != 0)
                throw new ArgumentException(Marshal.PtrToStringUTF8(pcap_geterr(handle)), nameof(filter));
            BpfInstruction[] instructions = [.. new ReadOnlySpan<bpf_insn>(program.bf_insns, (int)program.bf_len).ToArray().Select(one => new BpfInstruction(one.code, one.jt, one.jf, one.k))];
            pcap_freecode(&program);
            return instructions;
        }
        finally
        {
            pcap_close(handle);
        }
    }

    /// <summary>What libpcap's interpreter says.</summary>
    public static uint Run(BpfInstruction[] program, byte[] frame)
    {
        bpf_insn[] native = [.. program.Select(one => new bpf_insn { code = one.Code, jt = one.JumpTrue, jf = one.JumpFalse, k = one.K })];
        fixed (bpf_insn* instructions = native)
        fixed (byte* octets = frame.Length == 0 ? new byte[1] : frame)
            return bpf_filter(instructions, octets, (uint)frame.Length, (uint)frame.Length);
    }

    public static bool IsValid(BpfInstruction[] program)
    {
        bpf_insn[] native = [.. program.Select(one => new bpf_insn { code = one.Code, jt = one.JumpTrue, jf = one.JumpFalse, k = one.K })];
        fixed (bpf_insn* instructions = native)
            return bpf_validate(instructions, native.Length) != 0;
    }

    [LibraryImport(Library)]
    private static partial nint pcap_open_dead(int linkType, int snapLength);

    [LibraryImport(Library)]
    private static partial void pcap_close(nint handle);

    [LibraryImport(Library)]
    private static partial nint pcap_geterr(nint handle);

    [LibraryImport(Library, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int pcap_compile(nint handle, bpf_program* program, string filter, int optimize, uint netmask);

    [LibraryImport(Library)]
    private static partial void pcap_freecode(bpf_program* program);

    [LibraryImport(Library)]
    private static partial uint bpf_filter(bpf_insn* program, byte* octets, uint wireLength, uint length);

    [LibraryImport(Library)]
    private static partial int bpf_validate(bpf_insn* program, int length);

    private struct bpf_program
    {
        public uint bf_len;
        public bpf_insn* bf_insns;
    }

    private struct bpf_insn
    {
        public ushort code;
        public byte jt;
        public byte jf;
        public uint k;
    }
}
