using VNetMesh.Packets;

namespace VNetMesh.Nat.Tcp;

/// <summary>What the sender wants on the link next.</summary>
internal readonly record struct SendChunk(SequenceNumber Sequence, int Length, bool Fin, bool IsRetransmission)
{
    public SequenceNumber End => Sequence.Add(Length + (Fin ? 1 : 0));
}

/// <summary>
/// The sending half: a circular buffer of what the host gave and the guest has not acknowledged, and the
/// decision what to send next: holes that selective acknowledgements show (RFC 6675), what a time-out took
/// back (RFC 6298), then new data as far as both windows allow.
/// </summary>
internal struct TcpSender(TcpOptions options, TcpBufferPool pool)
{
    private const int DuplicateThreshold = 3; // RFC 5681, 3.2

    private readonly int _capacity = options.SendBuffer;
    private readonly int _maxTransmit = options.MaxTransmit;
    private byte[]? _buffer;
    private RangeSet _sacked;
    private TcpCongestion _congestion;
    private SequenceNumber _dataStart;
    private SequenceNumber _queuedEnd;
    private SequenceNumber _highest;
    private SequenceNumber _windowSequence; // SND.WL1
    private SequenceNumber _windowAcknowledgment; // SND.WL2
    private SequenceNumber _recoveryPoint;
    private SequenceNumber _holesSent;
    private SequenceNumber _timed;
    private long _timedAt;
    private int _segment;
    private int _maxWindow;
    private int _duplicates;
    private bool _recovering;
    private bool _resendFirst;
    private bool _spaceWanted;
    private bool _isTiming;

    /// <summary>SND.UNA.</summary>
    public SequenceNumber Unacknowledged { get; private set; }

    /// <summary>SND.NXT.</summary>
    public SequenceNumber Next { get; private set; }

    /// <summary>The highest number ever sent. Invariant: SND.UNA &lt;= SND.NXT &lt;= Highest.</summary>
    public readonly SequenceNumber Highest => _highest;

    /// <summary>SND.WND, octets.</summary>
    public int Window { get; private set; }

    public bool FinQueued { get; private set; }

    public readonly bool FinAcknowledged => FinQueued && Unacknowledged.IsAfter(_queuedEnd);

    /// <summary>Octets queued and not acknowledged.</summary>
    public readonly int Queued => _queuedEnd.Since(_dataStart);

    public readonly int Free => FinQueued ? 0 : _capacity - Queued;

    public readonly bool InFlight => Unacknowledged.IsBefore(_highest);

    public readonly int DuplicateAcks => _duplicates;

    public readonly long CongestionWindow => _congestion.Window;

    public readonly bool HoldsBuffer => _buffer is not null;

    /// <summary>Something waits that the guest's window does not let out, and nothing is under way that would make it speak.</summary>
    public readonly bool IsStuck => !InFlight && (Queued > 0 || FinQueued) && !FinAcknowledged;

    public void Start(SequenceNumber initial)
    {
        Unacknowledged = Next = _highest = initial;
        _dataStart = _queuedEnd = initial.Add(1);
    }

    /// <param name="segment">Payload octets of one segment on the wire.</param>
    public void Establish(int segment)
    {
        _segment = segment;
        _congestion = new TcpCongestion(segment, _capacity);
    }

    /// <summary>Counts SYN as sent.</summary>
    public void OnSynSent() => Next = _highest = Unacknowledged.Add(1);

    /// <summary>The larger contiguous part of the free room; empty when there is none.</summary>
    public Span<byte> Space()
    {
        if (Free == 0)
        {
            _spaceWanted = !FinQueued;
            return default;
        }
        _buffer ??= pool.Rent(_capacity);
        int offset = OffsetOf(_queuedEnd);
        return _buffer.AsSpan(offset, Math.Min(Free, _capacity - offset));
    }

    public void Append(int length)
    {
        _queuedEnd = _queuedEnd.Add(length);
        ReturnBufferWhenEmpty();
    }

    public void QueueFin() => FinQueued = true;

    /// <summary>The payload of a chunk, in two parts.</summary>
    public readonly void Payload(in SendChunk chunk, out ReadOnlySpan<byte> first, out ReadOnlySpan<byte> second)
    {
        if (chunk.Length == 0)
        {
            first = second = default;
            return;
        }
        int offset = OffsetOf(chunk.Sequence);
        int length = Math.Min(chunk.Length, _capacity - offset);
        first = _buffer.AsSpan(offset, length);
        second = _buffer.AsSpan(0, chunk.Length - length);
    }

    /// <param name="chunk">What to send.</param>
    /// <param name="force">Send even what silly-window avoidance would hold back.</param>
    public bool TryNext(out SendChunk chunk, bool force)
    {
        if (_recovering && TryNextHole(out chunk))
            return true;
        chunk = default;
        int waiting = Math.Max(0, _queuedEnd.Since(Next));
        int windowRoom = Unacknowledged.Add(Window).Since(Next);
        long room = Math.Min(windowRoom, _congestion.Window - Pipe());
        int length = (int)Math.Clamp(Math.Min(waiting, room), 0, _maxTransmit);
        // Whole segments, so that what the link cuts has no short one in the middle.
        if (length < waiting && length > _segment)
            length -= length % _segment;
        // RFC 9293, 3.8.6.2.1: hold back a short segment that only the window makes short.
        if (length < waiting && length < _segment && !force && (InFlight || length < _maxWindow / 2))
            length = 0;
        bool last = Next.Add(length) == _queuedEnd;
        bool fin = FinQueued && last && Next.IsAtOrBefore(_queuedEnd) && windowRoom > length;
        if (length == 0 && !fin)
            return false;
        chunk = new SendChunk(Next, length, fin, Next.IsBefore(_highest));
        return true;
    }

    public void OnTransmitted(in SendChunk chunk, long now)
    {
        if (chunk.IsRetransmission)
        {
            _isTiming = false; // Karn (RFC 6298, 3)
        }
        else if (!_isTiming)
        {
            (_isTiming, _timed, _timedAt) = (true, chunk.End, now);
        }
        if (_recovering && chunk.Sequence.IsBefore(Next))
        {
            _resendFirst = false;
            _holesSent = SequenceNumber.Max(_holesSent, chunk.End);
            return;
        }
        Next = SequenceNumber.Max(Next, chunk.End);
        _highest = SequenceNumber.Max(_highest, Next);
    }

    /// <summary>
    /// Takes an acknowledgement that lies in SND.UNA … the highest sent.
    /// </summary>
    /// <param name="segment">The segment.</param>
    /// <param name="window">Its window, scaled.</param>
    /// <param name="now">Microseconds.</param>
    /// <param name="sample">A round trip that it ended (without timestamps); 0: none.</param>
    /// <returns>Octets newly acknowledged.</returns>
    public int Acknowledge(in TcpSegmentIn segment, int window, long now, out long sample)
    {
        sample = 0;
        SequenceNumber acknowledgment = segment.Acknowledgment;
        bool sameWindow = window == Window;
        UpdateWindow(segment, window);
        TakeSack(segment);
        int octets = acknowledgment.Since(Unacknowledged);
        if (octets > 0)
        {
            Advance(acknowledgment, octets);
            if (_isTiming && acknowledgment.IsAtOrAfter(_timed))
            {
                sample = Math.Max(1, now - _timedAt);
                _isTiming = false;
            }
        }
        else if (InFlight && segment.SequenceLength == 0 && (sameWindow || segment.Options.SackCount > 0))
        {
            _duplicates++;
        }
        if (!_recovering && InFlight && (_duplicates >= DuplicateThreshold || _sacked.Octets > (DuplicateThreshold - 1) * _segment))
            EnterRecovery();
        return octets;
    }

    /// <summary>True once after room was made for a user that had found none. Waits for a worthwhile part to be free.</summary>
    public bool TakeSpaceWanted()
    {
        if (!_spaceWanted || Free < Math.Min(_capacity / 4, 65536))
            return false;
        _spaceWanted = false;
        return true;
    }

    /// <summary>RFC 6298, 5.4 to 5.6: go back to the first that is not acknowledged.</summary>
    public void OnTimeout(bool first)
    {
        _congestion.OnTimeout(_highest.Since(Unacknowledged), first);
        // RFC 2018, 8: the receiver may have thrown away what it had acknowledged selectively.
        _sacked.Clear();
        _recovering = _resendFirst = _isTiming = false;
        _duplicates = 0;
        Next = SequenceNumber.Max(Unacknowledged, _dataStart);
    }

    public void Close()
    {
        _sacked.Clear();
        if (_buffer is null)
            return;
        pool.Return(_buffer);
        _buffer = null;
    }

    private bool TryNextHole(out SendChunk chunk)
    {
        chunk = default;
        if (_resendFirst)
        {
            chunk = Hole(Unacknowledged, _segment);
            return chunk.Length > 0 || chunk.Fin;
        }
        if (_sacked.Count == 0 || Pipe() >= _congestion.Window)
            return false;
        SequenceNumber at = SequenceNumber.Max(_holesSent, Unacknowledged);
        for (int i = 0; i < _sacked.Count; i++)
        {
            SackBlock block = _sacked[i];
            if (at.IsBefore(block.Start))
            {
                long room = Math.Max(_segment, _congestion.Window - Pipe());
                chunk = Hole(at, (int)Math.Min(block.Start.Since(at), room));
                return chunk.Length > 0 || chunk.Fin;
            }
            at = SequenceNumber.Max(at, block.End);
        }
        return false;
    }

    private readonly SendChunk Hole(SequenceNumber start, int length)
    {
        int data = Math.Clamp(_queuedEnd.Since(start), 0, Math.Min(length, _maxTransmit));
        bool fin = FinQueued && start.Add(data) == _queuedEnd && _highest.IsAfter(_queuedEnd);
        return new SendChunk(start, data, fin, true);
    }

    /// <summary>RFC 6675, 4: octets that are thought to be on the link.</summary>
    private readonly long Pipe()
    {
        long pipe = Next.Since(Unacknowledged);
        if (_sacked.Count == 0)
            return pipe;
        SequenceNumber at = SequenceNumber.Max(_holesSent, Unacknowledged);
        for (int i = 0; i < _sacked.Count; i++)
        {
            SackBlock block = _sacked[i];
            pipe -= block.End.Since(block.Start);
            // What lies below a selective acknowledgement and was not sent again is taken for lost.
            if (at.IsBefore(block.Start))
                pipe -= block.Start.Since(at);
            at = SequenceNumber.Max(at, block.End);
        }
        return Math.Max(0, pipe);
    }

    private void UpdateWindow(in TcpSegmentIn segment, int window)
    {
        // RFC 9293, 3.10.7.4: only a segment newer than the one that set the window may set it.
        if (!_windowSequence.IsBefore(segment.Sequence)
            && !(_windowSequence == segment.Sequence && _windowAcknowledgment.IsAtOrBefore(segment.Acknowledgment)))
            return;
        Window = window;
        _maxWindow = Math.Max(_maxWindow, window);
        _windowSequence = segment.Sequence;
        _windowAcknowledgment = segment.Acknowledgment;
    }

    /// <summary>The first window, from the segment that completed or began the handshake.</summary>
    public void SetWindow(in TcpSegmentIn segment, int window)
    {
        Window = _maxWindow = window;
        _windowSequence = segment.Sequence;
        _windowAcknowledgment = segment.Has(TcpFlags.Ack) ? segment.Acknowledgment : Unacknowledged;
    }

    private void TakeSack(in TcpSegmentIn segment)
    {
        TcpHeaderOptions taken = segment.Options;
        for (int i = 0; i < taken.SackCount; i++)
        {
            SackBlock block = taken.Sack[i];
            // Blocks of an old acknowledgement, of duplicates (RFC 2883), or out of a hostile guest's head.
            if (block.Start.IsAfter(segment.Acknowledgment) && block.Start.IsAtOrAfter(Unacknowledged)
                && block.Start.IsBefore(block.End) && block.End.IsAtOrBefore(_highest))
                _sacked.Add(block.Start, block.End);
        }
    }

    private void Advance(SequenceNumber acknowledgment, int octets)
    {
        Unacknowledged = acknowledgment;
        Next = SequenceNumber.Max(Next, acknowledgment);
        _sacked.RemoveBefore(acknowledgment);
        _duplicates = 0;
        SequenceNumber dataEnd = SequenceNumber.Min(acknowledgment, _queuedEnd);
        if (dataEnd.IsAfter(_dataStart))
            _dataStart = dataEnd;
        ReturnBufferWhenEmpty();
        if (!_recovering)
            _congestion.OnAcknowledged(octets);
        else if (acknowledgment.IsAtOrAfter(_recoveryPoint))
            _recovering = _resendFirst = false;
        else if (_sacked.Count == 0)
            _resendFirst = true; // a partial acknowledgement (RFC 6582, 3.2)
    }

    private void EnterRecovery()
    {
        _recovering = true;
        _recoveryPoint = _highest;
        _holesSent = Unacknowledged;
        _resendFirst = true;
        _congestion.OnLoss(_highest.Since(Unacknowledged));
    }

    private void ReturnBufferWhenEmpty()
    {
        if (_buffer is not null && Queued == 0)
        {
            pool.Return(_buffer);
            _buffer = null;
        }
    }

    private readonly int OffsetOf(SequenceNumber sequence) => (int)(sequence.Value & (uint)(_capacity - 1));
}
