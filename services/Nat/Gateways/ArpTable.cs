using VNetMesh.Nat.Timing;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Gateways;

/// <summary>
/// Who bears which address of the subnet (RFC 826), at most <see cref="MaxEntries"/>. Entries come from requests to the gateway
/// and from traffic; replies and gratuitous ARPs only change entries that are there, so nobody fills the table by shouting.
/// When it is full, the entry that was silent longest and holds nothing gives way.
/// </summary>
public sealed class ArpTable(GatewaySettings settings, FrameSender sender, TimerQueue timers, DropCounters drops)
{
    public const int MaxEntries = 4096;
    private const int MaxWaiters = 256;
    private const int MaxAttempts = 3;
    private const long RetryMicroseconds = 1_000_000;
    private const long RefreshMicroseconds = 1_000_000;
    private const long DefendMicroseconds = 10_000_000; // RFC 5227, 2.4(c)

    private readonly Dictionary<Ipv4Address, Neighbour> _entries = [];
    private readonly LinkedList<Neighbour> _recency = new(); // first: seen last
    private long _lastDefence = long.MinValue / 2;

    public int Count => _entries.Count;

    public Neighbour? Find(Ipv4Address address) => _entries.GetValueOrDefault(address);

    /// <summary>Addresses of which a guest may speak: inside the subnet and nobody's that VNetMesh serves itself.</summary>
    public bool IsGuestAddress(Ipv4Address address) => settings.Subnet.ContainsHost(address) && address != settings.Address && address != settings.DhcpServer;

    /// <summary>Notes who sent a packet. Null: the table is full of entries in use.</summary>
    public Neighbour? Learn(Ipv4Address address, MacAddress mac, long now)
    {
        Neighbour? neighbour = FindOrAdd(address, now);
        if (neighbour is null)
            return null;
        if (now - neighbour.LastSeen > RefreshMicroseconds)
            Touch(neighbour, now);
        if (neighbour.Mac != mac)
            Resolve(neighbour, mac, now);
        return neighbour;
    }

    /// <summary>The entry of an address, resolved or not. Null: the table is full of entries in use.</summary>
    public Neighbour? FindOrAdd(Ipv4Address address, long now) => _entries.GetValueOrDefault(address) ?? Add(address, now);

    /// <summary>Finds out an address's bearer; the waiter is told, at once when it is known already. False: too many wait.</summary>
    public bool TryResolve(Ipv4Address address, INeighbourWaiter waiter, long now)
    {
        Neighbour? neighbour = FindOrAdd(address, now);
        if (neighbour is null)
        {
            drops.Count(DropCause.NeighbourTableFull);
            return false;
        }
        if (neighbour.IsResolved)
        {
            waiter.OnResolved(neighbour, now);
            return true;
        }
        neighbour.Waiters ??= [];
        if (neighbour.Waiters.Count >= MaxWaiters)
        {
            drops.Count(DropCause.ArpUnresolved);
            return false;
        }
        neighbour.Waiters.Add(waiter);
        if (neighbour.Waiters.Count == 1)
        {
            neighbour.Attempts = 0;
            Ask(neighbour, now);
        }
        return true;
    }

    public void Receive(MacAddress frameSource, ReadOnlySpan<byte> payload, long now)
    {
        if (!ArpPacket.TryParse(payload, out ArpPacket packet))
        {
            drops.Count(DropCause.ArpMalformed);
            return;
        }
        if (packet.SenderMac != frameSource)
        {
            drops.Count(DropCause.ArpMismatch);
            return;
        }
        if (packet.SenderIp == settings.Address)
        {
            Defend(now);
            return;
        }
        bool isProbe = packet.SenderIp.IsAny; // RFC 5227, 1.1: asks without claiming
        if (!isProbe && packet.SenderIp != settings.DhcpServer && !settings.Subnet.ContainsHost(packet.SenderIp))
        {
            drops.Count(DropCause.SpoofedSource);
            return;
        }
        bool asksUs = packet.Operation == ArpPacket.Request && packet.TargetIp == settings.Address;
        if (!isProbe && packet.SenderIp != settings.DhcpServer)
            Note(packet, asksUs, now);
        if (asksUs)
            sender.SendArp(frameSource, new ArpPacket(ArpPacket.Reply, settings.Mac, settings.Address, packet.SenderMac, packet.SenderIp));
    }

    /// <summary>Says who bears the gateway's address, when the link has come up: switches learn, guests renew.</summary>
    public void Announce() => sender.SendArp(MacAddress.Broadcast, new ArpPacket(ArpPacket.Request, settings.Mac, settings.Address, default, settings.Address));

    internal void OnTimer(Neighbour neighbour, long now)
    {
        if (neighbour.IsResolved)
            return;
        if (neighbour.Attempts < MaxAttempts)
        {
            Ask(neighbour, now);
            return;
        }
        Remove(neighbour);
        foreach (INeighbourWaiter waiter in TakeWaiters(neighbour))
            waiter.OnUnresolved(neighbour, now);
    }

    private void Note(in ArpPacket packet, bool asksUs, long now)
    {
        if (asksUs)
        {
            if (Learn(packet.SenderIp, packet.SenderMac, now) is null)
                drops.Count(DropCause.NeighbourTableFull);
        }
        else if (_entries.ContainsKey(packet.SenderIp))
        {
            Learn(packet.SenderIp, packet.SenderMac, now);
        }
    }

    private void Defend(long now)
    {
        drops.Count(DropCause.ArpConflict);
        if (now - _lastDefence < DefendMicroseconds)
            return;
        _lastDefence = now;
        Announce();
    }

    private void Ask(Neighbour neighbour, long now)
    {
        neighbour.Attempts++;
        timers.Set(neighbour.Timer, now + RetryMicroseconds);
        sender.SendArp(MacAddress.Broadcast, new ArpPacket(ArpPacket.Request, settings.Mac, settings.Address, default, neighbour.Address));
    }

    private void Resolve(Neighbour neighbour, MacAddress mac, long now)
    {
        neighbour.Mac = mac;
        timers.Cancel(neighbour.Timer);
        foreach (INeighbourWaiter waiter in TakeWaiters(neighbour))
            waiter.OnResolved(neighbour, now);
    }

    private static List<INeighbourWaiter> TakeWaiters(Neighbour neighbour)
    {
        List<INeighbourWaiter> waiters = neighbour.Waiters ?? [];
        neighbour.Waiters = null;
        return waiters;
    }

    private Neighbour? Add(Ipv4Address address, long now)
    {
        if (_entries.Count >= MaxEntries && !EvictOne())
            return null;
        var neighbour = new Neighbour(this, address) { LastSeen = now };
        neighbour.Node = _recency.AddFirst(neighbour);
        _entries.Add(address, neighbour);
        return neighbour;
    }

    private void Touch(Neighbour neighbour, long now)
    {
        neighbour.LastSeen = now;
        _recency.Remove(neighbour.Node!);
        _recency.AddFirst(neighbour.Node!);
    }

    private bool EvictOne()
    {
        // Entries in use are moved to the front as they are met, so the walk is short the next time.
        for (int i = 0; i < 64 && _recency.Last is { } last; i++)
        {
            if (!last.Value.IsPinned)
            {
                Remove(last.Value);
                return true;
            }
            _recency.Remove(last);
            _recency.AddFirst(last);
        }
        return false;
    }

    private void Remove(Neighbour neighbour)
    {
        timers.Cancel(neighbour.Timer);
        _recency.Remove(neighbour.Node!);
        _entries.Remove(neighbour.Address);
    }
}
