using VNetMesh.Links;
using VNetMesh.Native;

namespace VNetMesh.Nat.Tests.Support;

/// <summary>A link whose far side is the test: what the gateway sends is kept, what the test gives is received. Allocates nothing when it keeps nothing.</summary>
internal sealed class FakeLink(LinkOffloads offloads = LinkOffloads.All) : IFrameLink
{
    private readonly FileDescriptor _event = SysEpoll.CreateEvent();
    private readonly byte[] _room = new byte[FrameRecord.MaxLength];
    private int _reserved;

    public Queue<byte[]> Sent { get; } = new();
    public Queue<byte[]> ToGateway { get; } = new();
    private byte[] _current = [];

    /// <summary>False: records are counted, not kept.</summary>
    public bool Keep { get; set; } = true;

    /// <summary>No room for anything.</summary>
    public bool IsFull { get; set; }
    public long Count { get; private set; }
    public int LastLength { get; private set; }
    public ReadOnlySpan<byte> Last => _room.AsSpan(0, LastLength);

    public int Descriptor => _event.Number;

    public LinkOffloads Offloads => offloads;

    public ReceiveStatus TryReceive(out ReadOnlySpan<byte> record, out TraceContext trace)
    {
        trace = default;
        record = default;
        if (!ToGateway.TryDequeue(out byte[]? next))
            return ReceiveStatus.Empty;
        record = _current = next;
        return ReceiveStatus.Received;
    }

    public SendStatus TrySend(ReadOnlySpan<byte> record, in TraceContext trace)
    {
        record.CopyTo(Reserve(record.Length));
        return Commit(record.Length, trace);
    }

    public Span<byte> Reserve(int length)
    {
        _reserved = length;
        return IsFull ? default : _room.AsSpan(0, length);
    }

    public SendStatus Commit(int length, in TraceContext trace)
    {
        if (length < 1 || length > _reserved)
            throw new InvalidOperationException($"committed {length} of {_reserved}");
        Count++;
        LastLength = length;
        if (Keep)
            Sent.Enqueue(_room[..length]);
        return SendStatus.Sent;
    }

    public void Flush()
    {
    }

    public bool PrepareToSleep() => ToGateway.Count == 0;

    public void Dispose() => _event.Dispose();
}
