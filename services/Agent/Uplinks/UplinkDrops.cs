using System.Text;

namespace VNetMesh.Agent.Uplinks;

/// <summary>Why the pcap driver dropped a frame. docs/drops.md explains each for users; a test holds the two together.</summary>
public enum UplinkDropCause
{
    /// <summary>A guest sent by the host's own address.</summary>
    HostAddressSpoofed,

    /// <summary>Our own frame came back: what was put into the NIC's ingress for the host is captured there as well.</summary>
    Reflected,

    /// <summary>Larger than the NIC's MTU, and not to be cut.</summary>
    FrameTooLong,

    /// <summary>The NIC's receive offload joined datagrams, and libpcap does not tell how they were cut.</summary>
    SegmentSizeUnknown,

    /// <summary>The switch's record is malformed.</summary>
    RecordMalformed,

    /// <summary>The switch does not take frames as fast as they come, or is away.</summary>
    QueueFull,

    /// <summary>The NIC did not take the frame: it is down, or its queue is full.</summary>
    NicRefused,

    /// <summary>The TAP that leads to the host did not take the frame.</summary>
    HostRefused,

    /// <summary>The kernel dropped frames before libpcap's buffer had room for them.</summary>
    CaptureOverflow,
}

/// <summary>Counts by cause: one thread writes, any reads.</summary>
public sealed class UplinkDrops
{
    private static readonly UplinkDropCause[] Causes = Enum.GetValues<UplinkDropCause>();
    private readonly long[] _counts = new long[Causes.Length];

    public long this[UplinkDropCause cause] => Volatile.Read(ref _counts[(int)cause]);

    public void Count(UplinkDropCause cause) => _counts[(int)cause]++;

    public void Set(UplinkDropCause cause, long count) => Volatile.Write(ref _counts[(int)cause], count);

    /// <summary>Those that are not zero.</summary>
    public Dictionary<string, long> ToDictionary() => Causes.Where(cause => this[cause] > 0).ToDictionary(NameOf, cause => this[cause]);

    /// <summary>The name that users see, e.g. "queue_full".</summary>
    public static string NameOf(UplinkDropCause cause)
    {
        var name = new StringBuilder();
        foreach (char letter in cause.ToString())
        {
            if (char.IsUpper(letter) && name.Length > 0)
                name.Append('_');
            name.Append(char.ToLowerInvariant(letter));
        }
        return name.ToString();
    }
}
