using System.Runtime.CompilerServices;
using VNetMesh.Links;
using VNetMesh.Nat.Sockets;

namespace VNetMesh.Nat.Flows;

/// <summary>What may befall a flow, in the words of the API and of the spans' events (nat.proto, FlowEvent.what).</summary>
public enum FlowMoment : byte
{
    Established,
    FirstByteToRemote,
    FirstByteFromRemote,
    FirstByteToGuest,
    GuestFin,
    RemoteFin,
}

/// <summary>
/// What befell a flow and when, in few octets and without allocation: each moment happens once at most. It is kept for every
/// flow, so that "what became of it" can be told of any of them, and a span made only of those that are worth one.
/// Times are microseconds of the loop's clock; zero: has not happened.
/// </summary>
public struct FlowStory
{
    private static readonly string[] Names = ["established", "first_byte_to_remote", "first_byte_from_remote", "first_byte_to_guest", "guest_fin", "remote_fin"];

    private Times _times;

    /// <summary>The trace that the flow's first frame came with, if it did.</summary>
    public TraceContext Trace { get; set; }

    /// <summary>The name for which the guest got the remote's address from DNS; null: not known.</summary>
    public string? DnsName { get; set; }

    /// <summary>When DNS told the guest; meaningless without <see cref="DnsName"/>.</summary>
    public long DnsAnswered { get; set; }

    /// <summary>The last connect of the host's, which leads to those before it.</summary>
    internal DialAttempt? Dial { get; set; }

    /// <summary>Microseconds of the loop's clock; zero while the flow is alive.</summary>
    public long Ended { get; set; }

    public static string NameOf(FlowMoment moment) => Names[(int)moment];

    public void Note(FlowMoment moment, long now)
    {
        if (_times[(int)moment] == 0)
            _times[(int)moment] = now;
    }

    /// <summary>Zero: has not come.</summary>
    public readonly long TimeOf(FlowMoment moment) => _times[(int)moment];

    /// <summary>The moments that have come, in the order in which they came.</summary>
    public readonly IEnumerable<(FlowMoment Moment, long Time)> Moments()
    {
        Times times = _times;
        return Enum.GetValues<FlowMoment>().Select(moment => (moment, times[(int)moment])).Where(entry => entry.Item2 != 0).OrderBy(entry => entry.Item2);
    }

    [InlineArray(6)]
    private struct Times
    {
        private long _first;
    }
}

/// <summary>One connect of the host's.</summary>
internal sealed class DialAttempt(HostEndpoint target, long began, DialAttempt? earlier)
{
    public HostEndpoint Target { get; } = target;
    public long Began { get; } = began;
    public DialAttempt? Earlier { get; } = earlier;

    /// <summary>Microseconds of the loop's clock; zero while it is under way.</summary>
    public long Ended { get; private set; }

    /// <summary>"connected", or why not.</summary>
    public string Result { get; private set; } = "";

    public void End(string result, long now)
    {
        if (Ended == 0)
            (Result, Ended) = (result, now);
    }

    /// <summary>The attempts, the first one first.</summary>
    public IEnumerable<DialAttempt> All() => Earlier is null ? [this] : Earlier.All().Append(this);
}
