using System.Globalization;
using VNetMesh.Nat.Sockets;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Flows;

public readonly record struct FlowAddress(string Address, int Port);

/// <summary>A flow as it was at one moment.</summary>
public sealed record FlowSnapshot(
    string Network,
    long Number,
    FlowProtocol Protocol,
    FlowAddress Guest,
    FlowAddress Remote,
    FlowAddress? Host,
    FlowState State,
    bool Inbound,
    ulong BytesToRemote,
    ulong BytesToGuest,
    DateTimeOffset StartTime,
    TimeSpan Idle,
    uint Retransmits,
    string EndReason,
    TimeSpan? RoundTrip,
    string DnsName,
    string TraceId);

/// <summary>A flow as it was at one moment, and what had befallen it, in that order.</summary>
public sealed record FlowRecord(FlowSnapshot Flow, IReadOnlyList<FlowEvent> Events);

/// <param name="Time">Wall clock.</param>
/// <param name="What">As in nat.proto, FlowEvent.what.</param>
/// <param name="Detail">In plain words; may be empty.</param>
public readonly record struct FlowEvent(DateTimeOffset Time, string What, string Detail);

/// <summary>What is to be known of a flow, without the flow itself: to be kept when it has ended, and put into words when someone asks.</summary>
internal readonly struct FlowFacts(Flow flow)
{
    private readonly string _network = flow.Network;
    private readonly FlowProtocol _protocol = flow.Protocol;
    private readonly FlowState _state = flow.State;
    private readonly bool _inbound = flow.Inbound;
    private readonly ushort _guestPort = flow.GuestPort;
    private readonly ushort _remotePort = flow.RemotePort;
    private readonly Ipv4Address _remote = flow.Remote;
    private readonly HostEndpoint? _host = flow.Host;
    private readonly ulong _toRemote = flow.BytesToRemote;
    private readonly ulong _toGuest = flow.BytesToGuest;
    private readonly DateTimeOffset _startTime = flow.StartTime;
    private readonly long _started = flow.Started;
    private readonly long _lastActivity = flow.LastActivity;
    private readonly uint _retransmits = flow.Retransmits;
    private readonly string _endReason = flow.EndReason;
    private readonly long _roundTrip = flow.RoundTrip;
    private readonly FlowStory _story = flow.Story;

    public long Number { get; } = flow.Number;

    public Ipv4Address Guest { get; } = flow.Guest.Address;

    public FlowSnapshot ToSnapshot(long now) => new(_network, Number, _protocol, new FlowAddress(Guest.ToString(), _guestPort), new FlowAddress(_remote.ToString(), _remotePort),
        _host is null ? null : new FlowAddress(_host.Address.ToString(), _host.Port), _state, _inbound, _toRemote, _toGuest, _startTime,
        TimeSpan.FromMicroseconds(Math.Max(0, now - _lastActivity)), _retransmits, _endReason, _roundTrip == 0 ? null : TimeSpan.FromMicroseconds(_roundTrip),
        _story.DnsName ?? "", _story.Trace.TraceIdText);

    public FlowRecord ToRecord(long now) => new(ToSnapshot(now), [.. Events().OrderBy(entry => entry.Time)]);

    private IEnumerable<FlowEvent> Events()
    {
        if (_story.DnsName is { } name)
            yield return At(_story.DnsAnswered, "dns_answer", $"{name} is {_remote}");
        yield return At(_started, "first_frame", _inbound ? "a client of the forward is connected" : "");
        foreach (DialAttempt dial in _story.Dial?.All() ?? [])
        {
            yield return At(dial.Began, "dial", dial.Target.ToString());
            if (dial.Ended != 0)
                yield return At(dial.Ended, dial.Result == "connected" ? "dial_connected" : "dial_failed", dial.Result == "connected" && _host is not null ? $"from {_host}" : dial.Result);
        }
        foreach ((FlowMoment moment, long time) in _story.Moments())
            yield return At(time, FlowStory.NameOf(moment), "");
        if (_story.Ended != 0)
            yield return At(_story.Ended, "ended", string.Create(CultureInfo.InvariantCulture, $"{_endReason}; {_toRemote} octets out, {_toGuest} in, {_retransmits} sent again"));
    }

    private FlowEvent At(long time, string what, string detail) => new(_startTime + TimeSpan.FromMicroseconds(time - _started), what, detail);
}
