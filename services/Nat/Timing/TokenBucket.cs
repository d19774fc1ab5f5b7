namespace VNetMesh.Nat.Timing;

/// <summary>Lets through so many events a second, with a burst.</summary>
public struct TokenBucket(int perSecond, int burst)
{
    private readonly long _costMicroseconds = 1_000_000 / perSecond;
    private readonly long _depth = burst * (1_000_000L / perSecond);
    private long _paidUntil;

    public bool TryTake(long now)
    {
        long start = Math.Max(_paidUntil, now - _depth);
        if (start + _costMicroseconds > now)
            return false;
        _paidUntil = start + _costMicroseconds;
        return true;
    }
}
