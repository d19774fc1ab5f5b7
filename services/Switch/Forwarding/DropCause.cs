using System.Text;

namespace VNetMesh.Switch.Forwarding;

/// <summary>
/// Why the switch dropped a frame. docs/drops.md explains each for users; a test holds the two together.
/// What came from a port counts at that port, what could not be sent to a port counts at that one.
/// </summary>
public enum DropCause
{
    /// <summary>The record is shorter than its header and an Ethernet header.</summary>
    FrameTooShort,

    /// <summary>The frame is larger than the network's MTU allows and is not to be cut into segments.</summary>
    FrameTooLong,

    /// <summary>The segments to be cut would be larger than the network's MTU.</summary>
    SegmentTooLong,

    /// <summary>The offload header does not fit the frame.</summary>
    HeaderInconsistent,

    /// <summary>The source is a group address (IEEE 802-2014, 8.2.2 allows none).</summary>
    SourceMulticast,

    /// <summary>The source is 00:00:00:00:00:00.</summary>
    SourceZero,

    /// <summary>01:80:C2:00:00:00 to 0F: meant for the nearest bridge alone (IEEE 802.1Q, 8.6.3).</summary>
    LinkLocalMulticast,

    /// <summary>The destination is on the port that the frame came from.</summary>
    Hairpin,

    /// <summary>From one guest to another where the network keeps guests apart.</summary>
    Isolated,

    /// <summary>Forwarded, but its source was not learned: a bound on addresses is reached.</summary>
    MacTableFull,

    /// <summary>Nothing is connected to the destination's port.</summary>
    LinkDown,

    /// <summary>The ring or the stream to the port's peer is full.</summary>
    QueueFull,

    /// <summary>The kernel has no room for the frame.</summary>
    DeviceFull,

    /// <summary>The TAP device is not up.</summary>
    DeviceDown,

    /// <summary>The kernel refused the frame as malformed.</summary>
    DeviceRefused,

    /// <summary>The link or its device vanished as the frame was to be sent.</summary>
    LinkClosed,

    /// <summary>The peer broke the rules of its ring, and the link was ended.</summary>
    RingFault,

    /// <summary>A VM sent a length down its socket that no frame has, and the link was ended.</summary>
    SocketFault,

    /// <summary>The port needs segments or a checksum made in software, and the frame's headers are malformed.</summary>
    OffloadImpossible,
}

public static class DropCauses
{
    private static readonly DropCause[] Values = Enum.GetValues<DropCause>();
    private static readonly string[] Names = [.. Values.Select(cause => SnakeCase(cause.ToString()))];

    public static ReadOnlySpan<DropCause> All => Values;

    /// <summary>The name that users see, e.g. "queue_full".</summary>
    public static string NameOf(DropCause cause) => Names[(int)cause];

    private static string SnakeCase(string name)
    {
        var text = new StringBuilder(name.Length + 4);
        foreach (char letter in name)
        {
            if (char.IsUpper(letter) && text.Length > 0)
                text.Append('_');
            text.Append(char.ToLowerInvariant(letter));
        }
        return text.ToString();
    }
}
