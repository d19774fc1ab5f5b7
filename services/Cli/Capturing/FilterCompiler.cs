using System.Runtime.InteropServices;
using PacketDotNet;
using SharpPcap;
using SharpPcap.LibPcap;
using VNetMesh.Cli.Connections;
using VNetMesh.V1;

namespace VNetMesh.Cli.Capturing;

/// <summary>
/// Filters in libpcap's language, compiled by libpcap itself, here: the switch, which runs the program, needs no libpcap and has no names
/// of hosts to look up.
/// </summary>
internal static class FilterCompiler
{
    /// <summary>struct bpf_insn: code 16 bits, jt 8, jf 8, k 32.</summary>
    private const int InstructionLength = 8;

    /// <param name="text">As in pcap-filter(7), for Ethernet.</param>
    /// <param name="subnet">The network's, in CIDR notation, for "ip broadcast"; may be empty.</param>
    /// <exception cref="CliException">libpcap does not understand the filter, or is not installed.</exception>
    public static CaptureFilter Compile(string text, string subnet)
    {
        try
        {
            using BpfProgram program = BpfProgram.Create(LinkLayers.Ethernet, text, optimize: 1, NetmaskOf(subnet));
            return Read(program, text);
        }
        catch (PcapException exception)
        {
            throw new CliException(ExitCode.Usage, $"the filter '{text}' is not understood: {exception.Message.ReplaceLineEndings(" ").TrimEnd('.')}; see pcap-filter(7)");
        }
        catch (Exception exception) when (exception is DllNotFoundException or TypeInitializationException { InnerException: DllNotFoundException })
        {
            throw new CliException(ExitCode.Failed, "a filter is compiled by libpcap, which is not installed: apt-get install libpcap0.8");
        }
    }

    /// <summary>struct bpf_program: the number of instructions, and where they are.</summary>
    private static CaptureFilter Read(BpfProgram program, string text)
    {
        nint handle = program.DangerousGetHandle();
        int count = Marshal.ReadInt32(handle);
        nint instructions = Marshal.ReadIntPtr(handle, IntPtr.Size);
        var filter = new CaptureFilter { Text = text };
        for (int offset = 0; offset < count * InstructionLength; offset += InstructionLength)
        {
            filter.Instructions.Add(new BpfInstruction
            {
                Code = (ushort)Marshal.ReadInt16(instructions, offset),
                Jt = Marshal.ReadByte(instructions, offset + 2),
                Jf = Marshal.ReadByte(instructions, offset + 3),
                K = (uint)Marshal.ReadInt32(instructions, offset + 4),
            });
        }
        return filter;
    }

    /// <summary>As pcap_compile takes it; PCAP_NETMASK_UNKNOWN where there is none.</summary>
    private static uint NetmaskOf(string subnet) =>
        System.Net.IPNetwork.TryParse(subnet, out System.Net.IPNetwork network) && network.PrefixLength is > 0 and <= 32
            ? uint.MaxValue << (32 - network.PrefixLength)
            : uint.MaxValue;
}
