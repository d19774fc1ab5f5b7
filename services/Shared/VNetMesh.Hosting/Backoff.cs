namespace VNetMesh.Hosting;

/// <summary>How long to wait before the next attempt: 50 ms, doubled each time up to 1 s.</summary>
public sealed class Backoff
{
    private static readonly TimeSpan First = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan Last = TimeSpan.FromSeconds(1);
    private TimeSpan _next = First;

    public TimeSpan Next()
    {
        TimeSpan next = _next;
        _next = next * 2 < Last ? next * 2 : Last;
        return next;
    }

    /// <summary>It worked: the next wait is the first again.</summary>
    public void Reset() => _next = First;
}
