using VNetMesh.Agent.Egress;
using VNetMesh.Agent.HostChanges;
using VNetMesh.Agent.Namespaces;
using VNetMesh.Agent.Netlink;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Devices;

/// <summary>
/// The host's own adapters: on every network where the host has an address, a TAP called like the network, with that
/// address, in the agent's own namespace.
/// </summary>
public sealed partial class HostAdapters(ChangeJournal journal, DeviceSet devices, IFabric fabric, EgressKeeper egress, ILogger<HostAdapters> logger)
{
    private const int MaxSubnetAttempts = 160;

    /// <summary>The host adapter's link-local address wherever it has IPv6 of ours; dhcp knows it too.</summary>
    private const string RouterAddress = "fe80::1";
    private readonly Dictionary<string, string> _conditions = new(StringComparer.Ordinal);
    private readonly Dictionary<string, NetworkSpec> _chosen = new(StringComparer.Ordinal);

    /// <summary>What stands in an adapter's way, by network name; where there is a device, it bears its condition itself.</summary>
    public IReadOnlyDictionary<string, string> Conditions => _conditions;

    /// <summary>Brings all adapters in line with the networks.</summary>
    public async Task ReconcileAsync(IReadOnlyCollection<NetworkSpec> networks, CancellationToken cancellation)
    {
        HashSet<string> wanted = [.. networks.Where(network => network.HostAddress is not null).Select(network => network.Name)];
        foreach (string owner in OwnersInJournal().Where(owner => !wanted.Contains(owner)))
            Remove(owner);
        foreach (NetworkSpec network in networks.Where(network => wanted.Contains(network.Name)).Select(Newest))
        {
            try
            {
                await EnsureAsync(network, cancellation);
                Tell(network.Name, "");
            }
            catch (IOException exception)
            {
                Tell(network.Name, exception.Message);
            }
        }
    }

    /// <summary>The switch went away: what it told last may be all that it will tell again.</summary>
    public void ForgetChoices() => _chosen.Clear();

    public void Remove(string owner)
    {
        _chosen.Remove(owner);
        foreach ((long id, _) in journal.Of<AddressChange>(owner).Reverse().ToList())
            journal.Undo(id);
        foreach ((long id, _) in journal.Of<Ipv6AddressChange>(owner).Reverse().ToList())
            journal.Undo(id);
        devices.Drop(owner, undo: true);
        _conditions.Remove(owner);
    }

    /// <summary>The network as the switch's answer had it, while the watch still tells what was before our own change.</summary>
    private NetworkSpec Newest(NetworkSpec network) =>
        _chosen.TryGetValue(network.Name, out NetworkSpec? chosen) && chosen.Revision > network.Revision ? chosen : network;

    private List<string> OwnersInJournal() =>
        [.. journal.Entries.Select(entry => entry.Change.Owner).Concat(_conditions.Keys).Where(owner => owner.StartsWith("networks/", StringComparison.Ordinal)).Distinct()];

    private async Task EnsureAsync(NetworkSpec network, CancellationToken cancellation)
    {
        var port = new PortSpec(network.Id, PortSpec.HostAdapterId, PortRole.Host, MacAddresses.ForPort(PortSpec.NameOf(network.Id, PortSpec.HostAdapterId)));
        PortDevice device = devices.Ensure(network.Name, port, null, network.Id, network.Mtu);
        if (!egress.IsOpen(network))
            AdapterIsolation.Apply(device.Link.Interface);
        await AddressAsync(network, device, cancellation);
        AddressIpv6(network, device);
        await devices.ConnectAsync(device, cancellation);
    }

    private async Task AddressAsync(NetworkSpec network, PortDevice device, CancellationToken cancellation)
    {
        if (network.Subnet is not { } subnet || network.HostAddress is not { } address)
            return;
        IReadOnlyList<AddressInfo> present = device.Addresses();
        bool isSet = false;
        foreach ((long id, AddressChange change) in journal.Of<AddressChange>(network.Name).ToList())
        {
            bool isWanted = change.Address == address.ToString() && change.PrefixLength == subnet.PrefixLength && change.Index == device.Link.Index;
            if (isWanted && present.Any(info => info.Address == address && info.PrefixLength == subnet.PrefixLength))
                isSet = true;
            else
                journal.Undo(id);
        }
        if (isSet)
            return;
        network = await AvoidConflictAsync(network, cancellation);
        AddressChange made = journal.Perform(new AddressChange(network.Name, HostNamespaces.OwnIdentity(), device.Link.Interface, device.Link.Index, network.HostAddress!.Value.ToString(), network.Subnet!.Value.PrefixLength));
        LogAddressed(device.Link.Interface, $"{made.Address}/{made.PrefixLength}");
    }

    /// <summary>::1 of the prefix, and the link-local address that dhcp's advertisements name as the router's.</summary>
    private void AddressIpv6(NetworkSpec network, PortDevice device)
    {
        (string Address, int PrefixLength)[] wanted = network.Ipv6Prefix is { } prefix ? [(prefix.Host(1).ToString(), prefix.Length), (RouterAddress, 64)] : [];
        List<(long Id, Ipv6AddressChange Change)> known = [.. journal.Of<Ipv6AddressChange>(network.Name)];
        if (known.Count == 0 && wanted.Length == 0)
            return;
        HashSet<(string, int)> present = [.. device.Ipv6Addresses().Select(info => (info.Address.ToString(), info.PrefixLength))];
        foreach ((long id, Ipv6AddressChange change) in known)
        {
            if (!wanted.Contains((change.Address, change.PrefixLength)) || change.Index != device.Link.Index || !present.Contains((change.Address, change.PrefixLength)))
                journal.Undo(id);
        }
        HashSet<(string, int)> kept = [.. journal.Of<Ipv6AddressChange>(network.Name).Select(entry => (entry.Change.Address, entry.Change.PrefixLength))];
        foreach ((string address, int length) in wanted.Where(address => !kept.Contains(address)))
        {
            journal.Perform(new Ipv6AddressChange(network.Name, HostNamespaces.OwnIdentity(), device.Link.Interface, device.Link.Index, address, length));
            LogAddressed(device.Link.Interface, $"{address}/{length}");
        }
    }

    /// <summary>A network whose subnet the host routes elsewhere gets the next one that it does not, where VNetMesh may choose.</summary>
    private async Task<NetworkSpec> AvoidConflictAsync(NetworkSpec network, CancellationToken cancellation)
    {
        using RtNetlink netlink = RtNetlink.Open();
        List<RouteInfo> routes = netlink.ListRoutes();
        HashSet<int> own = [.. devices.All.Values.Where(device => device.Port.Role == PortRole.Host).Select(device => device.Link.Index)];
        for (int attempt = 0; attempt < MaxSubnetAttempts; attempt++)
        {
            if (SubnetConflicts.Find(network.Subnet!.Value, routes, own) is not { } route)
                return network;
            if (!network.IsSubnetAuto)
                throw new IOException($"this host routes {route.Destination} already: give {network.Name} another subnet than {network.Subnet}");
            Ipv4Subnet taken = network.Subnet.Value;
            network = await fabric.ChooseNextSubnetAsync(network, cancellation);
            _chosen[network.Name] = network;
            LogMoved(network.Name, network.Subnet?.ToString() ?? "", taken.ToString(), route.Destination.ToString());
            if (network.Subnet is null || network.HostAddress is null)
                break;
        }
        throw new IOException($"this host routes every subnet that {network.Name} could have: give it one");
    }

    private void Tell(string owner, string condition)
    {
        if (condition.Length > 0 && _conditions.GetValueOrDefault(owner) != condition)
            LogCondition(owner, condition);
        if (condition.Length > 0)
            _conditions[owner] = condition;
        else
            _conditions.Remove(owner);
    }

    [LoggerMessage(LogLevel.Information, "gave {Interface} the address {Address}")]
    private partial void LogAddressed(string @interface, string address);

    [LoggerMessage(LogLevel.Warning, "{Network} has the subnet {Subnet} now, for {Taken} is routed by this host already ({Route})")]
    private partial void LogMoved(string network, string subnet, string taken, string route);

    [LoggerMessage(LogLevel.Warning, "the host's adapter on {Network}: {Condition}")]
    private partial void LogCondition(string network, string condition);
}
