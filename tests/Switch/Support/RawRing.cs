using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.V1;

namespace VNetMesh.Switch.Tests.Support;

/// <summary>A ring's peer that is no better than it should be: it has the memory itself, and writes what it likes.</summary>
internal sealed unsafe class RawRing : IDisposable
{
    public const int Capacity = 256 * 1024;
    private readonly FileDescriptor _own;
    private readonly FileDescriptor _far;
    private readonly FileDescriptor _memory;
    private byte* _address;

    private RawRing(FileDescriptor life, FileDescriptor[] descriptors)
    {
        Life = life;
        (_memory, _own, _far) = (descriptors[0], descriptors[1], descriptors[2]);
        _address = (byte*)Syscall.Check(SysMman.mmap(0, (nuint)Length, SysMman.PROT_READ | SysMman.PROT_WRITE, SysMman.MAP_SHARED, _memory.Number, 0), "mmap");
    }

    public FileDescriptor Life { get; }

    private static int Length => 2 * Ring.SizeOf(Capacity);

    /// <summary>Registers a port and asks for its ring, without the library's own link.</summary>
    public static RawRing Open(SwitchProcess process, string network, string id)
    {
        RegisterPortResponse registered = process.Ports.RegisterPort(new RegisterPortRequest { Parent = network, PortId = id, Port = new Port { Transport = PortTransport.Ring, Owner = "test" } });
        var socket = new FileDescriptor(Syscall.Check(SysSocket.socket(SysSocket.AF_UNIX, SysSocket.SOCK_SEQPACKET | SysSocket.SOCK_CLOEXEC, 0), "socket"));
        uint length = SysSocket.WriteUnixAddress(process.Paths.HandoffSocket, out SysSocket.sockaddr_un address);
        Syscall.Check(SysSocket.connect(socket.Number, &address, length), "connect");
        byte[] request = new byte[HandoffRequest.Length];
        new HandoffRequest(HandoffKind.Ring, System.Buffers.Binary.BinaryPrimitives.ReadUInt128BigEndian(registered.HandoffToken.Span), Capacity, LinkOffloads.All).Write(request);
        DescriptorMessage.Send(socket.Number, request, []);
        var descriptors = new FileDescriptor[3];
        DescriptorMessage.Receive(socket.Number, new byte[HandoffResponse.MaxLength], descriptors, out int count);
        Assert.Equal(3, count);
        return new RawRing(socket, descriptors);
    }

    /// <param name="fromSwitch">The ring that the switch produces into; else the one that it consumes.</param>
    public ref ulong Index(bool fromSwitch, int offset) => ref *(ulong*)(Start(fromSwitch) + offset);

    /// <param name="offset">From the first record, in the ring that the switch consumes.</param>
    public void WriteLength(int offset, uint length) => *(uint*)(Start(fromSwitch: false) + Ring.HeaderLength + offset) = length;

    /// <summary>Writes a record's length and payload where the first record goes, and publishes nothing.</summary>
    public void WriteRecord(ReadOnlySpan<byte> record)
    {
        WriteLength(0, (uint)record.Length);
        record.CopyTo(new Span<byte>(Start(fromSwitch: false) + Ring.HeaderLength + Ring.RecordHeaderLength, record.Length));
    }

    public void RingDoorbell() => SysEpoll.Signal(_far.Number);

    public void Dispose()
    {
        if (_address == null)
            return;
        _ = SysMman.munmap((nint)_address, (nuint)Length);
        _address = null;
        Life.Dispose();
        _memory.Dispose();
        _own.Dispose();
        _far.Dispose();
    }

    private byte* Start(bool fromSwitch) => _address + (fromSwitch ? 0 : Ring.SizeOf(Capacity));
}
