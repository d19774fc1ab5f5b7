using VNetMesh.Agent.Netlink;

namespace VNetMesh.Agent.HostChanges;

/// <summary>Promiscuous mode of a NIC that was not in it (`ip link set promisc on`); it takes frames for guests' addresses.</summary>
public sealed record PromiscuousChange(string Owner, string NetnsIdentity, string Interface, int Index) : HostChange(Owner)
{
    public override ChangeKind Kind => ChangeKind.Promiscuous;

    public override string Target => Interface;

    public override string Before => "off";

    public override string Describe() => $"set {Interface} to promiscuous mode";

    public override HostChange Do(HostAccess host)
    {
        host.TryInNamespace("", NetnsIdentity, netlink => netlink.SetPromiscuous(Index, on: true));
        return this;
    }

    public override void Undo(HostAccess host) => host.TryInNamespace("", NetnsIdentity, netlink =>
    {
        if (Has(netlink))
            netlink.SetPromiscuous(Index, on: false);
    });

    public override bool IsStillThere(HostAccess host)
    {
        bool found = false;
        return host.TryInNamespace("", NetnsIdentity, netlink => found = Has(netlink)) && found;
    }

    private bool Has(RtNetlink netlink) => netlink.FindLink(Index) is { IsPromiscuous: true };
}
