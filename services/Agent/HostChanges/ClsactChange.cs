using VNetMesh.Agent.Netlink;
using VNetMesh.Native;

namespace VNetMesh.Agent.HostChanges;

/// <summary>The clsact queueing discipline on a NIC that had none: two hooks for filters, and no queue.</summary>
public sealed record ClsactChange(string Owner, string NetnsIdentity, string Interface, int Index) : HostChange(Owner)
{
    public override ChangeKind Kind => ChangeKind.TrafficControl;

    public override string Target => Interface;

    public override string Describe() => $"added the clsact queueing discipline to {Interface}";

    public override HostChange Do(HostAccess host)
    {
        host.TryInNamespace("", NetnsIdentity, netlink => netlink.AddClsact(Index));
        return this;
    }

    /// <summary>Leaves it where filters of others have come to it meanwhile: they would go with it.</summary>
    public override void Undo(HostAccess host) => host.TryInNamespace("", NetnsIdentity, netlink =>
    {
        if (Has(netlink) && netlink.ListFilters(Index, LinuxTrafficControl.IngressHook).Count == 0 && netlink.ListFilters(Index, LinuxTrafficControl.EgressHook).Count == 0)
            netlink.DeleteClsact(Index);
    });

    public override bool IsStillThere(HostAccess host)
    {
        bool found = false;
        return host.TryInNamespace("", NetnsIdentity, netlink => found = Has(netlink)) && found;
    }

    private bool Has(RtNetlink netlink) => netlink.FindLink(Index) is not null && netlink.IngressDisciplineOf(Index) == "clsact";
}
