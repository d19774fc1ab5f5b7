using VNetMesh.Nat.Flows;
using VNetMesh.Nat.Timing;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Gateways;

/// <summary>Waits for a guest's hardware address.</summary>
public interface INeighbourWaiter
{
    void OnResolved(Neighbour neighbour, long now);

    /// <summary>Nobody answered ARP for the address.</summary>
    void OnUnresolved(Neighbour neighbour, long now);
}

/// <summary>An address on the network, who bears it, and what it holds here.</summary>
public sealed class Neighbour : ITimerOwner
{
    private readonly ArpTable _table;

    internal Neighbour(ArpTable table, Ipv4Address address)
    {
        _table = table;
        Address = address;
        Timer = new LoopTimer(this);
    }

    public Ipv4Address Address { get; }

    /// <summary>Zero until it is known.</summary>
    public MacAddress Mac { get; internal set; }

    public bool IsResolved => !Mac.IsZero;

    /// <summary>Flows alive; at most <see cref="NatLimits.MaxFlowsPerGuest"/>. While there are any, the entry stays.</summary>
    public int Flows { get; internal set; }

    /// <summary>Where its traffic counts; set while there are flows.</summary>
    internal Talker? Talker { get; set; }

    /// <summary>DNS queries under way.</summary>
    public int DnsQueries { get; internal set; }

    internal long LastSeen { get; set; }
    internal int Attempts { get; set; }
    internal LoopTimer Timer { get; }
    internal List<INeighbourWaiter>? Waiters { get; set; }
    internal LinkedListNode<Neighbour>? Node { get; set; }

    internal bool IsPinned => Flows > 0 || DnsQueries > 0 || Waiters is { Count: > 0 };

    void ITimerOwner.OnTimer(long now) => _table.OnTimer(this, now);
}
