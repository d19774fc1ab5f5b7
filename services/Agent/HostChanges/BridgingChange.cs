using VNetMesh.Agent.Netlink;
using VNetMesh.Agent.Uplinks;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Agent.HostChanges;

/// <summary>
/// The programs that carry frames between a NIC and the TAP of a network: <see cref="BridgePrograms"/>. They live in the kernel,
/// bear our name, and go on without the agent.
/// </summary>
/// <param name="NicMac">The host's own address on the NIC.</param>
public sealed record BridgingChange(string Owner, string NetnsIdentity, string Nic, int NicIndex, string NicMac, string Tap, int TapIndex) : HostChange(Owner)
{
    /// <summary>Early: what our programs do not take goes on to the filters of others.</summary>
    private const ushort FirstPriority = 7;
    private const ushort LastPriority = 31;

    public override ChangeKind Kind => ChangeKind.TrafficControl;

    public override string Target => Nic;

    public override string Describe() => $"carries frames between {Nic} and {Tap} by BPF programs at the hooks of clsact";

    private string Name => $"vnetmesh {Owner} {Nic}-{Tap}";

    private IEnumerable<(int Link, uint Hook)> Places => [(TapIndex, LinuxTrafficControl.IngressHook), (NicIndex, LinuxTrafficControl.EgressHook), (NicIndex, LinuxTrafficControl.IngressHook)];

    public override HostChange Do(HostAccess host)
    {
        host.TryInNamespace("", NetnsIdentity, Attach);
        return this;
    }

    public override void Undo(HostAccess host) => host.TryInNamespace("", NetnsIdentity, netlink =>
    {
        foreach ((int link, uint hook) in Places.Where(place => netlink.FindLink(place.Link) is not null))
        {
            foreach (FilterInfo filter in netlink.ListFilters(link, hook).Where(filter => filter.Name == Name))
                netlink.DeleteFilter(link, filter);
        }
    });

    public override bool IsStillThere(HostAccess host)
    {
        bool all = false;
        return host.TryInNamespace("", NetnsIdentity, netlink => all = Places.All(place => netlink.FindLink(place.Link) is not null && netlink.ListFilters(place.Link, place.Hook).Count(filter => filter.Name == Name) == 1)) && all;
    }

    /// <summary>Gives a TAP the one program that leads into a NIC's ingress; it goes with the TAP.</summary>
    public static void AttachIntoHost(RtNetlink netlink, int nic, int tap)
    {
        string name = $"vnetmesh into {nic}";
        EnsureClsact(netlink, tap);
        List<FilterInfo> there = netlink.ListFilters(tap, LinuxTrafficControl.IngressHook);
        if (there.Count == 1 && there[0].Name == name)
            return;
        foreach (FilterInfo filter in there)
            netlink.DeleteFilter(tap, filter);
        using FileDescriptor program = LinuxBpf.LoadClassifier("vn_into_host", BridgePrograms.IntoHost(nic));
        Add(netlink, tap, LinuxTrafficControl.IngressHook, program, name);
    }

    private void Attach(RtNetlink netlink)
    {
        EnsureClsact(netlink, TapIndex);
        // The programs hold the table, the filters the programs.
        using FileDescriptor guests = LinuxBpf.CreateMap(LinuxBpf.BPF_MAP_TYPE_LRU_HASH, BridgePrograms.EntryLength, BridgePrograms.EntryLength, BridgePrograms.MaxGuests);
        using FileDescriptor fromSwitch = LinuxBpf.LoadClassifier("vn_from_switch", BridgePrograms.FromSwitch(guests, NicIndex, MacAddress.Parse(NicMac)));
        using FileDescriptor fromHost = LinuxBpf.LoadClassifier("vn_from_host", BridgePrograms.FromHost(guests, TapIndex));
        using FileDescriptor fromLan = LinuxBpf.LoadClassifier("vn_from_lan", BridgePrograms.FromLan(guests, TapIndex));
        foreach (FilterInfo filter in netlink.ListFilters(TapIndex, LinuxTrafficControl.IngressHook))
            netlink.DeleteFilter(TapIndex, filter);
        foreach (((int link, uint hook), FileDescriptor program) in Places.Zip([fromSwitch, fromHost, fromLan]))
            Add(netlink, link, hook, program, Name);
    }

    private static void EnsureClsact(RtNetlink netlink, int tap)
    {
        if (netlink.IngressDisciplineOf(tap) != "clsact")
            netlink.AddClsact(tap);
    }

    /// <summary>At the first priority that filters of another kind do not have.</summary>
    private static void Add(RtNetlink netlink, int link, uint hook, FileDescriptor program, string name)
    {
        for (ushort priority = FirstPriority; ; priority++)
        {
            try
            {
                netlink.AddProgram(link, hook, priority, program, name);
                return;
            }
            catch (NetlinkException exception) when (exception.Errno is NativeErrno.EINVAL or NativeErrno.EEXIST && priority < LastPriority)
            {
                // Taken: the next.
            }
        }
    }
}
