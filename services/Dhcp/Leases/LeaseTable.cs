using VNetMesh.Dhcp.Protocol;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Leases;

public enum LeaseChangeKind
{
    Created = 1,
    Updated = 2,
    Deleted = 3,
}

public enum HoldKind
{
    /// <summary>The ARP probe runs; the client has not heard of the address yet.</summary>
    Probing,
    Offered,

    /// <summary>The lease is on its way to the disk. Ends when the store has answered, not by time.</summary>
    Committing,
}

/// <summary>An address kept for a client for a short time, in memory alone.</summary>
public sealed class Hold
{
    public required HoldKind Kind { get; set; }

    /// <summary>The message that was answered last, or is to be answered.</summary>
    public required DhcpMessage Message { get; set; }
    public required string Why { get; init; }
    public required DateTimeOffset Since { get; set; }
    public required DateTimeOffset Until { get; set; }
    public bool Reserved { get; init; }

    /// <summary>Addresses that were found in use before this one, for the same DISCOVER.</summary>
    public int Conflicts { get; init; }

    /// <summary>Writes not yet answered by the store: more than zero while Kind is Committing.</summary>
    public int Writes { get; set; }

    public ClientKey Client => Message.Client;
}

/// <summary>An address of which something is known: at least one of lease and hold is there.</summary>
public sealed class AddressEntry(Ipv4Address address)
{
    public Ipv4Address Address { get; } = address;
    public Lease? Lease { get; internal set; }
    public Hold? Hold { get; internal set; }

    /// <summary>The earliest time for which the entry stands in the queue of times.</summary>
    internal DateTimeOffset Queued { get; set; } = DateTimeOffset.MaxValue;

    internal DateTimeOffset Due
    {
        get
        {
            DateTimeOffset lease = Lease is { State: LeaseState.Bound or LeaseState.Declined } ? Lease.Expire : DateTimeOffset.MaxValue;
            DateTimeOffset hold = Hold is { Kind: not HoldKind.Committing } ? Hold.Until : DateTimeOffset.MaxValue;
            return lease < hold ? lease : hold;
        }
    }
}

/// <summary>
/// The addresses of one network, by address and by client. A client has at most one lease and one hold. Every change goes
/// through <see cref="Change"/>, which keeps the indexes, the counts and the watchers right. One thread.
/// </summary>
public sealed class LeaseTable(string network, Action<LeaseChangeKind, Lease>? onChange = null)
{
    private readonly Dictionary<Ipv4Address, AddressEntry> _entries = [];
    private readonly Dictionary<ClientKey, AddressEntry> _leaseOf = [];
    private readonly Dictionary<ClientKey, AddressEntry> _holdOf = [];
    private readonly PriorityQueue<AddressEntry, DateTimeOffset> _times = new();
    private int _bound, _offered, _declined;

    /// <summary>Addresses of which something is known.</summary>
    public int Count => _entries.Count;

    /// <summary>Holds of any kind.</summary>
    public int Holds => _holdOf.Count;

    // Read by other threads, for metrics.
    public int Bound => Volatile.Read(ref _bound);
    public int Offered => Volatile.Read(ref _offered);
    public int Declined => Volatile.Read(ref _declined);

    /// <summary>When <see cref="TakeDue"/> has something to do; MaxValue: never, as things stand.</summary>
    public DateTimeOffset NextDue => _times.TryPeek(out _, out DateTimeOffset due) ? due : DateTimeOffset.MaxValue;

    /// <summary>For tests: places in the queue of times.</summary>
    internal int QueuedTimes => _times.Count;

    public IEnumerable<AddressEntry> Entries => _entries.Values;

    public IEnumerable<AddressEntry> HeldEntries => _holdOf.Values;

    public AddressEntry? Find(Ipv4Address address) => _entries.GetValueOrDefault(address);

    /// <summary>The client's lease, current or last.</summary>
    public Lease? LeaseOf(ClientKey client) => _leaseOf.GetValueOrDefault(client)?.Lease;

    public AddressEntry? HoldOf(ClientKey client) => _holdOf.GetValueOrDefault(client);

    /// <summary>What there is to show: the lease in force, else the offer, else the last lease.</summary>
    public IEnumerable<Lease> Views => _entries.Values.Select(View).OfType<Lease>();

    public void SetLease(Lease lease)
    {
        if (IsOfClient(lease) && _leaseOf.TryGetValue(lease.Client, out AddressEntry? other) && other.Address != lease.Address)
            Change(other, null, other.Hold);
        AddressEntry entry = Enter(lease.Address);
        Change(entry, lease, entry.Hold);
    }

    public void RemoveLease(Ipv4Address address)
    {
        if (Find(address) is { } entry)
            Change(entry, null, entry.Hold);
    }

    public void SetHold(Ipv4Address address, Hold hold)
    {
        if (_holdOf.TryGetValue(hold.Client, out AddressEntry? other) && other.Address != address)
            Change(other, other.Lease, null);
        AddressEntry entry = Enter(address);
        Change(entry, entry.Lease, hold);
    }

    public void RemoveHold(AddressEntry entry) => Change(entry, entry.Lease, null);

    /// <summary>Goes on to another kind of hold, or to another end.</summary>
    public void UpdateHold(AddressEntry entry, Action<Hold> update)
    {
        if (entry.Hold is not { } hold)
            return;
        Lease? before = View(entry);
        update(hold);
        Notify(before, View(entry));
        Queue(entry);
    }

    /// <summary>Ends what is over: leases expire, quarantines and offers end. Probes that have ended are given to the caller.</summary>
    public void TakeDue(DateTimeOffset now, List<AddressEntry> probed, List<Lease> expired)
    {
        while (_times.TryPeek(out AddressEntry? entry, out DateTimeOffset due) && due <= now)
        {
            _times.Dequeue();
            if (due < entry.Queued || !ReferenceEquals(Find(entry.Address), entry))
                continue;
            entry.Queued = DateTimeOffset.MaxValue;
            Lease? lease = entry.Lease;
            Hold? hold = entry.Hold;
            if (lease is { State: LeaseState.Bound } && lease.Expire <= now)
                expired.Add(lease = lease with { State = LeaseState.Expired });
            else if (lease is { State: LeaseState.Declined } && lease.Expire <= now)
                lease = null;
            if (hold is { Kind: HoldKind.Offered } && hold.Until <= now)
                hold = null;
            else if (hold is { Kind: HoldKind.Probing } && hold.Until <= now)
            {
                probed.Add(entry);
                hold.Until = DateTimeOffset.MaxValue;
            }
            Change(entry, lease, hold);
        }
    }

    private AddressEntry Enter(Ipv4Address address)
    {
        if (!_entries.TryGetValue(address, out AddressEntry? entry))
            _entries[address] = entry = new AddressEntry(address);
        return entry;
    }

    private void Change(AddressEntry entry, Lease? lease, Hold? hold)
    {
        Lease? before = View(entry);
        if (entry.Lease is { } oldLease && IsOfClient(oldLease) && ReferenceEquals(_leaseOf.GetValueOrDefault(oldLease.Client), entry))
            _leaseOf.Remove(oldLease.Client);
        if (entry.Hold is { } oldHold && ReferenceEquals(_holdOf.GetValueOrDefault(oldHold.Client), entry))
            _holdOf.Remove(oldHold.Client);
        entry.Lease = lease;
        entry.Hold = hold;
        if (lease is not null && IsOfClient(lease))
            _leaseOf[lease.Client] = entry;
        if (hold is not null)
            _holdOf[hold.Client] = entry;
        if (lease is null && hold is null)
            _entries.Remove(entry.Address);
        Notify(before, View(entry));
        Queue(entry);
    }

    /// <summary>A later time waits for the earlier one to come up, so a renewal costs no place in the queue.</summary>
    private void Queue(AddressEntry entry)
    {
        if (entry.Due >= entry.Queued)
            return;
        entry.Queued = entry.Due;
        _times.Enqueue(entry, entry.Due);
        if (_times.Count > (4 * _entries.Count) + 64)
            RebuildQueue();
    }

    /// <summary>Places of entries that came up earlier by another place are left behind, and must not add up.</summary>
    private void RebuildQueue()
    {
        _times.Clear();
        foreach (AddressEntry entry in _entries.Values)
        {
            entry.Queued = entry.Due;
            if (entry.Due != DateTimeOffset.MaxValue)
                _times.Enqueue(entry, entry.Due);
        }
    }

    private void Notify(Lease? before, Lease? after)
    {
        if (before == after)
            return;
        Tally(before, -1);
        Tally(after, 1);
        if (onChange is null)
            return;
        LeaseChangeKind kind = before is null ? LeaseChangeKind.Created : after is null ? LeaseChangeKind.Deleted : LeaseChangeKind.Updated;
        onChange(kind, (after ?? before)!);
    }

    private void Tally(Lease? view, int change)
    {
        switch (view?.State)
        {
            case LeaseState.Bound:
                Volatile.Write(ref _bound, _bound + change);
                break;
            case LeaseState.Offered:
                Volatile.Write(ref _offered, _offered + change);
                break;
            case LeaseState.Declined:
                Volatile.Write(ref _declined, _declined + change);
                break;
        }
    }

    private Lease? View(AddressEntry entry)
    {
        if (entry.Lease is { State: LeaseState.Bound or LeaseState.Declined } || entry.Hold is null or { Kind: HoldKind.Probing })
            return entry.Lease;
        Hold hold = entry.Hold;
        return new Lease
        {
            Network = network,
            Address = entry.Address,
            State = LeaseState.Offered,
            Client = hold.Client,
            Mac = hold.Message.Mac,
            ClientId = hold.Message.ClientIdentifier is { } identifier ? Convert.ToHexStringLower(identifier) : "",
            HostName = hold.Message.HostName,
            Start = hold.Since,
            Expire = hold.Until,
            Reserved = hold.Reserved,
        };
    }

    /// <summary>An address in quarantine is nobody's, whoever declined it.</summary>
    private static bool IsOfClient(Lease lease) => lease.State != LeaseState.Declined && !lease.Client.IsNobody;
}
