using System.Buffers.Binary;

namespace VNetMesh.Switch.Capturing;

/// <summary>struct bpf_insn: an operation, two jumps and a constant.</summary>
public readonly record struct BpfInstruction(ushort Code, byte JumpTrue, byte JumpFalse, uint K);

/// <summary>
/// A program of the classic BSD packet filter (McCanne and Jacobson, 1993), as libpcap compiles filters to. It comes from a client and runs
/// on a forwarding thread, so it is checked before it is run: jumps lead forward and stay inside, so that every program ends
/// after at most as many steps as it has instructions; operations, memory slots and constant divisors and shifts are valid.
/// A load beyond the frame ends the program with "no". It gives what libpcap's bpf_filter gives. Running allocates nothing.
/// </summary>
public sealed class BpfProgram
{
    public const int MaxLength = 4096;

    private const int MemorySlots = 16;

    // The fields of an operation (net/bpf.h).
    private const int ClassMask = 0x07, SizeMask = 0x18, ModeMask = 0xE0, OperationMask = 0xF0, ReturnMask = 0x18;
    private const int Load = 0x00, LoadX = 0x01, Store = 0x02, StoreX = 0x03, Alu = 0x04, Jump = 0x05, Return = 0x06, Miscellaneous = 0x07;
    private const int Word = 0x00, Half = 0x08, Byte = 0x10;
    private const int Immediate = 0x00, Absolute = 0x20, Indirect = 0x40, Memory = 0x60, Length = 0x80, HeaderLength = 0xA0;
    private const int Add = 0x00, Subtract = 0x10, Multiply = 0x20, Divide = 0x30, Or = 0x40, And = 0x50, ShiftLeft = 0x60, ShiftRight = 0x70, Negate = 0x80, Modulo = 0x90, Xor = 0xA0;
    private const int Always = 0x00, Equal = 0x10, Greater = 0x20, GreaterOrEqual = 0x30, AnySet = 0x40;
    private const int SourceX = 0x08;
    private const int ReturnAccumulator = 0x10;
    private const int TransferToAccumulator = 0x80;

    private readonly BpfInstruction[] _instructions;
    private readonly bool _usesMemory;

    // Cleared before each run of a program that uses it; one thread at a time runs a program.
    private readonly uint[] _memory = new uint[MemorySlots];

    private BpfProgram(BpfInstruction[] instructions)
    {
        _instructions = instructions;
        _usesMemory = instructions.Any(one => (one.Code & ClassMask) is Store or StoreX || ((one.Code & ClassMask) is Load or LoadX && (one.Code & ModeMask) == Memory));
    }

    /// <summary>Takes a program that is safe to run.</summary>
    /// <param name="fault">Which instruction is wrong, and how; empty when none is.</param>
    /// <returns>Null when it is not.</returns>
    public static BpfProgram? TryCreate(ReadOnlySpan<BpfInstruction> instructions, out string fault)
    {
        fault = "";
        if (instructions.Length is 0 or > MaxLength)
            fault = $"a program has 1 to {MaxLength} instructions, not {instructions.Length}";
        for (int at = 0; at < instructions.Length && fault.Length == 0; at++)
        {
            if (FaultOf(instructions[at], instructions.Length - at - 1) is { } found)
                fault = $"instruction {at} {found}";
        }
        if (fault.Length == 0 && (instructions[^1].Code & ClassMask) != Return)
            fault = "the last instruction does not return";
        return fault.Length == 0 ? new BpfProgram(instructions.ToArray()) : null;
    }

    /// <summary>Whether a frame passes. The frame may lie in memory that changes meanwhile: that changes the answer at most.</summary>
    public bool Matches(ReadOnlySpan<byte> frame) => Run(frame) != 0;

    /// <summary>What the program returns for a frame: for libpcap's filters 0, or the number of octets to keep.</summary>
    internal uint Run(ReadOnlySpan<byte> frame)
    {
        if (_usesMemory)
            Array.Clear(_memory);
        ReadOnlySpan<BpfInstruction> program = _instructions;
        uint accumulator = 0, index = 0;
        for (int at = 0; ; at++)
        {
            BpfInstruction one = program[at];
            switch (one.Code & ClassMask)
            {
                case Return:
                    return (one.Code & ReturnMask) == ReturnAccumulator ? accumulator : one.K;
                case Jump:
                    at += Distance(one, accumulator, index);
                    break;
                case Load:
                    if (!TryLoad(one, frame, index, out accumulator))
                        return 0;
                    break;
                case LoadX:
                    if (!TryLoadX(one, frame, out index))
                        return 0;
                    break;
                case Store:
                    _memory[one.K] = accumulator;
                    break;
                case StoreX:
                    _memory[one.K] = index;
                    break;
                case Alu:
                    uint operand = (one.Code & SourceX) != 0 ? index : one.K;
                    if (operand == 0 && (one.Code & OperationMask) is Divide or Modulo)
                        return 0;
                    accumulator = Compute(one.Code & OperationMask, accumulator, operand);
                    break;
                default:
                    if ((one.Code & TransferToAccumulator) != 0)
                        accumulator = index;
                    else
                        index = accumulator;
                    break;
            }
        }
    }

    private static int Distance(in BpfInstruction one, uint accumulator, uint index)
    {
        uint operand = (one.Code & SourceX) != 0 ? index : one.K;
        bool holds;
        switch (one.Code & OperationMask)
        {
            case Always:
                return (int)one.K;
            case Equal:
                holds = accumulator == operand;
                break;
            case Greater:
                holds = accumulator > operand;
                break;
            case GreaterOrEqual:
                holds = accumulator >= operand;
                break;
            default:
                holds = (accumulator & operand) != 0;
                break;
        }
        return holds ? one.JumpTrue : one.JumpFalse;
    }

    private bool TryLoad(in BpfInstruction one, ReadOnlySpan<byte> frame, uint index, out uint value)
    {
        value = 0;
        switch (one.Code & ModeMask)
        {
            case Immediate:
                value = one.K;
                return true;
            case Memory:
                value = _memory[one.K];
                return true;
            case Length:
                value = (uint)frame.Length;
                return true;
            case Absolute:
                return TryRead(one.Code & SizeMask, frame, one.K, out value);
            default:
                return TryRead(one.Code & SizeMask, frame, (ulong)index + one.K, out value);
        }
    }

    private bool TryLoadX(in BpfInstruction one, ReadOnlySpan<byte> frame, out uint value)
    {
        switch (one.Code & ModeMask)
        {
            case Immediate:
                value = one.K;
                return true;
            case Memory:
                value = _memory[one.K];
                return true;
            case Length:
                value = (uint)frame.Length;
                return true;
            default:
                // The length of an IPv4 header that begins there.
                bool inside = TryRead(Byte, frame, one.K, out value);
                value = (value & 0x0F) << 2;
                return inside;
        }
    }

    private static bool TryRead(int size, ReadOnlySpan<byte> frame, ulong offset, out uint value)
    {
        int octets = size == Word ? 4 : size == Half ? 2 : 1;
        value = 0;
        if (offset + (ulong)octets > (ulong)frame.Length)
            return false;
        ReadOnlySpan<byte> from = frame.Slice((int)offset, octets);
        value = octets == 4 ? BinaryPrimitives.ReadUInt32BigEndian(from) : octets == 2 ? BinaryPrimitives.ReadUInt16BigEndian(from) : from[0];
        return true;
    }

    private static uint Compute(int operation, uint accumulator, uint operand) => operation switch
    {
        Add => accumulator + operand,
        Subtract => accumulator - operand,
        Multiply => accumulator * operand,
        Divide => accumulator / operand,
        Modulo => accumulator % operand,
        Or => accumulator | operand,
        And => accumulator & operand,
        Xor => accumulator ^ operand,
        ShiftLeft => operand < 32 ? accumulator << (int)operand : 0,
        ShiftRight => operand < 32 ? accumulator >> (int)operand : 0,
        _ => (uint)-(int)accumulator,
    };

    /// <param name="left">Instructions that follow.</param>
    private static string? FaultOf(in BpfInstruction one, int left)
    {
        string unknown = $"has an operation that is not known (0x{one.Code:x2})";
        if (one.Code > byte.MaxValue)
            return unknown;
        switch (one.Code & ClassMask)
        {
            case Load:
                return (one.Code & ModeMask) switch
                {
                    Absolute or Indirect => (one.Code & SizeMask) <= Byte ? null : unknown,
                    Immediate or Length => (one.Code & SizeMask) == Word ? null : unknown,
                    Memory => (one.Code & SizeMask) == Word ? FaultOfSlot(one) : unknown,
                    _ => unknown,
                };
            case LoadX:
                return (one.Code & ModeMask) switch
                {
                    Immediate or Length => (one.Code & SizeMask) == Word ? null : unknown,
                    Memory => (one.Code & SizeMask) == Word ? FaultOfSlot(one) : unknown,
                    HeaderLength => (one.Code & SizeMask) == Byte ? null : unknown,
                    _ => unknown,
                };
            case Store or StoreX:
                return one.Code is Store or StoreX ? FaultOfSlot(one) : unknown;
            case Alu:
                return FaultOfComputation(one, unknown);
            case Jump:
                return FaultOfJump(one, left, unknown);
            case Return:
                return one.Code is Return or (Return | ReturnAccumulator) ? null : unknown;
            default:
                return one.Code is Miscellaneous or (Miscellaneous | TransferToAccumulator) ? null : unknown;
        }
    }

    private static string? FaultOfSlot(in BpfInstruction one) => one.K < MemorySlots ? null : $"uses slot {one.K} of {MemorySlots}";

    private static string? FaultOfComputation(in BpfInstruction one, string unknown)
    {
        bool isConstant = (one.Code & SourceX) == 0;
        return (one.Code & OperationMask) switch
        {
            Divide or Modulo => isConstant && one.K == 0 ? "divides by zero" : null,
            ShiftLeft or ShiftRight => isConstant && one.K > 31 ? $"shifts by {one.K}" : null,
            Negate => isConstant ? null : unknown,
            <= Xor => null,
            _ => unknown,
        };
    }

    private static string? FaultOfJump(in BpfInstruction one, int left, string unknown) => (one.Code & OperationMask) switch
    {
        Always => (one.Code & SourceX) != 0 ? unknown : one.K < left ? null : "jumps out of the program",
        Equal or Greater or GreaterOrEqual or AnySet => Math.Max(one.JumpTrue, one.JumpFalse) < left ? null : "jumps out of the program",
        _ => unknown,
    };
}
