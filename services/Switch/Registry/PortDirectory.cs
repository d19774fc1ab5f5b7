using System.Text.RegularExpressions;
using System.Threading.Channels;
using VNetMesh.Links;
using VNetMesh.Switch.Forwarding;

namespace VNetMesh.Switch.Registry;

/// <summary>A port in the directory: its record now, its place in the data path, and which connection it has.</summary>
public sealed class PortEntry
{
    internal PortEntry(PortInfo info, ForwardingPort forwarding)
    {
        Info = info;
        Forwarding = forwarding;
    }

    /// <summary>As it is now; replaced as a whole.</summary>
    public PortInfo Info { get; internal set; }

    public ForwardingPort Forwarding { get; }

    internal bool IsRemoved { get; set; }

    /// <summary>Number of the connection that was begun last.</summary>
    internal long Connection { get; set; }

    /// <summary>Number of the last connection that is known to have ended.</summary>
    internal long Lost { get; set; }
}

/// <summary>
/// Which ports are on the networks. Ports are not stored: their owners register them again when the switch has
/// restarted. It brings each change into the data path, and hears from there of links that ended.
/// </summary>
public sealed partial class PortDirectory : ILinkObserver, IAsyncDisposable
{
    public const int MaxPortsPerNetwork = 1024;
    public const int MaxPorts = 4096;

    private readonly NetworkRegistry _registry;
    private readonly ForwardingPlane _plane;
    private readonly TimeProvider _time;
    private readonly ILogger<PortDirectory> _logger;
    private readonly SortedDictionary<string, PortEntry> _ports = new(StringComparer.Ordinal);
    private readonly Dictionary<string, int> _portsOn = [];

    // Links are lost at most once for each time they are connected, so what is in here is bounded by that.
    private readonly Channel<(ForwardingPort Port, long Connection, string Reason)> _lost = Channel.CreateUnbounded<(ForwardingPort, long, string)>();
    private readonly Task _following;
    private ulong _revision;
    private long _connections;

    public PortDirectory(NetworkRegistry registry, ForwardingPlane plane, TimeProvider time, ILogger<PortDirectory> logger)
    {
        _registry = registry;
        _plane = plane;
        _time = time;
        _logger = logger;
        Feed = new ChangeFeed<PortInfo>(registry.Gate, () => [.. _ports.Values.Select(entry => entry.Info)]);
        lock (registry.Gate)
        {
            foreach (NetworkDefinition network in registry.List())
                _plane.AddNetwork(network.Name, SettingsOf(network), this);
            registry.Changed += OnNetworkChanged;
        }
        _following = FollowLostLinksAsync();
    }

    public ChangeFeed<PortInfo> Feed { get; }

    /// <summary>Ports in the order of their names.</summary>
    public IReadOnlyList<PortEntry> List()
    {
        lock (_registry.Gate)
            return [.. _ports.Values];
    }

    /// <exception cref="RegistryException">PORT_NOT_FOUND.</exception>
    public PortEntry Get(string name)
    {
        lock (_registry.Gate)
            return _ports.TryGetValue(name, out PortEntry? entry) ? entry : throw Refuse.PortNotFound(name);
    }

    /// <summary>Ids of the guests' ports on a network.</summary>
    public IReadOnlyList<string> GuestPortsOn(string network)
    {
        lock (_registry.Gate)
            return [.. _ports.Values.Where(entry => entry.Info.Network == network && entry.Info.Role == PortRole.Guest).Select(entry => entry.Info.Id)];
    }

    /// <summary>Makes a port, or takes over the one of that name; its link stays until another is connected.</summary>
    /// <param name="wanted">State and time do not count; the role is guest when unspecified.</param>
    /// <exception cref="RegistryException">NETWORK_NOT_FOUND, PORT_ID_INVALID, TRANSPORT_INVALID, TOO_MANY_PORTS, PORT_OWNED_BY_OTHER.</exception>
    public PortEntry Register(PortInfo wanted)
    {
        if (wanted.Transport is not (PortTransport.Tap or PortTransport.Ring or PortTransport.VmSocket))
            throw Refuse.Invalid("TRANSPORT_INVALID", "the transport must be TAP, RING or VM_SOCKET; a stream is made by Attach", ("field", "transport"));
        return MakeOrTakeOver(wanted, existing => existing.Owner == wanted.Owner ? null : Refuse.PortOwnedByOther(existing.Name, existing.Owner));
    }

    /// <summary>Makes a port for a stream, or takes over one of the same owner that nothing is connected to.</summary>
    /// <exception cref="RegistryException">As for Register, and PORT_EXISTS.</exception>
    public PortEntry RegisterStream(PortInfo wanted) => MakeOrTakeOver(wanted with { Transport = PortTransport.Stream }, existing =>
        existing.State == PortState.Up ? Refuse.PortExists(existing.Name)
        : existing.Owner != wanted.Owner ? Refuse.PortOwnedByOther(existing.Name, existing.Owner)
        : null);

    /// <exception cref="RegistryException">PORT_NOT_FOUND.</exception>
    public void Delete(string name)
    {
        lock (_registry.Gate)
            Remove(Get(name));
        LogDeleted(name);
    }

    /// <summary>Takes a stream's port away, unless it has become another's meanwhile.</summary>
    /// <param name="connection">The stream's connection; 0: it never had one.</param>
    public void RemoveStream(PortEntry entry, long connection)
    {
        lock (_registry.Gate)
        {
            if (!entry.IsRemoved && entry.Info.Transport == PortTransport.Stream && entry.Connection == connection)
                Remove(entry);
        }
    }

    /// <summary>Connects a link to a port; the link belongs to the data path from now on, also after a failure.</summary>
    /// <param name="released">Called on a forwarding thread when the link was let go; must not block.</param>
    /// <returns>A task with the connection's number.</returns>
    /// <exception cref="InvalidOperationException">The port was removed meanwhile.</exception>
    public async Task<long> ConnectAsync(PortEntry entry, IFrameLink link, Action<string>? released)
    {
        var connected = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        long connection;
        lock (_registry.Gate)
        {
            if (entry.IsRemoved)
            {
                link.Dispose();
                released?.Invoke("the port was removed");
                throw new InvalidOperationException($"{entry.Info.Name} was removed meanwhile");
            }
            connection = entry.Connection = ++_connections;
            _plane.Connect(entry.Forwarding, link, connection, released, failure =>
            {
                if (failure is null)
                    connected.SetResult();
                else
                    connected.SetException(failure);
            });
        }
        await connected.Task.ConfigureAwait(false);
        lock (_registry.Gate)
        {
            // The link may be lost already, and even its loss may have been heard of before.
            if (!entry.IsRemoved && entry.Connection == connection && entry.Lost < connection)
                Update(entry, entry.Info with { State = PortState.Up });
        }
        LogConnected(entry.Info.Name, entry.Info.Transport);
        return connection;
    }

    /// <summary>Ends one connection of a port; another that took its place is left alone.</summary>
    public void Disconnect(PortEntry entry, long connection, string reason) => _plane.Disconnect(entry.Forwarding, connection, reason);

    public void OnLinkLost(ForwardingPort port, long connection, string reason) => _lost.Writer.TryWrite((port, connection, reason));

    public void OnAddressConflict(string network, AddressConflict conflict) =>
        ThreadPool.QueueUserWorkItem(_ => LogConflict(network, conflict.Address.ToString(), conflict.Mac.ToString(), conflict.Port, conflict.OtherMac.ToString(), conflict.OtherPort));

    public async ValueTask DisposeAsync()
    {
        _registry.Changed -= OnNetworkChanged;
        _lost.Writer.TryComplete();
        await _following.ConfigureAwait(false);
    }

    private PortEntry MakeOrTakeOver(PortInfo wanted, Func<PortInfo, RegistryException?> objection)
    {
        if (!IdPattern().IsMatch(wanted.Id))
            throw Refuse.Invalid("PORT_ID_INVALID", $"the port id '{wanted.Id}' must be 1 to 63 of a-z, 0-9, '-' and '.', and begin with a letter or digit");
        if (wanted.Owner.Length > 63 || wanted.Owner.Any(char.IsControl))
            throw Refuse.Invalid("OWNER_INVALID", "the owner must be at most 63 printable characters", ("field", "owner"));
        if (wanted.Role == PortRole.Unspecified)
            wanted = wanted with { Role = PortRole.Guest };
        if (!Enum.IsDefined(wanted.Role))
            throw Refuse.Invalid("ROLE_INVALID", "the role must be guest, host, service or uplink", ("field", "role"));
        lock (_registry.Gate)
        {
            _registry.Get(wanted.Network);
            if (_ports.TryGetValue(wanted.Name, out PortEntry? entry))
            {
                if (objection(entry.Info) is { } refusal)
                    throw refusal;
                PortInfo taken = wanted with { State = entry.Info.State, CreateTime = entry.Info.CreateTime };
                if (taken.Role != entry.Info.Role)
                    _plane.SetRole(entry.Forwarding, taken.Role);
                if (taken != entry.Info)
                    Update(entry, taken);
                return entry;
            }
            int count = _portsOn.GetValueOrDefault(wanted.Network);
            if (count >= MaxPortsPerNetwork)
                throw Refuse.TooManyPorts(wanted.Network, MaxPortsPerNetwork);
            if (_ports.Count >= MaxPorts)
                throw Refuse.TooManyPorts("the switch", MaxPorts);
            PortInfo made = wanted with { State = PortState.Waiting, CreateTime = _time.GetUtcNow() };
            entry = new PortEntry(made, _plane.AddPort(made.Network, made.Name, made.Role));
            _ports.Add(made.Name, entry);
            _portsOn[made.Network] = count + 1;
            Feed.Publish(ChangeKind.Created, made, ++_revision);
            LogRegistered(made.Name, made.Role, made.Transport, made.Owner);
            return entry;
        }
    }

    private void Update(PortEntry entry, PortInfo info)
    {
        if (entry.Info == info)
            return;
        entry.Info = info;
        Feed.Publish(ChangeKind.Updated, info, ++_revision);
    }

    private void Remove(PortEntry entry)
    {
        entry.IsRemoved = true;
        _ports.Remove(entry.Info.Name);
        _portsOn[entry.Info.Network]--;
        _plane.RemovePort(entry.Forwarding);
        Feed.Publish(ChangeKind.Deleted, entry.Info, ++_revision);
    }

    private void OnNetworkChanged(NetworkDefinition? before, NetworkDefinition? after)
    {
        if (before is null)
            _plane.AddNetwork(after!.Name, SettingsOf(after), this);
        else if (after is not null)
            _plane.UpdateNetwork(after.Name, SettingsOf(after));
        else
        {
            foreach (PortEntry entry in _ports.Values.Where(entry => entry.Info.Network == before.Name).ToList())
                Remove(entry);
            _portsOn.Remove(before.Name);
            _plane.RemoveNetwork(before.Name);
        }
    }

    private static ForwardingSettings SettingsOf(NetworkDefinition network) =>
        new(network.Mtu, (long)network.MacAgeing.TotalMicroseconds, network.MaxMacs, network.MaxMacsPerPort, network.IsolatePorts) { WatchesAddresses = network.Kind == NetworkKind.Bridged };

    private async Task FollowLostLinksAsync()
    {
        await foreach ((ForwardingPort port, long connection, string reason) in _lost.Reader.ReadAllAsync().ConfigureAwait(false))
        {
            LogLost(port.Name, reason);
            lock (_registry.Gate)
            {
                if (!_ports.TryGetValue(port.Name, out PortEntry? entry) || entry.Forwarding != port)
                    continue;
                entry.Lost = Math.Max(entry.Lost, connection);
                if (entry.Connection == connection)
                    Update(entry, entry.Info with { State = PortState.Down });
            }
        }
    }

    [GeneratedRegex(@"\A[a-z0-9][a-z0-9.-]{0,62}\z")]
    private static partial Regex IdPattern();

    [LoggerMessage(LogLevel.Information, "{Port} was registered: {Role}, {Transport}, by '{Owner}'")]
    private partial void LogRegistered(string port, PortRole role, PortTransport transport, string owner);

    [LoggerMessage(LogLevel.Information, "{Port} is connected by {Transport}")]
    private partial void LogConnected(string port, PortTransport transport);

    [LoggerMessage(LogLevel.Information, "{Port} is down: {Reason}")]
    private partial void LogLost(string port, string reason);

    [LoggerMessage(LogLevel.Warning, "{Network}: two stations have the address {Address}: {Mac} ({Port}) and {OtherMac} ({OtherPort})")]
    private partial void LogConflict(string network, string address, string mac, string port, string otherMac, string otherPort);

    [LoggerMessage(LogLevel.Information, "{Port} was deleted")]
    private partial void LogDeleted(string port);
}
