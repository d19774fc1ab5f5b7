using VNetMesh.Native;

namespace VNetMesh.Links.Tests;

/// <summary>Both ends of a pair of rings, each with a mapping of its own, as two processes have it.</summary>
internal sealed class RingPair : IDisposable
{
    public RingPair(int capacity = 256 * 1024)
    {
        RingMemory memory = RingMemory.Create(capacity);
        MemoryDescriptor = memory.Descriptor.Duplicate();
        FileDescriptor makerBell = SysEpoll.CreateEvent(), otherBell = SysEpoll.CreateEvent();
        Other = new RingLink(RingMemory.Map(memory.Descriptor.Duplicate(), capacity), isMaker: false, otherBell.Duplicate(), makerBell.Duplicate(), LinkOffloads.All);
        Maker = new RingLink(memory, isMaker: true, makerBell, otherBell, LinkOffloads.All);
    }

    public RingLink Maker { get; }

    public RingLink Other { get; }

    public FileDescriptor MemoryDescriptor { get; }

    public void Dispose()
    {
        Maker.Dispose();
        Other.Dispose();
        MemoryDescriptor.Dispose();
    }
}

/// <summary>A process's own pages of a ring's memory, to write into behind the ring's back.</summary>
internal sealed unsafe class RawMapping : IDisposable
{
    private readonly nuint _length;

    public RawMapping(FileDescriptor memory, int capacity)
    {
        _length = (nuint)(2L * Ring.SizeOf(capacity));
        Address = (byte*)Syscall.Check(SysMman.mmap(0, _length, SysMman.PROT_READ | SysMman.PROT_WRITE, SysMman.MAP_SHARED, memory.Number, 0), "mmap");
    }

    public byte* Address { get; }

    public void Dispose() => _ = SysMman.munmap((nint)Address, _length);
}
