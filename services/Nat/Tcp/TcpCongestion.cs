namespace VNetMesh.Nat.Tcp;

/// <summary>
/// Congestion control: slow start, congestion avoidance, and halving on loss (RFC 5681), with recovery as
/// RFC 6675 has it. The link to the guest hardly ever loses, so the window opens quickly and stays open;
/// when it does lose (a full device queue), this is what keeps it stable.
/// </summary>
internal struct TcpCongestion
{
    private readonly int _segment;
    private readonly long _limit;
    private long _avoidance;

    public TcpCongestion(int segment, int limit)
    {
        _segment = segment;
        _limit = Math.Max(limit, 4 * segment);
        // RFC 6928 allows ten segments; a large segment of 64 KiB is one burst to this link in any case.
        Window = Math.Min(_limit, Math.Max(10 * segment, 65536));
        Threshold = long.MaxValue;
    }

    /// <summary>cwnd, octets.</summary>
    public long Window { get; private set; }

    /// <summary>ssthresh, octets.</summary>
    public long Threshold { get; private set; }

    public void OnAcknowledged(int octets)
    {
        if (Window < Threshold)
        {
            Window = Math.Min(_limit, Window + octets);
            return;
        }
        // One segment for each window's worth (RFC 3465).
        _avoidance += octets;
        if (_avoidance < Window)
            return;
        _avoidance -= Window;
        Window = Math.Min(_limit, Window + _segment);
    }

    /// <summary>A loss that duplicate acknowledgements showed (RFC 5681, 3.2).</summary>
    public void OnLoss(long inFlight)
    {
        Threshold = Math.Max(inFlight / 2, 2 * _segment);
        Window = Threshold;
        _avoidance = 0;
    }

    /// <summary>The retransmission timer expired (RFC 5681, 3.1: the loss window).</summary>
    public void OnTimeout(long inFlight, bool first)
    {
        if (first)
            Threshold = Math.Max(inFlight / 2, 2 * _segment);
        Window = _segment;
        _avoidance = 0;
    }
}
