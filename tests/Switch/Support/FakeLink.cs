using VNetMesh.Links;

namespace VNetMesh.Switch.Tests.Support;

/// <summary>A link in memory: what is put into <see cref="Inbox"/> comes into the switch, what the switch sends is in <see cref="Sent"/>.</summary>
internal sealed class FakeLink(LinkOffloads offloads = LinkOffloads.All) : IFrameLink
{
    private byte[]? _reserved;

    public Queue<byte[]> Inbox { get; } = new();

    public List<byte[]> Sent { get; } = [];

    public List<TraceContext> Traces { get; } = [];

    public TraceContext NextTrace { get; set; }

    /// <summary>What happens to what is sent.</summary>
    public SendStatus Sending { get; set; } = SendStatus.Sent;

    /// <summary>What is said when the inbox is empty.</summary>
    public ReceiveStatus WhenEmpty { get; set; } = ReceiveStatus.Empty;

    public LinkOccupancy? Occupancy { get; init; }

    public int Flushes { get; private set; }

    public bool IsDisposed { get; private set; }

    public int Descriptor => -1;

    public LinkOffloads Offloads { get; } = offloads;

    public ReceiveStatus TryReceive(out ReadOnlySpan<byte> record, out TraceContext trace)
    {
        trace = NextTrace;
        bool any = Inbox.TryDequeue(out byte[]? next);
        record = next;
        return any ? ReceiveStatus.Received : WhenEmpty;
    }

    public SendStatus TrySend(ReadOnlySpan<byte> record, in TraceContext trace)
    {
        if (Sending == SendStatus.Sent)
        {
            Sent.Add(record.ToArray());
            Traces.Add(trace);
        }
        return Sending;
    }

    public Span<byte> Reserve(int length) => _reserved = new byte[length];

    public SendStatus Commit(int length, in TraceContext trace) => TrySend(_reserved.AsSpan(0, length), trace);

    public void Flush() => Flushes++;

    public bool PrepareToSleep() => Inbox.Count == 0;

    public void Dispose() => IsDisposed = true;
}
