namespace VNetMesh.Switch.Forwarding;

/// <summary>
/// Counters of a port or a network. Plain numbers: the network's loop alone writes them, and others read
/// them at any time (a 64-bit read is never torn on the machines we run on).
/// </summary>
public sealed class TrafficCounters
{
    private readonly long[] _drops = new long[DropCauses.All.Length];

    /// <summary>Frames from the port into the switch, dropped ones included.</summary>
    public long RxFrames;

    /// <summary>Octets of them, without the offload header.</summary>
    public long RxBytes;

    public long TxFrames;
    public long TxBytes;

    public void CountDrop(DropCause cause) => _drops[(int)cause]++;

    public void CountReceived(int frameLength)
    {
        RxFrames++;
        RxBytes += frameLength;
    }

    public void CountSent(int frameLength)
    {
        TxFrames++;
        TxBytes += frameLength;
    }

    public long Drops(DropCause cause) => Volatile.Read(ref _drops[(int)cause]);
}
