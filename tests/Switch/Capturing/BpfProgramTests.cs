using System.Buffers.Binary;
using CsCheck;
using VNetMesh.Switch.Capturing;

namespace VNetMesh.Switch.Tests.Capturing;

public sealed class BpfProgramTests
{
    /// <summary>Every operation that a program may have.</summary>
    private static readonly ushort[] Operations =
    [
        0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x00, 0x60, 0x80, 0x01, 0x61, 0x81, 0xB1, 0x02, 0x03,
        0x04, 0x0C, 0x14, 0x1C, 0x24, 0x2C, 0x34, 0x3C, 0x44, 0x4C, 0x54, 0x5C, 0x64, 0x6C, 0x74, 0x7C, 0x84, 0x94, 0x9C, 0xA4, 0xAC,
        0x05, 0x15, 0x1D, 0x25, 0x2D, 0x35, 0x3D, 0x45, 0x4D, 0x06, 0x16, 0x07, 0x87,
    ];

    private static readonly string[] Filters =
    [
        "tcp port 80", "udp", "icmp or icmp6", "arp", "host 192.168.108.128", "net 10.0.0.0/8 and not port 22", "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
        "ether host 02:56:4e:00:00:0a", "vlan 5 and tcp", "ip6 and udp port 53", "portrange 1000-2000", "less 100", "greater 1000", "ip broadcast", "ether multicast",
        "ip[8] < 5", "tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420", "ip proto 47", "not ip", "ip6 protochain 6", "len % 7 = 3", "udp[4:2] * 2 > 100",
    ];

    private static readonly Gen<uint> Numbers = Gen.OneOf(Gen.UInt[0, 80], Gen.UInt, Of(0u, 0xFFFF_FFFF, 0xFFFF_FFFC, 0x8000_0000));

    /// <summary>libpcap's memory is not cleared before a run, ours is: every program begins by clearing it.</summary>
    private static readonly BpfInstruction[] ClearMemory = [.. Enumerable.Range(0, 16).Select(slot => new BpfInstruction(0x02, 0, 0, (uint)slot))];

    private static Gen<BpfInstruction[]> Programs { get; } = Gen.Int[1, 40].SelectMany(length =>
        Gen.Select(Of(Operations), Gen.Byte, Gen.Byte, Numbers).Array[length].Select(parts =>
            ClearMemory.Concat(parts.Select((part, at) => Tame(part.Item1, part.Item2, part.Item3, part.Item4, length - at - 1))).ToArray()));

    public static TheoryData<string> AllFilters => [.. Filters];

    [Fact]
    public void RandomProgramsGiveWhatLibpcapGives()
    {
        NeedsLibpcap();
        Gen.Select(Programs, Gen.Byte.Array[0, 120]).Sample((instructions, frame) =>
        {
            BpfProgram? program = BpfProgram.TryCreate(instructions, out string fault);
            Assert.True(program is not null, fault);
            Assert.Equal(LibPcap.Run(instructions, frame), program.Run(frame));
        }, iter: 30_000);
    }

    [Theory]
    [MemberData(nameof(AllFilters))]
    public void FiltersSelectWhatLibpcapSelects(string filter)
    {
        NeedsLibpcap();
        foreach (bool optimized in new[] { true, false })
        {
            // libpcap's own walk of IPv6 headers jumps backwards: such a program could run for ever, and is not taken.
            BpfInstruction[] instructions = LibPcap.Compile(filter, optimized);
            BpfProgram? program = BpfProgram.TryCreate(instructions, out string fault);
            if (filter.Contains("protochain", StringComparison.Ordinal))
            {
                Assert.Contains("jumps out of the program", fault, StringComparison.Ordinal);
                continue;
            }
            Assert.True(program is not null, fault);
            // One thread at a time runs a program: it has one memory.
            PacketGen.Any.Sample(frame => Assert.Equal(LibPcap.Run(instructions, frame) != 0, program.Matches(frame)), iter: 500, threads: 1);
        }
    }

    /// <summary>What is refused by libpcap's check is never accepted here. (Here more is refused: unknown operations, senseless shifts.)</summary>
    [Fact]
    public void WhatIsAcceptedIsValid()
    {
        NeedsLibpcap();
        int accepted = 0;
        Gen.Select(Gen.OneOf(Of(Operations), Gen.UShort), Gen.Byte[0, 6], Gen.Byte[0, 6], Numbers).Array[1, 4].Sample(parts =>
        {
            BpfInstruction[] instructions = [.. parts.Select(part => new BpfInstruction(part.Item1, part.Item2, part.Item3, part.Item4))];
            if (BpfProgram.TryCreate(instructions, out _) is not { } program)
                return;
            Interlocked.Increment(ref accepted);
            Assert.True(LibPcap.IsValid(instructions));
            program.Run(new byte[60]);
        }, iter: 100_000);
        Assert.True(accepted > 100);
    }

    [Theory]
    [InlineData("has an operation", 0x0D, 0, 0, 0u)]
    [InlineData("has an operation", 0xFFFF, 0, 0, 0u)]
    [InlineData("has an operation", 0xC0, 0, 0, 0u)]
    [InlineData("has an operation", 0x55, 0, 0, 0u)]
    [InlineData("jumps out", 0x15, 1, 0, 0u)]
    [InlineData("jumps out", 0x15, 0, 255, 0u)]
    [InlineData("jumps out", 0x05, 0, 0, 1u)]
    [InlineData("jumps out", 0x05, 0, 0, 0xFFFF_FFFFu)]
    [InlineData("slot 16", 0x60, 0, 0, 16u)]
    [InlineData("slot 16", 0x02, 0, 0, 16u)]
    [InlineData("divides by zero", 0x34, 0, 0, 0u)]
    [InlineData("divides by zero", 0x94, 0, 0, 0u)]
    [InlineData("shifts by 32", 0x64, 0, 0, 32u)]
    public void ABadProgramIsRefusedWithTheInstruction(string expected, int code, int jumpTrue, int jumpFalse, uint constant)
    {
        BpfInstruction[] instructions = [new(0x00, 0, 0, 1), new((ushort)code, (byte)jumpTrue, (byte)jumpFalse, constant), new(0x06, 0, 0, 1)];
        Assert.Null(BpfProgram.TryCreate(instructions, out string fault));
        Assert.StartsWith("instruction 1 ", fault, StringComparison.Ordinal);
        Assert.Contains(expected, fault, StringComparison.Ordinal);
    }

    [Fact]
    public void AProgramMustReturnAndHaveALength()
    {
        Assert.Null(BpfProgram.TryCreate([], out string empty));
        Assert.Contains("1 to 4096", empty, StringComparison.Ordinal);
        Assert.Null(BpfProgram.TryCreate(Enumerable.Repeat(new BpfInstruction(0x06, 0, 0, 1), 4097).ToArray(), out string tooLong));
        Assert.Contains("not 4097", tooLong, StringComparison.Ordinal);
        Assert.Null(BpfProgram.TryCreate([new(0x00, 0, 0, 1)], out string endless));
        Assert.Contains("does not return", endless, StringComparison.Ordinal);
    }

    [Fact]
    public void RunningAllocatesNothing()
    {
        // ldh [12]; st M[3]; ld M[3]; jeq #0x0800; ret #65535; ret #0
        BpfInstruction[] instructions = [new(0x28, 0, 0, 12), new(0x02, 0, 0, 3), new(0x60, 0, 0, 3), new(0x15, 0, 1, 0x0800), new(0x06, 0, 0, 65535), new(0x06, 0, 0, 0)];
        BpfProgram program = BpfProgram.TryCreate(instructions, out _)!;
        byte[] frame = new byte[60];
        frame[12] = 8;
        Assert.True(program.Matches(frame));
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 1000; i++)
            program.Matches(frame);
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
    }

    private static Gen<T> Of<T>(params T[] values) => Gen.Int[0, values.Length - 1].Select(at => values[at]);

    private static void NeedsLibpcap()
    {
        if (!LibPcap.Available)
            Assert.Skip("needs libpcap0.8 (./test.sh installs it)");
    }

    /// <summary>Makes a random instruction one of a valid program.</summary>
    private static BpfInstruction Tame(ushort code, byte jumpTrue, byte jumpFalse, uint constant, int left)
    {
        if (left == 0)
            return new BpfInstruction(jumpTrue < 128 ? (ushort)0x06 : (ushort)0x16, 0, 0, constant);
        return code switch
        {
            0x05 => new BpfInstruction(code, 0, 0, constant % (uint)left),
            0x60 or 0x61 or 0x02 or 0x03 => new BpfInstruction(code, 0, 0, constant % 16),
            0x34 or 0x94 => new BpfInstruction(code, 0, 0, Math.Max(1, constant)),
            0x64 or 0x74 => new BpfInstruction(code, 0, 0, constant % 32),
            _ => new BpfInstruction(code, (byte)(jumpTrue % Math.Min(left, 256)), (byte)(jumpFalse % Math.Min(left, 256)), constant),
        };
    }

    /// <summary>Frames that filters make a difference of.</summary>
    private static class PacketGen
    {
        public static Gen<byte[]> Any { get; } = Gen.Select(Gen.Byte.Array[60, 1514], Gen.Int[0, 5], Of<byte>(1, 6, 17, 47, 58), Of<ushort>(22, 53, 80, 1500, 40000), Gen.Int[0, 9]).Select(parts => Shape(parts.Item1, parts.Item2, parts.Item3, parts.Item4, parts.Item5));

        private static byte[] Shape(byte[] frame, int kind, byte protocol, ushort port, int address)
        {
            byte[] mac = [0x02, 0x56, 0x4E, 0, 0, 0x0A];
            if (address > 5)
                mac.CopyTo(frame, 6);
            int ip = 14;
            if (kind == 5)
            {
                BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(12), 0x8100);
                BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(14), 5);
                ip = 18;
            }
            ushort type = kind switch { 0 => 0x0806, 1 => 0x86DD, 2 => 0x88B5, _ => 0x0800 };
            BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(ip - 2), type);
            if (type == 0x0800)
            {
                frame[ip] = 0x45;
                frame[ip + 6] = frame[ip + 7] = 0;
                frame[ip + 9] = protocol;
                byte[] source = address % 2 == 0 ? [192, 168, 108, 128] : [10, 1, 2, 3];
                source.CopyTo(frame, ip + 12);
                BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(ip + 22), port);
            }
            else if (type == 0x86DD)
            {
                frame[ip] = 0x60;
                frame[ip + 6] = protocol;
                if (frame.Length >= ip + 44)
                    BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(ip + 42), port);
            }
            return frame;
        }
    }
}
