using VNetMesh.Agent.Namespaces;

namespace VNetMesh.Agent.HostChanges;

/// <summary>Forwarding of what comes in by one interface of the host, turned on.</summary>
/// <param name="Name">"net.ipv4.conf.eth0.forwarding" or "net.ipv6.conf.eth0.force_forwarding".</param>
/// <param name="Overall">The setting that, once turned on, sets all interfaces' as well; empty where there is none.</param>
/// <param name="OverallBefore">Its value when the change was made.</param>
public sealed record ForwardingChange(string Owner, string NetnsIdentity, string Name, string Overall, string OverallBefore) : HostChange(Owner)
{
    private const string On = "1";
    private const string Off = "0";

    public override ChangeKind Kind => ChangeKind.Sysctl;

    public override string Target => Name;

    public override string Before => Off;

    public override string Describe() => $"set {Name} to '{On}'";

    public override HostChange Do(HostAccess host)
    {
        SysctlChange.Write(Name, On);
        return this;
    }

    public override void Undo(HostAccess host)
    {
        if (IsStillThere(host) && !WasTurnedOnForAll())
            SysctlChange.Write(Name, Off);
    }

    public override bool IsStillThere(HostAccess host) => HostNamespaces.OwnIdentity() == NetnsIdentity && SysctlChange.Exists(Name) && SysctlChange.Read(Name) == On;

    /// <summary>Somebody made the host a router since: then this interface forwards because they want it to.</summary>
    private bool WasTurnedOnForAll() => Overall.Length > 0 && OverallBefore == Off && SysctlChange.Read(Overall) == On;
}

/// <summary>
/// Forwarding of IPv6 on the whole host, for kernels that have no force_forwarding. Writing conf.all sets every interface's
/// value and the default, at both times; so those that were on before are kept here.
/// </summary>
public sealed record Ipv6ForwardingChange(string Owner, string NetnsIdentity, IReadOnlyList<string> OnBefore) : HostChange(Owner)
{
    public const string All = "net.ipv6.conf.all.forwarding";
    private const string Directory = "/proc/sys/net/ipv6/conf";

    public override ChangeKind Kind => ChangeKind.Sysctl;

    public override string Target => All;

    public override string Before => "0";

    public override string Describe() => $"set {All} to '1'";

    /// <summary>Looks which interfaces, and whether the default, are on now.</summary>
    public static Ipv6ForwardingChange Plan(string owner) => new(owner, HostNamespaces.OwnIdentity(),
        [.. System.IO.Directory.EnumerateDirectories(Directory).Select(path => System.IO.Path.GetFileName(path)!).Where(name => name != "all" && SysctlChange.Read(NameOf(name)) == "1").Order(StringComparer.Ordinal)]);

    public override HostChange Do(HostAccess host)
    {
        SysctlChange.Write(All, "1");
        return this;
    }

    public override void Undo(HostAccess host)
    {
        if (!IsStillThere(host))
            return;
        SysctlChange.Write(All, "0");
        foreach (string name in OnBefore.Select(NameOf).Where(SysctlChange.Exists))
            SysctlChange.Write(name, "1");
    }

    public override bool IsStillThere(HostAccess host) => HostNamespaces.OwnIdentity() == NetnsIdentity && SysctlChange.Exists(All) && SysctlChange.Read(All) == "1";

    private static string NameOf(string @interface) => SysctlChange.OfInterface("ipv6", @interface, "forwarding");
}
