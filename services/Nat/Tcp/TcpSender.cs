using VNetMesh.Packets;

namespace VNetMesh.Nat.Tcp;

/// <summary>What the sender wants on the link next.</summary>
/// <param name="IsHole">Fills a hole below SND.NXT; else it begins at SND.NXT.</param>
internal readonly record struct SendChunk(SequenceNumber Sequence, int Length, bool Fin, bool IsRetransmission, bool IsHole)
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
    private SequenceRing _ring = new(pool, options.SendBuffer);
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
    private int _maxTransmit;
    private int _duplicates;
    private bool _sackPermitted;
    private bool _recovering;
    private bool _afterTimeout; // until all that was sent before it is acknowledged
    private bool _resendFirst;
    private bool _rescued;
    private bool _spaceWanted;
    private bool _isTiming;
    private bool _mayNotGrow; // until the guest has acknowledged some

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

    public readonly int Free => FinQueued || _mayNotGrow ? 0 : _capacity - Queued;

    /// <summary>The largest window that the guest ever gave (MAX.SND.WND of RFC 5961, 5.2).</summary>
    public int MaxWindow { get; private set; }

    /// <summary>Something is under way: sent, not taken back by a time-out, and not acknowledged.</summary>
    public readonly bool IsOutstanding => Unacknowledged.IsBefore(Next);

    /// <summary>Duplicate acknowledgements (RFC 5681, 2) in all.</summary>
    public int DuplicateAcks { get; private set; }

    public readonly long CongestionWindow => _congestion.Window;

    /// <summary>Octets of the pool's buffer that it holds.</summary>
    public readonly int HeldOctets => _ring.Size;

    /// <summary>Something waits that the guest's window does not let out, and nothing is under way that would make it speak.</summary>
    public readonly bool IsStuck => !IsOutstanding && (Queued > 0 || FinQueued) && !FinAcknowledged;

    /// <summary>
    /// The number of a segment without data: SND.NXT, as it was before any time-out; within the guest's window,
    /// should that have shrunk, or the guest would not look at it.
    /// </summary>
    public readonly SequenceNumber Idle =>
        Unacknowledged.IsBefore(_dataStart) ? _highest : SequenceNumber.Min(_highest, Unacknowledged.Add(Window));

    private readonly bool HasUnacknowledged => Unacknowledged.IsBefore(_highest);

    public void Start(SequenceNumber initial)
    {
        Unacknowledged = Next = _highest = initial;
        _dataStart = _queuedEnd = initial.Add(1);
    }

    /// <param name="segment">Payload octets of one segment on the wire.</param>
    /// <param name="sack">The guest acknowledges selectively.</param>
    public void Establish(int segment, bool sack)
    {
        _segment = segment;
        _sackPermitted = sack;
        // Whole segments, so that what the link cuts has no short one in the middle.
        _maxTransmit = Math.Max(segment, options.MaxTransmit - (options.MaxTransmit % segment));
        _congestion = new TcpCongestion(segment, _capacity);
    }

    /// <summary>Counts SYN as sent.</summary>
    public void OnSynSent() => Next = _highest = Unacknowledged.Add(1);

    /// <summary>Contiguous free room; empty when there is none. Valid until the next call.</summary>
    public Span<byte> Space()
    {
        if (Free == 0)
        {
            _spaceWanted = !FinQueued;
            return default;
        }
        if (_ring.Size - Queued < SequenceRing.SmallestSize
            && !_ring.Reserve(_dataStart, Math.Min(_capacity, Queued + SequenceRing.SmallestSize)) && _ring.Size == Queued)
        {
            _mayNotGrow = _spaceWanted = true;
            return default;
        }
        return _ring.At(_queuedEnd, _ring.Size - Queued);
    }

    /// <exception cref="ArgumentOutOfRangeException">More than <see cref="Space"/> had.</exception>
    public void Append(int length)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, _ring.Size - Queued);
        _queuedEnd = _queuedEnd.Add(length);
        _spaceWanted |= Free == 0;
        ReleaseWhenEmpty();
    }

    public void QueueFin() => FinQueued = true;

    /// <summary>The payload of a chunk, in two parts.</summary>
    public readonly void Payload(in SendChunk chunk, out ReadOnlySpan<byte> first, out ReadOnlySpan<byte> second)
    {
        first = second = default;
        if (chunk.Length == 0)
            return;
        first = _ring.At(chunk.Sequence, chunk.Length);
        if (first.Length < chunk.Length)
            second = _ring.At(chunk.Sequence.Add(first.Length), chunk.Length - first.Length);
    }

    /// <param name="chunk">What to send.</param>
    /// <param name="force">Send even what silly-window avoidance would hold back.</param>
    public bool TryNext(out SendChunk chunk, bool force)
    {
        if (_recovering && TryNextHole(out chunk))
            return true;
        chunk = default;
        int untilSacked = SkipSacked();
        int waiting = Math.Min(Math.Max(0, _queuedEnd.Since(Next)), untilSacked);
        int windowRoom = Unacknowledged.Add(Window).Since(Next);
        long room = Math.Min(windowRoom, _congestion.Window - Pipe());
        int length = (int)Math.Clamp(Math.Min(waiting, room), 0, _maxTransmit);
        if (length < waiting && length > _segment)
            length -= length % _segment;
        // RFC 9293, 3.8.6.2.1: hold back a short segment that only the window makes short.
        if (length < waiting && length < _segment && !force && (IsOutstanding || length < MaxWindow / 2))
            length = 0;
        bool last = Next.Add(length) == _queuedEnd;
        bool fin = FinQueued && last && Next.IsAtOrBefore(_queuedEnd) && windowRoom > length;
        if (length == 0 && !fin)
            return false;
        chunk = new SendChunk(Next, length, fin, Next.IsBefore(_highest), IsHole: false);
        return true;
    }

    /// <returns>Payload octets that had never been sent before.</returns>
    public int OnTransmitted(in SendChunk chunk, long now)
    {
        if (chunk.IsRetransmission)
            _isTiming = false; // Karn (RFC 6298, 3)
        else if (!_isTiming)
            (_isTiming, _timed, _timedAt) = (true, chunk.End, now);
        if (chunk.IsHole)
        {
            _resendFirst = false;
            _holesSent = SequenceNumber.Max(_holesSent, chunk.End);
            return 0;
        }
        Next = chunk.End;
        int fresh = Math.Clamp(chunk.Sequence.Add(chunk.Length).Since(_highest), 0, chunk.Length);
        _highest = SequenceNumber.Max(_highest, Next);
        return fresh;
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
        bool newBlocks = TakeSack(segment);
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
        // RFC 5681, 2; with selective acknowledgements only those that tell something new (RFC 6675, 2), since what was
        // needlessly sent again is answered by the same acknowledgement, too.
        else if (HasUnacknowledged && segment.SequenceLength == 0 && (_sackPermitted ? newBlocks : sameWindow))
        {
            _duplicates++;
            DuplicateAcks++;
        }
        bool lost = _duplicates >= DuplicateThreshold || _sacked.Octets > (DuplicateThreshold - 1) * _segment;
        // RFC 6582, 3.2 and RFC 6675, 5.1: not while what a time-out took back is being sent again.
        if (lost && !_recovering && !_afterTimeout && HasUnacknowledged)
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
        _afterTimeout = true;
        _recoveryPoint = _highest;
        _duplicates = 0;
        Next = Unacknowledged;
    }

    public void Close()
    {
        _sacked.Clear();
        _ring.Release();
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
        return new SendChunk(start, data, fin, IsRetransmission: true, IsHole: true);
    }

    /// <summary>
    /// Moves SND.NXT, where a time-out took it back, over what the guest shows that it has.
    /// </summary>
    /// <returns>Octets from there to the next that it has.</returns>
    private int SkipSacked()
    {
        for (int i = 0; i < _sacked.Count && Next.IsBefore(_highest); i++)
        {
            if (Next.IsBefore(_sacked[i].Start))
                return _sacked[i].Start.Since(Next);
            Next = SequenceNumber.Max(Next, _sacked[i].End);
        }
        return int.MaxValue;
    }

    /// <summary>RFC 6675, 4: octets that are thought to be on the link.</summary>
    private readonly long Pipe()
    {
        long pipe = Next.Since(Unacknowledged);
        SequenceNumber at = _recovering ? SequenceNumber.Max(_holesSent, Unacknowledged) : Next;
        for (int i = 0; i < _sacked.Count; i++)
        {
            SequenceNumber start = SequenceNumber.Min(_sacked[i].Start, Next), end = SequenceNumber.Min(_sacked[i].End, Next);
            pipe -= end.Since(start);
            // What lies below a selective acknowledgement and was not sent again is taken for lost.
            if (at.IsBefore(start))
                pipe -= start.Since(at);
            at = SequenceNumber.Max(at, end);
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
        MaxWindow = Math.Max(MaxWindow, window);
        _windowSequence = segment.Sequence;
        _windowAcknowledgment = segment.Acknowledgment;
    }

    /// <summary>The first window, from the segment that completed or began the handshake.</summary>
    public void SetWindow(in TcpSegmentIn segment, int window)
    {
        Window = MaxWindow = window;
        _windowSequence = segment.Sequence;
        _windowAcknowledgment = segment.Has(TcpFlags.Ack) ? segment.Acknowledgment : Unacknowledged;
    }

    /// <returns>True: it told of octets that were not known to have arrived.</returns>
    private bool TakeSack(in TcpSegmentIn segment)
    {
        if (!_sackPermitted || segment.Options.SackCount == 0)
            return false;
        int before = _sacked.Octets;
        TcpHeaderOptions taken = segment.Options;
        for (int i = 0; i < taken.SackCount; i++)
        {
            SackBlock block = taken.Sack[i];
            // Blocks of an old acknowledgement, of duplicates (RFC 2883), or out of a hostile guest's head.
            if (block.Start.IsAfter(segment.Acknowledgment) && block.Start.IsAtOrAfter(Unacknowledged)
                && block.Start.IsBefore(block.End) && block.End.IsAtOrBefore(_highest))
                _sacked.Add(block.Start, block.End);
        }
        return _sacked.Octets > before;
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
        _mayNotGrow = false;
        ReleaseWhenEmpty();
        if (_afterTimeout && acknowledgment.IsAtOrAfter(_recoveryPoint))
            _afterTimeout = false;
        if (!_recovering)
        {
            _congestion.OnAcknowledged(octets);
        }
        else if (acknowledgment.IsAtOrAfter(_recoveryPoint))
        {
            _recovering = _resendFirst = false;
        }
        // A partial acknowledgement: the next segment is lost as well (RFC 6582, 3.2). With selective acknowledgements
        // it may just be under way, and is sent again once in a recovery (RFC 6675, 4, NextSeg 4).
        else if (_sacked.Count == 0 && !_rescued)
        {
            _resendFirst = true;
            _rescued = _sackPermitted;
        }
    }

    private void EnterRecovery()
    {
        _recovering = true;
        _rescued = false;
        _recoveryPoint = _highest;
        _holesSent = Unacknowledged;
        _resendFirst = true;
        _congestion.OnLoss(_highest.Since(Unacknowledged));
    }

    /// <summary>Lets go of a buffer that <see cref="Space"/> took and nothing was put in.</summary>
    public void ReleaseWhenEmpty()
    {
        if (Queued == 0)
            _ring.Release();
    }
}
