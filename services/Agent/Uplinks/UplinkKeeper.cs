using VNetMesh.Agent.Devices;
using VNetMesh.Agent.HostChanges;
using VNetMesh.Agent.Namespaces;
using VNetMesh.Agent.Netlink;

namespace VNetMesh.Agent.Uplinks;

// Joins bridged networks to their NICs. In each pass: which NIC is it now (a name, or the default route's), can it be used, does
// all that leads to it stand? What is missing is made, what leads to another NIC is taken back; where there is no NIC, nothing
// of the uplink is left, and the network's condition says why.
//
//   tc      clsact on the NIC -> promiscuous mode -> programs (BridgePrograms) -> the TAP is handed to the switch
//   pcap    the TAP, whose one program leads to the host -> a PcapUplink, which is the switch's port
//
// The NIC's addresses, routes and sockets are never touched.

/// <summary>Brings uplinks in line with the networks. Not for two threads at a time.</summary>
public sealed partial class UplinkKeeper(ChangeJournal journal, HostAccess host, DeviceSet devices, PcapUplinks pcaps, ILogger<UplinkKeeper> logger)
{
    private const string Prefix = "uplinks/";
    private readonly SortedDictionary<string, UplinkStatus> _statuses = new(StringComparer.Ordinal);
    private readonly Dictionary<string, int> _nics = new(StringComparer.Ordinal);

    /// <summary>One for each network that wants an uplink; as of the last pass.</summary>
    public IReadOnlyList<UplinkStatus> Statuses => [.. _statuses.Values.Select(WithDrops)];

    /// <summary>The ports that uplinks have.</summary>
    public IEnumerable<string> Ports => _nics.Keys.Select(owner => PortSpec.NameOf(owner[Prefix.Length..], PortSpec.UplinkId));

    public static string OwnerOf(NetworkSpec network) => Prefix + network.Id;

    /// <summary>The NIC that an uplink's name stands for now.</summary>
    /// <exception cref="UplinkException">There is none, or it cannot be used.</exception>
    public static LinkInfo Check(string uplink)
    {
        using RtNetlink netlink = RtNetlink.Open();
        return NicChoice.Choose(uplink, 0, netlink.ListLinks(), netlink.ListRoutes(), WirelessLinks.IsStation);
    }

    public async Task ReconcileAsync(IReadOnlyCollection<NetworkSpec> networks, CancellationToken cancellation)
    {
        List<NetworkSpec> wanted = [.. networks.Where(network => network.Uplink.Length > 0).OrderBy(network => network.Id, StringComparer.Ordinal)];
        HashSet<string> owners = [.. wanted.Select(OwnerOf)];
        foreach (string owner in OwnersThereAre().Where(owner => !owners.Contains(owner)))
        {
            await RemoveAsync(owner);
            _statuses.Remove("networks/" + owner[Prefix.Length..]);
        }
        if (wanted.Count == 0)
            return;
        using RtNetlink netlink = RtNetlink.Open();
        List<LinkInfo> links = netlink.ListLinks();
        List<RouteInfo> routes = netlink.ListRoutes();
        var taken = new Dictionary<int, string>();
        foreach (NetworkSpec network in wanted)
        {
            try
            {
                LinkInfo nic = NicChoice.Choose(network.Uplink, _nics.GetValueOrDefault(OwnerOf(network)), links, routes, WirelessLinks.IsStation);
                if (!taken.TryAdd(nic.Index, network.Id))
                    throw new UplinkException("UPLINK_TAKEN", $"{nic.Name} is the uplink of {taken[nic.Index]} already: put the guests on that network");
                Tell(await EnsureAsync(network, nic, netlink, cancellation));
            }
            catch (UplinkException exception)
            {
                await RemoveAsync(OwnerOf(network));
                Tell(new UplinkStatus(network.Name, network.Revision, "", false, [exception.Message], NoDrops));
            }
            catch (IOException exception)
            {
                // The kernel or libpcap refused: what stands is left, and the rest tried again.
                Tell(new UplinkStatus(network.Name, network.Revision, "", false, [exception.Message.Split('\n')[0]], NoDrops));
            }
        }
    }

    /// <summary>Ends what runs in this process; what is in the kernel stays.</summary>
    public Task StopAsync() => pcaps.StopAllAsync();

    private static IReadOnlyDictionary<string, long> NoDrops { get; } = new Dictionary<string, long>();

    private async Task<UplinkStatus> EnsureAsync(NetworkSpec network, LinkInfo nic, RtNetlink netlink, CancellationToken cancellation)
    {
        string owner = OwnerOf(network);
        var port = new PortSpec(network.Id, PortSpec.UplinkId, PortRole.Uplink, MacAddresses.ForPort(PortSpec.NameOf(network.Id, PortSpec.UplinkId)));
        bool isThere = devices.Find(owner, port, null, network.Id) is not null;
        PortDevice device = devices.Ensure(owner, port, null, network.Id, network.Mtu);
        if (!isThere)
            Silence(netlink, device.Link);
        if (_nics.GetValueOrDefault(owner) != nic.Index)
            LogJoined(network.Name, nic.Name, network.UplinkDriver);
        _nics[owner] = nic.Index;
        if (network.UplinkDriver == UplinkDriver.Pcap)
        {
            RemoveChanges(owner);
            BridgingChange.AttachIntoHost(netlink, nic.Index, device.Link.Index);
            await pcaps.EnsureAsync(network, nic, device);
        }
        else
        {
            await pcaps.StopAsync(owner);
            EnsureHooks(owner, nic, netlink);
            EnsurePrograms(owner, nic, device.Link);
            await devices.ConnectAsync(device, cancellation);
        }
        return new UplinkStatus(network.Name, network.Revision, nic.Name, device.IsConnected && nic.IsUp, [.. ConditionsOf(network, nic, device)], NoDrops);
    }

    private IEnumerable<string> ConditionsOf(NetworkSpec network, LinkInfo nic, PortDevice device)
    {
        if (!nic.IsUp)
            yield return $"{nic.Name} is down: 'ip link set {nic.Name} up'";
        if (nic.Mtu < network.Mtu)
            yield return $"{nic.Name} carries packets of {nic.Mtu} octets at the most, fewer than {network.Id}: 'vnet network update {network.Id} --mtu {nic.Mtu}'";
        if (network.UplinkDriver == UplinkDriver.Pcap && pcaps.ConditionOf(OwnerOf(network)) is { Length: > 0 } condition)
            yield return condition;
        else if (!device.IsConnected)
            yield return device.Condition.Length > 0 ? device.Condition : "the switch is away";
    }

    /// <summary>The kernel itself says nothing on the TAP, which has no addresses: no router solicitations, no ARP.</summary>
    private static void Silence(RtNetlink netlink, LinkChange link)
    {
        string setting = SysctlChange.OfInterface("ipv6", link.Interface, "disable_ipv6");
        if (SysctlChange.Exists(setting))
            SysctlChange.Write(setting, "1");
        netlink.SetNoArp(link.Index);
    }

    private void EnsureHooks(string owner, LinkInfo nic, RtNetlink netlink)
    {
        // The programs first: a clsact with filters is left where it is, for they could be somebody's.
        foreach ((long id, BridgingChange change) in journal.Of<BridgingChange>(owner).ToList())
        {
            if (change.NicIndex != nic.Index)
                journal.Undo(id);
        }
        foreach ((long id, ClsactChange change) in journal.Of<ClsactChange>(owner).ToList())
        {
            if (change.Index != nic.Index || !change.IsStillThere(host))
                journal.Undo(id);
        }
        string there = netlink.IngressDisciplineOf(nic.Index);
        if (there.Length > 0 && there != "clsact")
            throw new UplinkException("UPLINK_HOOKS_TAKEN", $"{nic.Name} has a queueing discipline '{there}' of somebody else's in the place of clsact: replace it by clsact, which does the same, or use '--uplink-driver pcap'");
        if (there.Length == 0)
            journal.Perform(new ClsactChange(owner, HostNamespaces.OwnIdentity(), nic.Name, nic.Index));
        foreach ((long id, PromiscuousChange change) in journal.Of<PromiscuousChange>(owner).ToList())
        {
            if (change.Index != nic.Index || !change.IsStillThere(host))
                journal.Undo(id);
        }
        if (netlink.FindLink(nic.Index) is { IsPromiscuous: false })
            journal.Perform(new PromiscuousChange(owner, HostNamespaces.OwnIdentity(), nic.Name, nic.Index));
    }

    private void EnsurePrograms(string owner, LinkInfo nic, LinkChange tap)
    {
        var wanted = new BridgingChange(owner, HostNamespaces.OwnIdentity(), nic.Name, nic.Index, nic.Mac.ToString(), tap.Interface, tap.Index);
        bool isThere = false;
        foreach ((long id, BridgingChange change) in journal.Of<BridgingChange>(owner).ToList())
        {
            if (!isThere && change == wanted && change.IsStillThere(host))
                isThere = true;
            else
                journal.Undo(id);
        }
        if (!isThere)
            journal.Perform(wanted);
    }

    private async Task RemoveAsync(string owner)
    {
        await pcaps.StopAsync(owner);
        RemoveChanges(owner);
        devices.Drop(owner, undo: true);
        _nics.Remove(owner);
    }

    /// <summary>In the reverse of the order in which they are made.</summary>
    private void RemoveChanges(string owner)
    {
        foreach ((long id, _) in journal.Of<BridgingChange>(owner).ToList())
            journal.Undo(id);
        foreach ((long id, _) in journal.Of<PromiscuousChange>(owner).ToList())
            journal.Undo(id);
        foreach ((long id, _) in journal.Of<ClsactChange>(owner).ToList())
            journal.Undo(id);
    }

    private List<string> OwnersThereAre() =>
        [.. journal.Entries.Select(entry => entry.Change.Owner).Where(owner => owner.StartsWith(Prefix, StringComparison.Ordinal)).Concat(_statuses.Keys.Select(name => Prefix + name["networks/".Length..])).Distinct()];

    private UplinkStatus WithDrops(UplinkStatus status) => status with { Drops = pcaps.DropsOf(Prefix + status.Network["networks/".Length..]) };

    private void Tell(UplinkStatus status)
    {
        string[] before = [.. _statuses.GetValueOrDefault(status.Network)?.Conditions ?? []];
        foreach (string condition in status.Conditions.Except(before))
            LogCondition(status.Network, condition);
        _statuses[status.Network] = status;
    }

    [LoggerMessage(LogLevel.Information, "{Network} is joined to {Nic} by {Driver}")]
    private partial void LogJoined(string network, string nic, UplinkDriver driver);

    [LoggerMessage(LogLevel.Warning, "the uplink of {Network}: {Condition}")]
    private partial void LogCondition(string network, string condition);
}
