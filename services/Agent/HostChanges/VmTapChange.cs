using VNetMesh.Agent.Devices;
using VNetMesh.Agent.Namespaces;
using VNetMesh.Agent.Netlink;
using VNetMesh.Agent.Uplinks;
using VNetMesh.Native;

namespace VNetMesh.Agent.HostChanges;

/// <summary>
/// A TAP for a VM's monitor, joined to the switch's TAP in the same namespace: what either side writes into its own, the
/// kernel puts into the other's queue (a BPF program at each one's ingress), with its offloads. The namespace holds nothing
/// else, and its kernel says nothing on either.
/// </summary>
/// <param name="SwitchIndex">The kernel's number of the switch's TAP.</param>
/// <param name="Index">That of the monitor's; 0 until it is made.</param>
public sealed record VmTapChange(string Owner, string Netns, string NetnsIdentity, int SwitchIndex, uint Mtu, int Index = 0) : HostChange(Owner)
{
    /// <summary>What the two are called.</summary>
    public const string SwitchSide = "switch0", MonitorSide = "vm0";

    private const ushort Priority = 7;

    public override ChangeKind Kind => ChangeKind.Link;

    public override string Target => $"{MonitorSide} in {Netns}";

    private string Alias => "vnetmesh vm of " + Owner;

    public override string Describe() => $"made the TAP device {MonitorSide} for a VM, joined to {SwitchSide} by BPF programs at the hooks of clsact";

    /// <summary>Ends what a kernel says by itself on interfaces without addresses: router solicitations, multicast reports. For the calling thread's namespace.</summary>
    public static void Quiet()
    {
        foreach (string which in (ReadOnlySpan<string>)["all", "default"])
        {
            string setting = SysctlChange.OfInterface("ipv6", which, "disable_ipv6");
            if (SysctlChange.Exists(setting))
                SysctlChange.Write(setting, "1");
        }
    }

    /// <exception cref="NamespaceNotFoundException">The namespace is gone.</exception>
    /// <exception cref="SyscallException">EPERM, ENOSYS: the kernel takes no BPF programs.</exception>
    /// <exception cref="NetlinkException">ENOENT: it has no clsact, or no cls_bpf.</exception>
    public override HostChange Do(HostAccess host)
    {
        int index = 0;
        if (!host.TryInNamespace(Netns, NetnsIdentity, netlink => index = Make(netlink)))
            throw new NamespaceNotFoundException(Netns, "it is gone");
        return this with { Index = index };
    }

    public override void Undo(HostAccess host) => host.TryInNamespace(Netns, NetnsIdentity, netlink =>
    {
        // Its programs go with it, and the other's are given anew with the next one.
        if (Find(netlink) is { } link)
            netlink.DeleteLink(link.Index);
    });

    public override bool IsStillThere(HostAccess host) => Look(host, Mtu) is not null;

    /// <summary>The monitor's TAP, with that MTU from now on; null where it, or a program, is missing.</summary>
    public LinkInfo? Look(HostAccess host, uint mtu)
    {
        LinkInfo? found = null;
        host.TryInNamespace(Netns, NetnsIdentity, netlink =>
        {
            if (Find(netlink) is not { IsUp: true } link || !HasProgram(netlink, link.Index) || netlink.FindLink(SwitchIndex) is null || !HasProgram(netlink, SwitchIndex))
                return;
            if (link.Mtu != Math.Min(mtu, LinkChange.MaxMtu))
                netlink.SetMtu(link.Index, Math.Min(mtu, LinkChange.MaxMtu));
            found = link;
        });
        return found;
    }

    private LinkInfo? Find(RtNetlink netlink) =>
        (Index > 0 ? netlink.FindLink(Index) : netlink.FindLink(MonitorSide)) is { Kind: "tun" } link && (link.Alias == Alias || (Index == 0 && link.Alias.Length == 0)) ? link : null;

    private int Make(RtNetlink netlink)
    {
        TapDevice.CreateSingle(MonitorSide);
        LinkInfo link = netlink.FindLink(MonitorSide) ?? throw new NetlinkException($"get link {MonitorSide}", NativeErrno.ENODEV, "");
        netlink.SetAlias(link.Index, Alias);
        netlink.SetMtu(link.Index, Math.Min(Mtu, LinkChange.MaxMtu));
        Join(netlink, SwitchIndex, link.Index);
        Join(netlink, link.Index, SwitchIndex);
        netlink.SetUp(link.Index, up: true);
        return link.Index;
    }

    private void Join(RtNetlink netlink, int from, int to)
    {
        netlink.SetNoArp(from);
        if (netlink.IngressDisciplineOf(from) != "clsact")
            netlink.AddClsact(from);
        foreach (FilterInfo filter in netlink.ListFilters(from, LinuxTrafficControl.IngressHook))
            netlink.DeleteFilter(from, filter);
        ulong[] code = new BpfAssembler().Set(1, to).Set(2, 0).Call(LinuxBpf.BPF_FUNC_redirect).Exit().Finish();
        using FileDescriptor program = LinuxBpf.LoadClassifier("vn_vm", code);
        netlink.AddProgram(from, LinuxTrafficControl.IngressHook, Priority, program, Alias);
    }

    private bool HasProgram(RtNetlink netlink, int link) => netlink.ListFilters(link, LinuxTrafficControl.IngressHook).Any(filter => filter.Name == Alias);
}
