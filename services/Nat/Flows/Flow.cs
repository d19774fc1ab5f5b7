using System.Diagnostics;
using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Sockets;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Flows;

public enum FlowProtocol
{
    Tcp,
    Udp,
    Icmp,
}

/// <summary>As in the API: see nat.proto.</summary>
public enum FlowState
{
    Dialing,
    Handshake,
    Established,
    HalfClosed,
    Closing,
    Closed,
}

/// <summary>
/// One conversation of a guest's with one host socket. Lives on the loop's thread. What shows in the API is here; what
/// it does is in the kinds.
/// </summary>
public abstract class Flow
{
    internal Flow(GatewayContext gateway, FlowProtocol protocol, Neighbour guest, ushort guestPort, Ipv4Address remote, ushort remotePort, FlowState state, bool inbound, long now)
    {
        Gateway = gateway;
        Protocol = protocol;
        Guest = guest;
        GuestPort = guestPort;
        Remote = remote;
        RemotePort = remotePort;
        State = state;
        Inbound = inbound;
        StartTime = gateway.Time.GetUtcNow();
        Started = LastActivity = now;
    }

    protected GatewayContext Gateway { get; }

    /// <summary>Unique in the network while the process lives; given by the registry.</summary>
    public long Number { get; internal set; }
    public FlowProtocol Protocol { get; }
    public Neighbour Guest { get; }
    public ushort GuestPort { get; }
    public Ipv4Address Remote { get; protected set; }
    public ushort RemotePort { get; protected set; }
    public bool Inbound { get; }
    public DateTimeOffset StartTime { get; }

    /// <summary>Microseconds of the loop's clock.</summary>
    public long Started { get; }

    /// <summary>Microseconds of the loop's clock; the last payload or segment.</summary>
    public long LastActivity { get; protected set; }
    public FlowState State { get; private set; }

    /// <summary>Payload that the host's socket took; never goes back.</summary>
    public ulong BytesToRemote { get; protected set; }

    /// <summary>Payload that was sent to the guest; never goes back.</summary>
    public ulong BytesToGuest { get; protected set; }
    public string EndReason { get; internal set; } = "";
    public HostEndpoint? Host { get; protected set; }

    /// <summary>The root span, when traces are exported.</summary>
    internal Activity? Span { get; set; }

    // The registry's list, oldest first.
    internal Flow? Previous { get; set; }
    internal Flow? Next { get; set; }

    public virtual uint Retransmits => 0;

    /// <summary>Smoothed round trip to the guest in microseconds; zero: not known.</summary>
    public virtual long RoundTrip => 0;

    /// <summary>Ends the flow, for whatever reason: both sides are told that it is over, as far as the protocol can.</summary>
    public abstract void End(string reason);

    public FlowSnapshot Snapshot(long now) => new(Gateway.Settings.Network, Number, Protocol, new FlowAddress(Guest.Address.ToString(), GuestPort),
        new FlowAddress(Remote.ToString(), RemotePort), Host is null ? null : new FlowAddress(Host.Address.ToString(), Host.Port), State, Inbound, BytesToRemote, BytesToGuest,
        StartTime, TimeSpan.FromMicroseconds(Math.Max(0, now - LastActivity)), Retransmits, EndReason, RoundTrip == 0 ? null : TimeSpan.FromMicroseconds(RoundTrip));

    /// <summary>The one place that changes the state.</summary>
    protected internal void SetState(FlowState state)
    {
        if (state == State)
            return;
        State = state;
        Gateway.Flows.Changed(this);
    }
}

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
    TimeSpan? RoundTrip);
