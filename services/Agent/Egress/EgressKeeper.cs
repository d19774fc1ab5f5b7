using System.Security.Cryptography;
using System.Text;
using VNetMesh.Agent.Devices;
using VNetMesh.Agent.HostChanges;
using VNetMesh.Agent.Namespaces;
using VNetMesh.Hosting;

namespace VNetMesh.Agent.Egress;

// What leads out of host-only networks. The kernel decides about forwarding by the interface on which a packet comes in: our
// adapter for what guests send, the host's own interfaces for the answers. So the host as a whole need not become a router
// (IPv6: where the kernel has force_forwarding), and what is turned on on the host's own interfaces serves our guests'
// answers alone: the table drops the rest.
//
//   to open    table -> the host's interfaces -> our adapter
//   to close   our adapter (AdapterIsolation) -> the host's interfaces -> table
//
// so that at no moment something is forwarded that the table does not see. Where the host forwards already, its settings are
// left as they are, and the table only keeps strangers from the adapters.

/// <summary>Brings forwarding, and the nftables table, in line with the networks. Not for two threads at a time.</summary>
public sealed partial class EgressKeeper(ChangeJournal journal, HostAccess host, RuntimePaths paths, TimeProvider time, ILogger<EgressKeeper> logger)
{
    private const string Owner = "agent";
    private static readonly TimeSpan LookPeriod = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan RulesetPeriod = TimeSpan.FromSeconds(30);
    private readonly FirewallWatch _firewall = new();
    private readonly HashSet<string> _open = new(StringComparer.Ordinal);
    private string _ruleset = "";
    private string _failure = "";
    private long _lastLook, _lastRuleset;

    /// <summary>One for each network with an egress, and for each that cannot be isolated; as of the last pass.</summary>
    public IReadOnlyList<EgressStatus> Statuses { get; private set; } = [];

    /// <summary>The table's name: of this instance and no other.</summary>
    public string Table { get; } = TableOf(paths.StateDirectory);

    internal static string TableOf(string stateDirectory) => "vnetmesh-" + Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(stateDirectory)))[..8];

    /// <summary>For tests: as on a kernel without force_forwarding (before 6.17).</summary>
    internal bool ForcesNothing { get; init; }

    /// <summary>Whether the adapter of a network may forward now: the table is there and knows it.</summary>
    public bool IsOpen(NetworkSpec network) => network.Egress != EgressMode.None && (_open.Contains(network.Id) || WasOpened(network));

    /// <param name="networks">All networks; their adapters are isolated already, but for those that <see cref="IsOpen"/>.</param>
    /// <param name="adapters">Names of the adapters that are there.</param>
    public void Reconcile(IReadOnlyCollection<NetworkSpec> networks, IReadOnlySet<string> adapters)
    {
        List<NetworkSpec> present = [.. networks.Where(network => network.HostAddress is not null && adapters.Contains(network.Id))];
        List<NetworkSpec> wanted = [.. present.Where(network => network.Egress != EgressMode.None && network.Subnet is not null)];
        HostFacts facts = HostFacts.Look(adapters);
        if (journal.Of<Ipv6ForwardingChange>(Owner).Any())
            facts = facts with { ForwardsIpv6 = false }; // because of us alone
        _open.RemoveWhere(id => wanted.All(network => network.Id != id));
        _firewall.Forget(id => wanted.All(network => network.Id != id));
        bool isNeeded = wanted.Count > 0 || (present.Count > 0 && (facts.ForwardsIpv4 || facts.ForwardsIpv6));
        string failure = "";
        try
        {
            if (isNeeded)
                Open(present, wanted, facts);
            else
                CloseAll();
        }
        catch (IOException exception)
        {
            failure = exception.Message.Split('\n')[0];
            _open.Clear();
            foreach (NetworkSpec network in wanted)
                AdapterIsolation.Apply(network.Id);
            if (failure != _failure)
                LogFailed(failure);
        }
        _failure = failure;
        Statuses = [.. present.Select(network => StatusOf(network, facts)).OfType<EgressStatus>()];
    }

    /// <summary>Closes what is open, in its order; what fails is the journal's to try again.</summary>
    public void Release()
    {
        try
        {
            foreach (string id in _open)
                AdapterIsolation.Apply(id);
            CloseAll();
        }
        catch (IOException exception)
        {
            LogFailed(exception.Message);
        }
        _open.Clear();
        Statuses = [];
    }

    private void Open(List<NetworkSpec> present, List<NetworkSpec> wanted, HostFacts facts)
    {
        bool wantsIpv6 = wanted.Any(network => network.Ipv6Prefix is not null);
        List<ForwardingChange> openings = [];
        if (wanted.Count > 0)
            openings.AddRange(Openings(facts, "ipv4", "forwarding", HostFacts.AllIpv4));
        bool isForced = !ForcesNothing && HasForceForwarding(wanted);
        bool opensAllIpv6 = wantsIpv6 && !isForced && !facts.ForwardsIpv6;
        // Where the host forwards IPv6 as a whole there is nothing to force.
        if (wantsIpv6 && isForced && !facts.ForwardsIpv6)
            openings.AddRange(Openings(facts, "ipv6", "force_forwarding", ""));
        var plan = new RulesetPlan(wanted, [.. present.Except(wanted).Select(network => network.Id)], Names(openings, "ipv4"), Names(openings, "ipv6"), opensAllIpv6);
        SetTable(Ruleset.Write(Table, plan), Summarize(wanted), wanted);
        SetForwarding(openings);
        if (opensAllIpv6)
            OpenAllIpv6(facts);
        else
            CloseAllIpv6();
        foreach (NetworkSpec network in wanted)
        {
            AdapterIsolation.Apply(network.Id, leadsOut: true, leadsOutIpv6: network.Ipv6Prefix is not null);
            if (_open.Add(network.Id))
                LogOpened(network.Name, network.Egress);
        }
    }

    private void CloseAll()
    {
        SetForwarding([]);
        CloseAllIpv6();
        foreach ((long id, NftTableChange table) in journal.Of<NftTableChange>(Owner).ToList())
        {
            journal.Undo(id);
            LogTableRemoved(table.Table);
        }
        _ruleset = "";
        _lastLook = _lastRuleset = 0;
    }

    /// <summary>The host's interfaces by which answers may come and that do not forward by themselves, or do because of us.</summary>
    private IEnumerable<ForwardingChange> Openings(HostFacts facts, string family, string setting, string overall)
    {
        foreach (HostInterface @interface in facts.Interfaces.Where(@interface => family == "ipv4" ? @interface.Ipv4.Count > 0 : @interface.Ipv6.Count > 0))
        {
            string name = SysctlChange.OfInterface(family, @interface.Name, setting);
            ForwardingChange? ours = journal.Of<ForwardingChange>(Owner).Select(entry => entry.Change).FirstOrDefault(change => change.Name == name);
            if (ours is not null)
                yield return ours;
            else if (SysctlChange.Exists(name) && SysctlChange.Read(name) == "0")
                yield return new ForwardingChange(Owner, HostNamespaces.OwnIdentity(), name, overall, overall.Length == 0 ? "" : SysctlChange.Read(overall));
        }
    }

    private void SetForwarding(List<ForwardingChange> wanted)
    {
        foreach ((long id, ForwardingChange change) in journal.Of<ForwardingChange>(Owner).ToList())
        {
            if (!wanted.Contains(change))
                journal.Undo(id);
            else if (!change.IsStillThere(host))
                journal.Forget(id);
        }
        foreach (ForwardingChange change in wanted.Except(journal.Of<ForwardingChange>(Owner).Select(entry => entry.Change)).ToList())
        {
            journal.Perform(change);
            LogForwards(change.Name);
        }
    }

    /// <summary>A host that forwards takes no router advertisements unless accept_ra is 2, and drops the routes that it had from them.</summary>
    private void OpenAllIpv6(HostFacts facts)
    {
        foreach (string name in facts.Interfaces.Select(@interface => SysctlChange.OfInterface("ipv6", @interface.Name, "accept_ra")))
        {
            if (SysctlChange.Exists(name) && SysctlChange.Read(name) == "1")
                journal.Perform(new SysctlChange(Owner, HostNamespaces.OwnIdentity(), name, "1", "2"));
        }
        if (journal.Of<Ipv6ForwardingChange>(Owner).All(entry => !entry.Change.IsStillThere(host)))
            journal.Perform(Ipv6ForwardingChange.Plan(Owner));
    }

    private void CloseAllIpv6()
    {
        foreach ((long id, _) in journal.Of<Ipv6ForwardingChange>(Owner).ToList())
            journal.Undo(id);
        foreach ((long id, SysctlChange change) in journal.Of<SysctlChange>(Owner).ToList())
        {
            if (change.Name.EndsWith(".accept_ra", StringComparison.Ordinal))
                journal.Undo(id);
        }
    }

    private void SetTable(string script, string summary, List<NetworkSpec> wanted)
    {
        List<(long Id, NftTableChange Change)> entries = [.. journal.Of<NftTableChange>(Owner)];
        bool isCurrent = entries.Count == 1 && entries[0].Change.Script == script;
        if (isCurrent && !IsDue(ref _lastLook, LookPeriod))
            return;
        if (!isCurrent || !TryObserve(wanted))
        {
            journal.Perform(new NftTableChange(Owner, HostNamespaces.OwnIdentity(), Table, script, summary));
            foreach ((long id, _) in entries)
                journal.Forget(id);
            LogTable(Table, summary);
            _lastRuleset = 0;
        }
        if (wanted.Any(network => _firewall.IsInDoubt(network.Id)) && IsDue(ref _lastRuleset, RulesetPeriod))
            _ruleset = Command.Run(NftTableChange.Program, "-j", "list", "ruleset");
    }

    /// <returns>False where the table is gone: somebody flushed the ruleset, say.</returns>
    private bool TryObserve(List<NetworkSpec> wanted)
    {
        try
        {
            _firewall.Observe(Command.Run(NftTableChange.Program, "-j", "list", "counters", "table", "inet", Table), wanted);
            return true;
        }
        catch (CommandException)
        {
            return false;
        }
    }

    private EgressStatus? StatusOf(NetworkSpec network, HostFacts facts)
    {
        if (network.Egress == EgressMode.None)
        {
            // A dead end by its own settings, but for IPv6 on a host that forwards it: there the kernel asks the host as a whole.
            return _failure.Length > 0 && facts.ForwardsIpv6
                ? new EgressStatus(network.Name, network.Revision, false, [], [], [$"this host forwards IPv6, and it cannot be kept from {network.Id}: {_failure}"])
                : null;
        }
        HostInterface[] uplinks = [.. facts.Interfaces.Where(@interface => @interface.Ipv4.Count > 0 || (network.Ipv6Prefix is not null && @interface.Ipv6.Count > 0))];
        var conditions = new List<string>();
        if (_failure.Length > 0)
            conditions.Add($"nothing leads out: {_failure}{(NftIsMissing() ? "; install the package nftables" : "")}");
        else if (uplinks.Length == 0)
            conditions.Add("nothing leads out: this host has no interface with an address but VNetMesh's own");
        else if (_firewall.Judge(network.Id, _ruleset, Table) is { } firewall)
            conditions.Add(firewall);
        bool isActive = _open.Contains(network.Id);
        return new EgressStatus(network.Name, network.Revision, isActive, [.. uplinks.Select(uplink => uplink.Name)], network.Egress == EgressMode.Routed ? RoutesOf(network, uplinks) : [], conditions);
    }

    private static string[] RoutesOf(NetworkSpec network, HostInterface[] uplinks) =>
    [
        .. uplinks.Where(uplink => uplink.Ipv4.Count > 0).Select(uplink => $"ip route add {network.Subnet} via {uplink.Ipv4[0]}"),
        .. uplinks.Where(uplink => network.Ipv6Prefix is not null && uplink.Ipv6.Count > 0).Select(uplink => $"ip -6 route add {network.Ipv6Prefix} via {uplink.Ipv6[0]}"),
    ];

    /// <summary>An earlier process opened it, and its table may still stand: no flow is to break until that was looked at.</summary>
    private bool WasOpened(NetworkSpec network) =>
        _lastLook == 0 && journal.Of<NftTableChange>(Owner).Any(entry => entry.Change.Script.Contains($"counter {Ruleset.SentCounter(network.Id)} ", StringComparison.Ordinal));

    private static string Summarize(List<NetworkSpec> wanted) => wanted.Count == 0
        ? "keeps what this host forwards from the adapters"
        : string.Join(", ", wanted.Select(network => $"{(network.Egress == EgressMode.Snat ? "masquerades" : "lets through")} {network.Id} ({network.Subnet}{(network.Ipv6Prefix is { } prefix ? $", {prefix}" : "")})"));

    private static List<string> Names(List<ForwardingChange> openings, string family) =>
        [.. openings.Select(change => change.Name.Split('.')).Where(parts => parts[1] == family).Select(parts => parts[3].Replace('/', '.'))];

    private static bool HasForceForwarding(List<NetworkSpec> wanted) => wanted.Count > 0 && SysctlChange.Exists(SysctlChange.OfInterface("ipv6", wanted[0].Id, "force_forwarding"));

    private static bool NftIsMissing() => !(Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Append("/usr/sbin").Any(directory => File.Exists(Path.Combine(directory, NftTableChange.Program)));

    private bool IsDue(ref long last, TimeSpan period)
    {
        if (last != 0 && time.GetElapsedTime(last) < period)
            return false;
        last = time.GetTimestamp();
        return true;
    }

    [LoggerMessage(LogLevel.Information, "{Network} leads out: {Egress}")]
    private partial void LogOpened(string network, EgressMode egress);

    [LoggerMessage(LogLevel.Information, "the nftables table inet {Table} {Summary}")]
    private partial void LogTable(string table, string summary);

    [LoggerMessage(LogLevel.Information, "removed the nftables table inet {Table}")]
    private partial void LogTableRemoved(string table);

    [LoggerMessage(LogLevel.Information, "set {Name} to 1")]
    private partial void LogForwards(string name);

    [LoggerMessage(LogLevel.Warning, "forwarding cannot be brought in line, trying again: {Reason}")]
    private partial void LogFailed(string reason);
}
