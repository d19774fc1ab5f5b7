namespace VNetMesh.Nat.Tcp;

/// <summary>Round-trip estimate and retransmission time-out (RFC 6298). Times in microseconds.</summary>
internal struct TcpRoundTrip(TcpOptions options)
{
    private const int MaxBackoff = 16;

    private readonly long _minimum = options.MinRto;
    private readonly long _maximum = options.MaxRto;
    private long _variation;
    private long _timeout = options.InitialRto;
    private int _backoff;

    /// <summary>SRTT; 0: no sample yet.</summary>
    public long Smoothed { get; private set; }

    /// <summary>RTO with back-off.</summary>
    public readonly long Timeout => Math.Min(_timeout << Math.Min(_backoff, MaxBackoff), _maximum);

    /// <summary>Takes a sample of a segment that was sent once (Karn), or that a timestamp identifies.</summary>
    public void Sample(long elapsed)
    {
        elapsed = Math.Clamp(elapsed, 1, _maximum);
        if (Smoothed == 0)
        {
            // 2.2: the first measurement.
            Smoothed = elapsed;
            _variation = elapsed / 2;
        }
        else
        {
            // 2.3: beta 1/4, alpha 1/8.
            _variation += (Math.Abs(Smoothed - elapsed) - _variation) / 4;
            Smoothed = Math.Max(1, Smoothed + ((elapsed - Smoothed) / 8));
        }
        _timeout = Math.Clamp(Smoothed + (4 * _variation), _minimum, _maximum);
        _backoff = 0;
    }

    /// <summary>5.5: the timer expired.</summary>
    public void BackOff() => _backoff++;

    /// <summary>New data was acknowledged: the next time-out is the plain one again.</summary>
    public void Restore() => _backoff = 0;
}
