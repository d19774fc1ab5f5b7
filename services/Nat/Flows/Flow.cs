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
    private FlowStory _story;

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
    public ulong BytesToRemote
    {
        get;
        protected set
        {
            Guest.Talker?.ToRemote += value - field;
            field = value;
        }
    }

    /// <summary>Payload that was sent to the guest; never goes back.</summary>
    public ulong BytesToGuest
    {
        get;
        protected set
        {
            Guest.Talker?.ToGuest += value - field;
            field = value;
        }
    }

    public string EndReason { get; internal set; } = "";
    public HostEndpoint? Host { get; protected set; }

    /// <summary>What befell it; changed in place.</summary>
    public ref FlowStory Story => ref _story;

    internal string Network => Gateway.Settings.Network;

    // The registry's list, oldest first.
    internal Flow? Previous { get; set; }
    internal Flow? Next { get; set; }

    public virtual uint Retransmits => 0;

    /// <summary>Smoothed round trip to the guest in microseconds; zero: not known.</summary>
    public virtual long RoundTrip => 0;

    /// <summary>Ends the flow, for whatever reason: both sides are told that it is over, as far as the protocol can.</summary>
    public abstract void End(string reason);

    public FlowSnapshot Snapshot(long now) => new FlowFacts(this).ToSnapshot(now);

    /// <summary>Remembers when something befell it for the first time.</summary>
    internal void Note(FlowMoment moment, long now) => _story.Note(moment, now);

    /// <summary>The one place that changes the state.</summary>
    protected internal void SetState(FlowState state)
    {
        if (state == State)
            return;
        State = state;
        Gateway.Flows.Changed(this);
    }
}
