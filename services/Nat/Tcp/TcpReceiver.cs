using VNetMesh.Packets;

namespace VNetMesh.Nat.Tcp;

/// <summary>
/// The receiving half: what the guest sent, put in order and delivered. Data that comes in order while nothing
/// waits goes to the user straight from the segment; the rest lies in one circular buffer, at the place that
/// its sequence number says, so reassembly copies each octet once.
/// </summary>
internal struct TcpReceiver(TcpOptions options, TcpBufferPool pool)
{
    private readonly int _capacity = options.ReceiveBuffer;
    private SequenceRing _ring = new(pool, options.ReceiveBuffer);
    private RangeSet _outOfOrder;
    private SequenceNumber _delivered;
    private SequenceNumber _advertisedEdge;
    private SequenceNumber _finSequence;
    private SequenceNumber _latestOutOfOrder;
    private bool _finKnown;
    private bool _isDelivering;
    private bool _isClosed;

    /// <summary>RCV.NXT.</summary>
    public SequenceNumber Next { get; private set; }

    /// <summary>The guest's FIN is in order: counted in <see cref="Next"/>.</summary>
    public bool FinReceived { get; private set; }

    /// <summary>In order, but not taken by the user yet. Invariant: 0 to the capacity.</summary>
    public readonly int Buffered => Next.Since(_delivered) - (FinReceived ? 1 : 0);

    public readonly bool HasOutOfOrder => _outOfOrder.Count > 0;

    /// <summary>Octets of the pool's buffer that it holds.</summary>
    public readonly int HeldOctets => _ring.Size;

    public void Start(SequenceNumber next)
    {
        Next = _delivered = _advertisedEdge = next;
    }

    /// <summary>RCV.WND as last told to the guest: what it may send from <see cref="Next"/> on.</summary>
    public readonly int AdvertisedWindow => Math.Max(0, _advertisedEdge.Since(Next));

    /// <summary>
    /// The window to tell now. Its right edge never goes back (RFC 9293, 3.8.6), and moves only by a worthwhile
    /// step (3.8.6.2.2: silly window avoidance).
    /// </summary>
    public int TakeWindow(int segment, int maximum)
    {
        SequenceNumber edge = FreeEdge(maximum);
        if (edge.Since(_advertisedEdge) >= Math.Min(_capacity / 2, segment))
            _advertisedEdge = edge;
        return AdvertisedWindow;
    }

    /// <summary>Whether telling the window now would open it by so much that the guest should know at once.</summary>
    public readonly bool WorthAnUpdate(int segment, int maximum)
    {
        int gain = FreeEdge(maximum).Since(_advertisedEdge);
        return gain >= _capacity / 2 || (AdvertisedWindow < 2 * segment && gain >= segment);
    }

    /// <summary>
    /// The test of RFC 9293, 3.10.7.4, first step; but an empty segment may stand at the very edge of the window: a guest that
    /// has filled it sends all its acknowledgements from there, and they must count while a hole in the window is mended.
    /// </summary>
    public readonly bool IsAcceptable(SequenceNumber sequence, int length)
    {
        uint window = (uint)AdvertisedWindow;
        if (length == 0)
            return sequence.InWindow(Next, window + 1);
        if (window == 0)
            return false;
        return sequence.InWindow(Next, window) || sequence.Add(length - 1).InWindow(Next, window)
            || (sequence.IsBefore(Next) && sequence.Add(length).IsAfter(Next));
    }

    /// <summary>Takes payload (and FIN) that lies at least partly in the window.</summary>
    /// <returns>True: it came in order.</returns>
    public bool Take(SequenceNumber sequence, ReadOnlySpan<byte> payload, bool fin, ITcpUser user)
    {
        if (FinReceived || _isClosed)
            return true;
        SequenceNumber end = sequence.Add(payload.Length);
        if (sequence.IsBefore(Next))
        {
            int known = Math.Min(Next.Since(sequence), payload.Length);
            payload = payload[known..];
            sequence = sequence.Add(known);
        }
        int room = AdvertisedWindow - sequence.Since(Next);
        if (payload.Length > room)
        {
            payload = payload[..Math.Max(0, room)];
            fin = false;
        }
        if (fin && !_finKnown)
        {
            _finKnown = true;
            _finSequence = end;
        }
        bool inOrder = sequence.IsAtOrBefore(Next);
        if (!payload.IsEmpty)
        {
            if (inOrder)
                TakeInOrder(payload, user);
            else
                Keep(sequence, payload);
        }
        if (_finKnown && Next.IsAtOrAfter(_finSequence) && !_isClosed)
            TakeFin();
        return inOrder;
    }

    /// <summary>Offers what waits to the user again. Does nothing from within an offer.</summary>
    /// <returns>True: all of it was taken.</returns>
    public bool Deliver(ITcpUser user)
    {
        if (_isDelivering)
            return false;
        while (Buffered > 0)
        {
            ReadOnlySpan<byte> part = _ring.At(_delivered, Buffered);
            int taken = Offer(part, user);
            if (_isClosed)
                return false;
            _delivered = _delivered.Add(taken);
            if (taken < part.Length)
                return false;
        }
        ReleaseWhenEmpty();
        return true;
    }

    /// <summary>Blocks for an acknowledgement: the latest first (RFC 2018, 4).</summary>
    public readonly int WriteSack(ref SackBlocks blocks, int maximum)
    {
        int count = 0;
        for (int i = 0; i < _outOfOrder.Count && count < maximum; i++)
        {
            if (_latestOutOfOrder.InWindow(_outOfOrder[i].Start, (uint)_outOfOrder[i].End.Since(_outOfOrder[i].Start)))
                blocks[count++] = _outOfOrder[i];
        }
        for (int i = _outOfOrder.Count - 1; i >= 0 && count < maximum; i--)
        {
            if (count == 0 || blocks[0] != _outOfOrder[i])
                blocks[count++] = _outOfOrder[i];
        }
        return count;
    }

    /// <summary>Lets go of the buffer; nothing is taken or delivered any more.</summary>
    public void Close()
    {
        _isClosed = true;
        _outOfOrder.Clear();
        _ring.Release();
    }

    private readonly SequenceNumber FreeEdge(int maximum) => Next.Add(Math.Min(maximum, _capacity - Buffered));

    // The user may end the connection from within, which takes the buffer away: callers look at _isClosed.
    private int Offer(ReadOnlySpan<byte> payload, ITcpUser user)
    {
        _isDelivering = true;
        int taken = Math.Clamp(user.Deliver(payload), 0, payload.Length);
        _isDelivering = false;
        return taken;
    }

    private void TakeInOrder(ReadOnlySpan<byte> payload, ITcpUser user)
    {
        int taken = 0;
        if (Buffered == 0)
        {
            taken = Offer(payload, user);
            if (_isClosed)
                return;
            _delivered = _delivered.Add(taken);
            Next = Next.Add(taken);
        }
        if (taken < payload.Length)
        {
            // No buffer: as if the rest had been lost on the way.
            if (!Store(Next, payload[taken..]))
                return;
            Next = Next.Add(payload.Length - taken);
        }
        if (_outOfOrder.Count == 0)
            return;
        _outOfOrder.RemoveBefore(Next);
        if (_outOfOrder.Count > 0 && _outOfOrder[0].Start == Next)
        {
            Next = _outOfOrder[0].End;
            _outOfOrder.RemoveBefore(Next);
        }
        Deliver(user);
    }

    // What lies behind the end belongs to nothing.
    private void TakeFin()
    {
        FinReceived = true;
        Next = Next.Add(1);
        _outOfOrder.Clear();
        ReleaseWhenEmpty();
    }

    private void Keep(SequenceNumber sequence, ReadOnlySpan<byte> payload)
    {
        // Without a buffer, and beyond the bound on ranges, it is as if the segment had been lost: the guest sends it again.
        if (!_ring.Reserve(_delivered, sequence.Add(payload.Length).Since(_delivered)) || !_outOfOrder.Add(sequence, sequence.Add(payload.Length)))
            return;
        _latestOutOfOrder = sequence;
        _ring.Write(sequence, payload);
    }

    private bool Store(SequenceNumber sequence, ReadOnlySpan<byte> payload)
    {
        if (!_ring.Reserve(_delivered, sequence.Add(payload.Length).Since(_delivered)))
            return false;
        _ring.Write(sequence, payload);
        return true;
    }

    private void ReleaseWhenEmpty()
    {
        if (Buffered == 0 && _outOfOrder.Count == 0)
            _ring.Release();
    }
}
