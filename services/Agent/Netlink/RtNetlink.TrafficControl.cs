using System.Buffers.Binary;
using System.Runtime.InteropServices;
using VNetMesh.Native;

namespace VNetMesh.Agent.Netlink;

/// <summary>A queueing discipline of an interface.</summary>
/// <param name="Kind">"clsact", "fq_codel", …</param>
public sealed record QdiscInfo(int LinkIndex, uint Handle, uint Parent, string Kind)
{
    internal static QdiscInfo? Parse(in NetlinkMessage message)
    {
        if (message.Type != LinuxTrafficControl.RTM_NEWQDISC || message.Payload.Length < LinuxTrafficControl.TcMsgLength)
            return null;
        string kind = "";
        foreach (NetlinkAttribute attribute in message.Attributes(LinuxTrafficControl.TcMsgLength))
        {
            if (attribute.Type == LinuxTrafficControl.TCA_KIND)
                kind = attribute.Text;
        }
        return new QdiscInfo(MemoryMarshal.Read<int>(message.Payload[4..]), MemoryMarshal.Read<uint>(message.Payload[8..]), MemoryMarshal.Read<uint>(message.Payload[12..]), kind);
    }
}

/// <summary>A filter at a hook of an interface.</summary>
/// <param name="Info">Priority in the upper half, protocol in the lower.</param>
/// <param name="Name">A BPF filter's name; empty for others.</param>
public sealed record FilterInfo(uint Handle, uint Parent, uint Info, string Kind, string Name)
{
    internal static FilterInfo? Parse(in NetlinkMessage message)
    {
        if (message.Type != LinuxTrafficControl.RTM_NEWTFILTER || message.Payload.Length < LinuxTrafficControl.TcMsgLength)
            return null;
        string kind = "", name = "";
        foreach (NetlinkAttribute attribute in message.Attributes(LinuxTrafficControl.TcMsgLength))
        {
            if (attribute.Type == LinuxTrafficControl.TCA_KIND)
                kind = attribute.Text;
            else if (attribute.Type == LinuxTrafficControl.TCA_OPTIONS)
                name = ReadName(attribute.Value);
        }
        ReadOnlySpan<byte> header = message.Payload;
        return new FilterInfo(MemoryMarshal.Read<uint>(header[8..]), MemoryMarshal.Read<uint>(header[12..]), MemoryMarshal.Read<uint>(header[16..]), kind, kind == "bpf" ? name : "");
    }

    private static string ReadName(ReadOnlySpan<byte> nested)
    {
        foreach (NetlinkAttribute attribute in new NetlinkAttributes(nested))
        {
            if (attribute.Type == LinuxTrafficControl.TCA_BPF_NAME)
                return attribute.Text;
        }
        return "";
    }
}

/// <summary>The kernel's traffic control: the clsact discipline, and BPF filters at its two hooks.</summary>
public sealed unsafe partial class RtNetlink
{
    private const ushort EthPAll = 3;

    /// <summary>What stands at the place of the clsact discipline: "clsact", "ingress", or nothing.</summary>
    public string IngressDisciplineOf(int link) =>
        Dump(LinuxTrafficControl.RTM_GETQDISC, TcHeader(link, 0, 0, 0), QdiscInfo.Parse).FirstOrDefault(qdisc => qdisc.LinkIndex == link && qdisc.Parent == LinuxTrafficControl.TC_H_CLSACT)?.Kind ?? "";

    /// <exception cref="NetlinkException">EEXIST: it has one, or an ingress discipline. ENOENT: the kernel has none.</exception>
    public void AddClsact(int link) => Change(
        new NetlinkWriter(LinuxTrafficControl.RTM_NEWQDISC, LinuxNetlink.NLM_F_ACK | LinuxNetlink.NLM_F_CREATE | LinuxNetlink.NLM_F_EXCL, TcHeader(link, LinuxTrafficControl.ClsactHandle, LinuxTrafficControl.TC_H_CLSACT, 0))
            .Attribute(LinuxTrafficControl.TCA_KIND, "clsact"), "add the clsact queueing discipline");

    public void DeleteClsact(int link) => Change(
        new NetlinkWriter(LinuxTrafficControl.RTM_DELQDISC, LinuxNetlink.NLM_F_ACK, TcHeader(link, LinuxTrafficControl.ClsactHandle, LinuxTrafficControl.TC_H_CLSACT, 0)), "delete the clsact queueing discipline");

    /// <param name="hook">IngressHook or EgressHook of <see cref="LinuxTrafficControl"/>.</param>
    public List<FilterInfo> ListFilters(int link, uint hook) =>
        [.. Dump(LinuxTrafficControl.RTM_GETTFILTER, TcHeader(link, 0, hook, 0), FilterInfo.Parse).Where(filter => filter.Handle != 0)];

    /// <summary>Adds a program that decides by its answer, for every protocol.</summary>
    /// <param name="name">By which it is known again, at most 255 characters.</param>
    /// <exception cref="NetlinkException">EINVAL, EEXIST: a filter of another kind has the priority. ENOENT: the kernel has no cls_bpf.</exception>
    public void AddProgram(int link, uint hook, ushort priority, FileDescriptor program, string name)
    {
        byte[] options = new NetlinkWriter(0, 0, []).Attribute(LinuxTrafficControl.TCA_BPF_FD, (uint)program.Number).Attribute(LinuxTrafficControl.TCA_BPF_NAME, name)
            .Attribute(LinuxTrafficControl.TCA_BPF_FLAGS, LinuxTrafficControl.TCA_BPF_FLAG_ACT_DIRECT).Finish(0)[LinuxNetlink.NLMSG_HDRLEN..].ToArray();
        Change(new NetlinkWriter(LinuxTrafficControl.RTM_NEWTFILTER, LinuxNetlink.NLM_F_ACK | LinuxNetlink.NLM_F_CREATE | LinuxNetlink.NLM_F_EXCL, TcHeader(link, 0, hook, InfoOf(priority)))
            .Attribute(LinuxTrafficControl.TCA_KIND, "bpf").Attribute((ushort)(LinuxTrafficControl.TCA_OPTIONS | LinuxNetlink.NLA_F_NESTED), options), $"add a filter to link {link}");
    }

    public void DeleteFilter(int link, FilterInfo filter) => Change(
        new NetlinkWriter(LinuxTrafficControl.RTM_DELTFILTER, LinuxNetlink.NLM_F_ACK, TcHeader(link, filter.Handle, filter.Parent, filter.Info)).Attribute(LinuxTrafficControl.TCA_KIND, filter.Kind), "delete a filter");

    /// <summary>IFF_PROMISC, as `ip link set promisc` has it.</summary>
    public void SetPromiscuous(int index, bool on) => Change(
        new NetlinkWriter(LinuxRtnetlink.RTM_NEWLINK, LinuxNetlink.NLM_F_ACK, NetlinkWriter.Link(index, on ? LinuxRtnetlink.IFF_PROMISC : 0, LinuxRtnetlink.IFF_PROMISC)), on ? "set promiscuous mode" : "end promiscuous mode");

    /// <summary>IFF_NOARP: the kernel neither asks nor answers on it.</summary>
    public void SetNoArp(int index) => Change(
        new NetlinkWriter(LinuxRtnetlink.RTM_NEWLINK, LinuxNetlink.NLM_F_ACK, NetlinkWriter.Link(index, LinuxRtnetlink.IFF_NOARP, LinuxRtnetlink.IFF_NOARP)), "set noarp");

    private static uint InfoOf(ushort priority) => ((uint)priority << 16) | BinaryPrimitives.ReverseEndianness(EthPAll);

    private static byte[] TcHeader(int link, uint handle, uint parent, uint info)
    {
        var header = new byte[LinuxTrafficControl.TcMsgLength];
        MemoryMarshal.Write(header.AsSpan(4), link);
        MemoryMarshal.Write(header.AsSpan(8), handle);
        MemoryMarshal.Write(header.AsSpan(12), parent);
        MemoryMarshal.Write(header.AsSpan(16), info);
        return header;
    }
}
