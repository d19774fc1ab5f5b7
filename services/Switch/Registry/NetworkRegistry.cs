namespace VNetMesh.Switch.Registry;

/// <summary>
/// Which networks exist. A change is checked, stored on disk, and only then seen by anyone. All of the control side shares
/// one lock, <see cref="Gate"/>; it is held for a write to disk at most, and never by a forwarding thread.
/// </summary>
public sealed partial class NetworkRegistry : IDisposable
{
    private readonly NetworkStore _store;
    private readonly TimeProvider _time;
    private readonly ILogger<NetworkRegistry> _logger;
    private readonly SortedDictionary<string, NetworkDefinition> _networks = new(StringComparer.Ordinal);
    private ulong _revision;

    public NetworkRegistry(NetworkStore store, TimeProvider time, ILogger<NetworkRegistry> logger)
    {
        _store = store;
        _time = time;
        _logger = logger;
        _revision = store.ReadRevision();
        foreach (NetworkDefinition network in store.ReadNetworks())
            _networks.Add(network.Id, network);
        if (store.IsNew)
            Seed();
        Feed = new ChangeFeed<NetworkDefinition>(Gate, () => [.. _networks.Values], _revision);
    }

    /// <summary>The lock of the control side.</summary>
    public Lock Gate { get; } = new();

    public ChangeFeed<NetworkDefinition> Feed { get; }

    /// <summary>Raised after each change, under <see cref="Gate"/>: with null as what was before, created; as what is now, deleted.</summary>
    public event Action<NetworkDefinition?, NetworkDefinition?>? Changed;

    /// <summary>Networks in the order of their ids.</summary>
    public IReadOnlyList<NetworkDefinition> List()
    {
        lock (Gate)
            return [.. _networks.Values];
    }

    /// <param name="name">"networks/{id}"</param>
    /// <exception cref="RegistryException">NETWORK_NOT_FOUND.</exception>
    public NetworkDefinition Get(string name)
    {
        lock (Gate)
        {
            if (name.StartsWith(NetworkDefinition.Prefix, StringComparison.Ordinal) && _networks.TryGetValue(name[NetworkDefinition.Prefix.Length..], out NetworkDefinition? network))
                return network;
        }
        throw Refuse.NetworkNotFound(name);
    }

    /// <exception cref="RegistryException">One of the reasons that switch.proto lists.</exception>
    /// <param name="validateOnly">Gives it as it would be, and makes nothing.</param>
    public NetworkDefinition Create(NetworkDraft draft, bool validateOnly = false)
    {
        lock (Gate)
        {
            if (_networks.ContainsKey(draft.Id))
                throw Refuse.NetworkExists(NetworkDefinition.Prefix + draft.Id);
            if (_networks.Count >= NetworkPlanner.MaxNetworks)
                throw Refuse.TooManyNetworks(NetworkPlanner.MaxNetworks);
            NetworkDefinition network = NetworkPlanner.Complete(draft, _networks.Values) with { Revision = _revision + 1, CreateTime = _time.GetUtcNow() };
            if (validateOnly)
                return network;
            _store.Save(network.Revision, network);
            Put(ChangeKind.Created, null, network);
            LogCreated(network.Name, network.Kind, network.Subnet?.ToString() ?? "none");
            return network;
        }
    }

    /// <param name="revision">The revision that the change was made for; 0: whichever is current.</param>
    /// <param name="fields">Paths of the fields that <paramref name="change"/> sets.</param>
    /// <param name="change">Gives the draft of the network as it is to be.</param>
    /// <param name="validateOnly">Gives it as it would be, and changes nothing.</param>
    /// <exception cref="RegistryException">One of the reasons that switch.proto lists.</exception>
    public NetworkDefinition Update(string name, ulong revision, IReadOnlySet<string> fields, Func<NetworkDraft, NetworkDraft> change, bool validateOnly = false)
    {
        lock (Gate)
        {
            NetworkDefinition current = Get(name);
            if (revision != 0 && revision != current.Revision)
                throw Refuse.RevisionMismatch(name, revision, current.Revision);
            NetworkDraft draft = change(NetworkDraft.From(current));
            if (draft.Kind != current.Kind)
                throw Refuse.Invalid("KIND_IMMUTABLE", $"the kind of {name} cannot be changed; make another network", ("field", "kind"));
            if (fields.Contains("ipv4_subnet") && !fields.Contains("ipv4_subnet_auto"))
                draft = draft with { SubnetAuto = false };
            var others = _networks.Values.Where(other => other.Id != current.Id).ToList();
            NetworkDefinition network = NetworkPlanner.Complete(NetworkPlanner.Rebase(draft, current, fields), others, current.Subnet) with
            {
                Revision = _revision + 1,
                CreateTime = current.CreateTime,
                Conditions = current.Conditions,
            };
            if (StoredNetwork.AreSame(current, network))
                return current;
            if (validateOnly)
                return network;
            _store.Save(network.Revision, network);
            Put(ChangeKind.Updated, current, network);
            LogUpdated(network.Name, string.Join(", ", fields));
            return network;
        }
    }

    /// <param name="guestPorts">Gives the ids of the guests' ports on it; asked under <see cref="Gate"/>.</param>
    /// <param name="force">Guests' ports do not stand in the way.</param>
    /// <exception cref="RegistryException">NETWORK_NOT_FOUND, NETWORK_IN_USE.</exception>
    public void Delete(string name, bool force, Func<string, IReadOnlyList<string>> guestPorts)
    {
        lock (Gate)
        {
            NetworkDefinition network = Get(name);
            IReadOnlyList<string> guests = guestPorts(name);
            if (guests.Count > 0 && !force)
                throw Refuse.NetworkInUse(name, guests);
            _store.Delete(_revision + 1, network.Id);
            Put(ChangeKind.Deleted, network, null);
            LogDeleted(name);
        }
    }

    /// <summary>Says what stands in a network's way; not stored.</summary>
    public void SetConditions(string name, IReadOnlyList<string> conditions)
    {
        lock (Gate)
        {
            NetworkDefinition current = Get(name);
            if (current.Conditions.SequenceEqual(conditions))
                return;
            _store.Save(_revision + 1);
            Put(ChangeKind.Updated, current, current with { Conditions = conditions, Revision = _revision + 1 });
        }
    }

    public void Dispose() => _store.Dispose();

    private void Put(ChangeKind kind, NetworkDefinition? before, NetworkDefinition? after)
    {
        _revision++;
        if (after is not null)
            _networks[after.Id] = after;
        else
            _networks.Remove(before!.Id);
        Changed?.Invoke(before, after);
        Feed.Publish(kind, after ?? before!, _revision);
    }

    /// <summary>The networks that every installation begins with.</summary>
    private void Seed()
    {
        NetworkDraft[] drafts =
        [
            new() { Id = "vmnet0", Kind = NetworkKind.Bridged },
            new() { Id = "vmnet1", Kind = NetworkKind.HostOnly, Subnet = "192.168.101.0/24", SubnetAuto = true },
            new() { Id = "vmnet8", Kind = NetworkKind.Nat, Subnet = "192.168.108.0/24", SubnetAuto = true },
        ];
        foreach (NetworkDraft draft in drafts)
        {
            NetworkDefinition network = NetworkPlanner.Complete(draft, _networks.Values);
            _networks.Add(network.Id, network with { Revision = ++_revision, CreateTime = _time.GetUtcNow() });
        }
        _store.Save(_revision, [.. _networks.Values]);
        LogSeeded();
    }

    [LoggerMessage(LogLevel.Information, "The database is new: made vmnet0 (bridged), vmnet1 (host-only) and vmnet8 (NAT)")]
    private partial void LogSeeded();

    [LoggerMessage(LogLevel.Information, "{Network} was created: {Kind}, subnet {Subnet}")]
    private partial void LogCreated(string network, NetworkKind kind, string subnet);

    [LoggerMessage(LogLevel.Information, "{Network} was changed: {Fields}")]
    private partial void LogUpdated(string network, string fields);

    [LoggerMessage(LogLevel.Information, "{Network} was deleted")]
    private partial void LogDeleted(string network);
}
