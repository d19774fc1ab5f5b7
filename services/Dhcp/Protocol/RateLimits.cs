using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Protocol;

/// <summary>A token bucket: so many at once, and so many a second from then on.</summary>
public struct TokenBucket
{
    private double _tokens;
    private DateTimeOffset _filled;

    public bool TryTake(int rate, int burst, DateTimeOffset now)
    {
        if (_filled == default)
            _tokens = burst;
        else if (now > _filled)
            _tokens = Math.Min(burst, _tokens + ((now - _filled).TotalSeconds * rate));
        _filled = now;
        if (_tokens < 1)
            return false;
        _tokens--;
        return true;
    }
}

/// <summary>
/// A token bucket for each hardware address, in a table of fixed size. Where two addresses fall on one place the later takes
/// it with a full bucket: a flood of made-up addresses limits nobody else (it meets the limit on new clients), and costs no memory.
/// </summary>
public sealed class ClientLimiter(int rate, int burst)
{
    private const int Places = 1024;

    private readonly (MacAddress Mac, TokenBucket Bucket)[] _places = new (MacAddress, TokenBucket)[Places];
    private readonly ulong _secret = (ulong)Random.Shared.NextInt64();

    public bool TryTake(MacAddress mac, DateTimeOffset now)
    {
        ulong mixed = (mac.Value ^ _secret) * 0x9E37_79B9_7F4A_7C15;
        ref (MacAddress Mac, TokenBucket Bucket) place = ref _places[mixed >> 54];
        if (place.Mac != mac)
            place = (mac, default);
        return place.Bucket.TryTake(rate, burst, now);
    }
}
