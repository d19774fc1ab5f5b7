using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using CsCheck;

namespace VNetMesh.Links.Tests;

/// <summary>The far side of a ring writes what it likes, where it likes: this side goes on, and says what was wrong.</summary>
public sealed unsafe class HostilePeerTests
{
    private const int Capacity = 256 * 1024;
    private static readonly string[] Faults = ["produced_out_of_range", "consumed_out_of_range", "wrap_out_of_range", "length_out_of_range", "record_out_of_range"];

    public static TheoryData<long, ulong, string> Indices => new()
    {
        // Offset in the ring that the victim reads, a value for it, and the fault.
        { 0, 1, "produced_out_of_range" },
        { 0, 63, "produced_out_of_range" },
        { 0, Capacity + 128, "produced_out_of_range" },
        { 0, ulong.MaxValue - 63, "produced_out_of_range" },
        { 0, 0, "produced_out_of_range" }, // it was 64 before: back is no way
        { 256 + 64, 0, "length_out_of_range" },
        { 256 + 64, FrameRecord.MaxLength + 1, "length_out_of_range" },
        { 256 + 64, 0xFFFF_FFFE, "length_out_of_range" },
        { 256 + 64, 33, "record_out_of_range" }, // more than was published
        { 256 + 64, 0xFFFF_FFFF, "wrap_out_of_range" }, // a way back to the start that was not published whole
    };

    [Theory]
    [MemberData(nameof(Indices))]
    public void Each_lie_has_its_name(long offset, ulong value, string fault)
    {
        using var pair = new RingPair();
        using var raw = new RawMapping(pair.MemoryDescriptor, Capacity);
        byte* ring = raw.Address + Ring.SizeOf(Capacity); // from the other side to the maker, the victim
        pair.Other.TrySend([1], default);
        Assert.Equal(ReceiveStatus.Received, pair.Maker.TryReceive(out _, out _));
        pair.Other.TrySend([2], default);
        if (offset == 0)
            *(ulong*)ring = value;
        else
            *(uint*)(ring + offset) = (uint)value;
        Assert.Equal(ReceiveStatus.Broken, pair.Maker.TryReceive(out _, out _));
        Assert.Equal(fault, pair.Maker.Fault);
        // It stays broken, is quiet, and takes nothing more.
        Assert.Equal(ReceiveStatus.Broken, pair.Maker.TryReceive(out _, out _));
        Assert.Equal(SendStatus.Closed, pair.Maker.TrySend([1], default));
        Assert.True(pair.Maker.PrepareToSleep());
    }

    [Theory]
    [InlineData(1)]
    [InlineData(1 << 20)]
    [InlineData(ulong.MaxValue - 63)]
    public void A_consumer_that_lies_about_what_it_released_is_named(ulong value)
    {
        using var pair = new RingPair();
        using var raw = new RawMapping(pair.MemoryDescriptor, Capacity);
        byte[] record = new byte[60_000];
        pair.Maker.TrySend([1], default); // 64 octets
        *(ulong*)(raw.Address + 64) = value;
        while (pair.Maker.TrySend(record, default) == SendStatus.Sent)
        {
        }
        Assert.Equal("consumed_out_of_range", pair.Maker.Fault);
        Assert.Equal(ReceiveStatus.Broken, pair.Maker.TryReceive(out _, out _));
    }

    [Fact]
    public void Any_word_anywhere_is_survived() =>
        Gen.Select(Gen.Select(Gen.Int[0, 1], Gen.Int[0, 200], Gen.OneOf(Gen.UInt, Gen.UInt[0, 2000], Gen.Const(0xFFFF_FFFFu))).Array[1, 8], Gen.Int[1, 3000]).Sample((writes, size) =>
        {
            using var pair = new RingPair();
            using var raw = new RawMapping(pair.MemoryDescriptor, Capacity);
            var victim = new Victim(pair.Maker);
            byte[] record = new byte[size];
            foreach ((int ring, int word, uint value) in writes)
            {
                pair.Other.TrySend(record, default);
                ((uint*)(raw.Address + (ring * Ring.SizeOf(Capacity))))[word] = value;
                victim.Turn();
            }
            return victim.Fault is null || Faults.Contains(victim.Fault);
        }, iter: 2000, threads: 1);

    /// <summary>The words change while they are read: what was checked must be what is used.</summary>
    [Fact]
    public void Words_that_change_while_they_are_read_are_survived()
    {
        var random = new Random(5);
        int broken = 0;
        for (int round = 0; round < 30; round++)
        {
            using var pair = new RingPair();
            using var raw = new RawMapping(pair.MemoryDescriptor, Capacity);
            bool stop = false;
            nint address = (nint)raw.Address;
            int seed = random.Next();
            var attacker = new Thread(() => Scribble(address, new Random(seed), ref stop));
            attacker.Start();
            var victim = new Victim(pair.Maker);
            long until = Environment.TickCount64 + 10;
            while (Environment.TickCount64 < until)
                victim.Turn();
            Volatile.Write(ref stop, true);
            attacker.Join();
            if (victim.Fault is { } fault)
            {
                Assert.Contains(fault, Faults);
                broken++;
            }
        }
        Assert.True(broken > 0);
    }

    private static void Scribble(nint address, Random random, ref bool stop)
    {
        // Plausible values: multiples of 64 near one another, so that many pass the first checks.
        byte* memory = (byte*)address;
        ulong produced = 0;
        while (!Volatile.Read(ref stop))
        {
            byte* ring = memory + Ring.SizeOf(Capacity);
            *(uint*)(ring + 256 + (random.Next(64) * 64)) = random.Next(3) switch { 0 => 0xFFFF_FFFF, 1 => (uint)random.Next(2000), _ => (uint)random.Next() };
            produced += (ulong)random.Next(4) * 64;
            *(ulong*)ring = produced;
            *(ulong*)(memory + 64) = random.Next(50) == 0 ? (ulong)random.NextInt64() : *(ulong*)memory;
        }
    }

    /// <summary>Uses a link as a switch does, and looks at where the spans lie that it is given.</summary>
    private sealed class Victim(RingLink link)
    {
        private int _sum;
        private nint _lowest = nint.MaxValue;
        private nint _highest;

        public string? Fault => link.Fault;

        public void Turn()
        {
            for (int i = 0; i < 200; i++)
            {
                if (link.TryReceive(out ReadOnlySpan<byte> record, out _) != ReceiveStatus.Received)
                    break;
                Assert.InRange(record.Length, 1, FrameRecord.MaxLength);
                Look(record);
                _sum += record[0] + record[^1];
            }
            for (int i = 0; i < 5; i++)
            {
                Span<byte> room = link.Reserve(1 + (_sum & 0x7FFF));
                if (room.IsEmpty)
                    break;
                Look(room);
                room.Fill(0xAA);
                link.Commit(room.Length, default);
            }
            link.Flush();
            link.PrepareToSleep();
        }

        /// <summary>All that is ever given lies within one mapping.</summary>
        private void Look(ReadOnlySpan<byte> span)
        {
            nint start = (nint)Unsafe.AsPointer(ref MemoryMarshal.GetReference(span));
            _lowest = Math.Min(_lowest, start);
            _highest = Math.Max(_highest, start + span.Length);
            Assert.True(_highest - _lowest <= 2L * Ring.SizeOf(Capacity) - 256 - 32);
        }
    }
}
