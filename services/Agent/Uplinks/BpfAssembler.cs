using System.Buffers.Binary;

namespace VNetMesh.Agent.Uplinks;

/// <summary>
/// Writes programs for the kernel's BPF machine (RFC 9669), as far as ours need it. Registers are 0 to 10; 1 to 5 are a call's
/// arguments and lost by it, 6 to 9 are kept, 10 is the end of the stack.
/// </summary>
internal sealed class BpfAssembler
{
    private readonly List<ulong> _code = [];
    private readonly Dictionary<string, int> _labels = new(StringComparer.Ordinal);
    private readonly List<(int At, string Label)> _jumps = [];

    public BpfAssembler Move(int to, int from) => Emit(0xBF, to, from, 0, 0);

    public BpfAssembler Set(int register, int value) => Emit(0xB7, register, 0, 0, value);

    public BpfAssembler SetWide(int register, ulong value) => Emit(0x18, register, 0, 0, (int)(uint)value).Emit(0, 0, 0, 0, (int)(value >> 32));

    /// <summary>The address of a map (src_reg 1: BPF_PSEUDO_MAP_FD).</summary>
    public BpfAssembler SetMap(int register, int descriptor) => Emit(0x18, register, 1, 0, descriptor).Emit(0, 0, 0, 0, 0);

    /// <summary>An address on the stack, that many octets below its end.</summary>
    public BpfAssembler SetStack(int register, int below) => Move(register, 10).Emit(0x07, register, 0, 0, -below);

    public BpfAssembler ClearStack(int below) => Emit(0x7A, 10, 0, (short)-below, 0);

    public BpfAssembler LoadStack(int register, int below) => Emit(0x79, register, 10, (short)-below, 0);

    /// <summary>32 bits of what a register points to.</summary>
    public BpfAssembler LoadWord(int register, int pointer, short offset) => Emit(0x61, register, pointer, offset, 0);

    public BpfAssembler StoreWord(int pointer, short offset, int register) => Emit(0x63, pointer, register, offset, 0);

    public BpfAssembler Call(int function) => Emit(0x85, 0, 0, 0, function);

    public BpfAssembler JumpIfEqual(int register, int value, string label) => Jump(0x15, register, 0, value, label);

    public BpfAssembler JumpIfNotEqual(int register, int value, string label) => Jump(0x55, register, 0, value, label);

    public BpfAssembler JumpIfSame(int one, int other, string label) => Jump(0x1D, one, other, 0, label);

    public BpfAssembler JumpIfAnyBit(int register, int bits, string label) => Jump(0x45, register, 0, bits, label);

    public BpfAssembler Jump(string label) => Jump(0x05, 0, 0, 0, label);

    public BpfAssembler Return(int value) => Set(0, value).Exit();

    public BpfAssembler Exit() => Emit(0x95, 0, 0, 0, 0);

    public BpfAssembler Label(string name)
    {
        _labels.Add(name, _code.Count);
        return this;
    }

    /// <summary>The program; jumps lead to where their labels stand.</summary>
    public ulong[] Finish()
    {
        ulong[] code = [.. _code];
        foreach ((int at, string label) in _jumps)
            code[at] |= (ulong)(ushort)(short)(_labels[label] - at - 1) << 16;
        return code;
    }

    private BpfAssembler Jump(byte operation, int register, int other, int value, string label)
    {
        _jumps.Add((_code.Count, label));
        return Emit(operation, register, other, 0, value);
    }

    /// <summary>struct bpf_insn: code u8, registers (destination in the lower half, source in the upper), offset s16, immediate s32.</summary>
    private BpfAssembler Emit(byte operation, int destination, int source, short offset, int immediate)
    {
        Span<byte> octets = stackalloc byte[8];
        octets[0] = operation;
        octets[1] = (byte)((source << 4) | destination);
        BinaryPrimitives.WriteInt16LittleEndian(octets[2..], offset);
        BinaryPrimitives.WriteInt32LittleEndian(octets[4..], immediate);
        _code.Add(BinaryPrimitives.ReadUInt64LittleEndian(octets));
        return this;
    }
}
