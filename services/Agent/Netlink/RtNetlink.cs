using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Netlink;

/// <summary>
/// Links, addresses and routes of one network namespace: the one in which the socket was opened, whichever thread uses
/// it later. Each call blocks for the kernel's answer, at most 2 s. Not for two threads at a time.
/// </summary>
public sealed unsafe partial class RtNetlink : IDisposable
{
    private const int ReceiveBuffer = 64 * 1024;
    private const int MaxDumpAttempts = 5;
    private readonly FileDescriptor _socket;
    private readonly byte[] _buffer = new byte[ReceiveBuffer];
    private uint _sequence;

    private RtNetlink(FileDescriptor socket) => _socket = socket;

    private delegate T? Parser<T>(in NetlinkMessage message) where T : class;

    /// <summary>Opens it in the calling thread's namespace; <see cref="Namespaces.NamespaceRunner"/> leads into others.</summary>
    public static RtNetlink Open()
    {
        var socket = new FileDescriptor(Syscall.Check(SysSocket.socket(SysSocket.AF_NETLINK, SysSocket.SOCK_RAW | SysSocket.SOCK_CLOEXEC, LinuxNetlink.NETLINK_ROUTE), "socket(AF_NETLINK)"));
        long* timeout = stackalloc long[2] { 2, 0 };
        const int SO_RCVTIMEO = 20;
        _ = SysSocket.setsockopt(socket.Number, SysSocket.SOL_SOCKET, SO_RCVTIMEO, timeout, 16);
        // The kernel's own words in errors; kernels without them are as good.
        _ = SysSocket.SetOption(socket.Number, LinuxNetlink.SOL_NETLINK, LinuxNetlink.NETLINK_EXT_ACK, 1);
        _ = SysSocket.SetOption(socket.Number, LinuxNetlink.SOL_NETLINK, LinuxNetlink.NETLINK_GET_STRICT_CHK, 1);
        var address = new LinuxNetlink.sockaddr_nl { nl_family = SysSocket.AF_NETLINK };
        Syscall.Check(SysSocket.bind(socket.Number, &address, (uint)sizeof(LinuxNetlink.sockaddr_nl)), "bind(AF_NETLINK)");
        return new RtNetlink(socket);
    }

    /// <returns>Null when there is no such link.</returns>
    public LinkInfo? FindLink(string name) => Find(new NetlinkWriter(LinuxRtnetlink.RTM_GETLINK, 0, NetlinkWriter.Link(0)).Attribute(LinuxRtnetlink.IFLA_IFNAME, name), name);

    /// <returns>Null when there is no such link.</returns>
    public LinkInfo? FindLink(int index) => Find(new NetlinkWriter(LinuxRtnetlink.RTM_GETLINK, 0, NetlinkWriter.Link(index)), $"#{index}");

    public List<LinkInfo> ListLinks() => Dump(LinuxRtnetlink.RTM_GETLINK, NetlinkWriter.Link(0), LinkInfo.Parse);

    public void SetUp(int index, bool up) =>
        Change(new NetlinkWriter(LinuxRtnetlink.RTM_NEWLINK, LinuxNetlink.NLM_F_ACK, NetlinkWriter.Link(index, up ? LinuxRtnetlink.IFF_UP : 0, LinuxRtnetlink.IFF_UP)), up ? "set link up" : "set link down");

    public void SetMac(int index, MacAddress mac)
    {
        Span<byte> octets = stackalloc byte[MacAddress.Length];
        mac.Write(octets);
        Change(new NetlinkWriter(LinuxRtnetlink.RTM_NEWLINK, LinuxNetlink.NLM_F_ACK, NetlinkWriter.Link(index)).Attribute(LinuxRtnetlink.IFLA_ADDRESS, octets), $"set link address {mac}");
    }

    public void SetMtu(int index, uint mtu) =>
        Change(new NetlinkWriter(LinuxRtnetlink.RTM_NEWLINK, LinuxNetlink.NLM_F_ACK, NetlinkWriter.Link(index)).Attribute(LinuxRtnetlink.IFLA_MTU, mtu), $"set MTU {mtu}");

    /// <param name="alias">At most 255 octets.</param>
    public void SetAlias(int index, string alias) =>
        Change(new NetlinkWriter(LinuxRtnetlink.RTM_NEWLINK, LinuxNetlink.NLM_F_ACK, NetlinkWriter.Link(index)).Attribute(LinuxRtnetlink.IFLA_IFALIAS, System.Text.Encoding.UTF8.GetBytes(alias)), "set alias");

    public void DeleteLink(int index) => Change(new NetlinkWriter(LinuxRtnetlink.RTM_DELLINK, LinuxNetlink.NLM_F_ACK, NetlinkWriter.Link(index)), "delete link");

    /// <summary>IPv4 addresses of a link; of all links for index 0.</summary>
    public List<AddressInfo> ListAddresses(int index = 0) =>
        [.. Dump(LinuxRtnetlink.RTM_GETADDR, NetlinkWriter.Address(0, 0), AddressInfo.Parse).Where(address => index == 0 || address.LinkIndex == index)];

    /// <exception cref="NetlinkException">EEXIST where the link has it already.</exception>
    public void AddAddress(int index, Ipv4Address address, int prefixLength)
    {
        var request = new NetlinkWriter(LinuxRtnetlink.RTM_NEWADDR, LinuxNetlink.NLM_F_ACK | LinuxNetlink.NLM_F_CREATE | LinuxNetlink.NLM_F_EXCL, NetlinkWriter.Address(index, (byte)prefixLength))
            .Attribute(LinuxRtnetlink.IFA_LOCAL, address).Attribute(LinuxRtnetlink.IFA_ADDRESS, address);
        if (prefixLength <= 30)
            request.Attribute(LinuxRtnetlink.IFA_BROADCAST, new Ipv4Subnet(address, prefixLength).Broadcast);
        Change(request, $"add address {address}/{prefixLength}");
    }

    /// <exception cref="NetlinkException">EADDRNOTAVAIL where the link does not have it.</exception>
    public void RemoveAddress(int index, Ipv4Address address, int prefixLength) =>
        Change(new NetlinkWriter(LinuxRtnetlink.RTM_DELADDR, LinuxNetlink.NLM_F_ACK, NetlinkWriter.Address(index, (byte)prefixLength))
            .Attribute(LinuxRtnetlink.IFA_LOCAL, address).Attribute(LinuxRtnetlink.IFA_ADDRESS, address), $"remove address {address}/{prefixLength}");

    /// <summary>IPv6 addresses of a link; of all links for index 0.</summary>
    public List<Ipv6AddressInfo> ListIpv6Addresses(int index = 0) =>
        [.. Dump(LinuxRtnetlink.RTM_GETADDR, NetlinkWriter.Ipv6Address(0, 0), Ipv6AddressInfo.Parse).Where(address => index == 0 || address.LinkIndex == index)];

    /// <summary>Without duplicate address detection: nobody on the link has a better right to it.</summary>
    /// <exception cref="NetlinkException">EEXIST where the link has it already; EACCES where IPv6 is disabled on it.</exception>
    public void AddIpv6Address(int index, Ipv6Address address, int prefixLength) =>
        Change(new NetlinkWriter(LinuxRtnetlink.RTM_NEWADDR, LinuxNetlink.NLM_F_ACK | LinuxNetlink.NLM_F_CREATE | LinuxNetlink.NLM_F_EXCL, NetlinkWriter.Ipv6Address(index, (byte)prefixLength, LinuxRtnetlink.IFA_F_NODAD))
            .Attribute(LinuxRtnetlink.IFA_LOCAL, address).Attribute(LinuxRtnetlink.IFA_ADDRESS, address), $"add address {address}/{prefixLength}");

    public void RemoveIpv6Address(int index, Ipv6Address address, int prefixLength) =>
        Change(new NetlinkWriter(LinuxRtnetlink.RTM_DELADDR, LinuxNetlink.NLM_F_ACK, NetlinkWriter.Ipv6Address(index, (byte)prefixLength))
            .Attribute(LinuxRtnetlink.IFA_LOCAL, address).Attribute(LinuxRtnetlink.IFA_ADDRESS, address), $"remove address {address}/{prefixLength}");

    /// <summary>IPv4 routes of all tables.</summary>
    public List<RouteInfo> ListRoutes() => Dump(LinuxRtnetlink.RTM_GETROUTE, NetlinkWriter.Route(), RouteInfo.Parse);

    public void Dispose() => _socket.Dispose();

    private LinkInfo? Find(NetlinkWriter request, string what)
    {
        try
        {
            return Ask(request, $"get link {what}", LinkInfo.Parse, isDump: false).FirstOrDefault();
        }
        catch (NetlinkException exception) when (exception.Errno == NativeErrno.ENODEV)
        {
            return null;
        }
    }

    private void Change(NetlinkWriter request, string what) => Ask<LinkInfo>(request, what, static (in NetlinkMessage _) => null, isDump: false);

    private List<T> Dump<T>(ushort type, byte[] header, Parser<T> parse) where T : class
    {
        for (int attempt = 1; ; attempt++)
        {
            try
            {
                return Ask(new NetlinkWriter(type, LinuxNetlink.NLM_F_DUMP, header), "dump", parse, isDump: true);
            }
            catch (DumpInterruptedException) when (attempt < MaxDumpAttempts)
            {
                // What was listed changed meanwhile (NLM_F_DUMP_INTR): only a new dump is whole.
            }
        }
    }

    private List<T> Ask<T>(NetlinkWriter request, string what, Parser<T> parse, bool isDump) where T : class
    {
        uint sequence = ++_sequence;
        Send(request.Finish(sequence), what);
        var found = new List<T>();
        bool interrupted = false;
        while (true)
        {
            var reader = new NetlinkReader(_buffer.AsSpan(0, Receive(what)));
            while (reader.TryNext(out NetlinkMessage message))
            {
                // An answer that an earlier request no longer waited for.
                if (message.Sequence != sequence)
                    continue;
                interrupted |= (message.Flags & LinuxNetlink.NLM_F_DUMP_INTR) != 0;
                if (message.Type == LinuxNetlink.NLMSG_OVERRUN)
                    throw new NetlinkException(what, NativeErrno.ENOBUFS, "");
                if (message.TryGetError(out int errno, out string text))
                {
                    if (errno != 0)
                        throw new NetlinkException(what, errno, text);
                    return interrupted ? throw new DumpInterruptedException() : found;
                }
                if (message.Type == LinuxNetlink.NLMSG_DONE)
                    return interrupted ? throw new DumpInterruptedException() : found;
                if (parse(message) is { } item)
                    found.Add(item);
                // A single object is the whole answer to a request without NLM_F_ACK.
                if (!isDump && found.Count > 0)
                    return found;
            }
        }
    }

    private void Send(ReadOnlySpan<byte> request, string what)
    {
        fixed (byte* bytes = request)
        {
            nint result;
            do
            {
                result = SysSocket.send(_socket.Number, bytes, (nuint)request.Length, 0);
            }
            while (result < 0 && Syscall.Errno == NativeErrno.EINTR);
            if (result < 0)
                throw new NetlinkException(what, Syscall.Errno, "");
        }
    }

    private int Receive(string what)
    {
        fixed (byte* bytes = _buffer)
        {
            nint result;
            do
            {
                result = SysSocket.recv(_socket.Number, bytes, (nuint)_buffer.Length, SysSocket.MSG_TRUNC);
            }
            while (result < 0 && Syscall.Errno == NativeErrno.EINTR);
            if (result < 0)
                throw new NetlinkException(what, Syscall.Errno == NativeErrno.EAGAIN ? NativeErrno.ETIMEDOUT : Syscall.Errno, "");
            if (result > _buffer.Length)
                throw new NetlinkException(what, NativeErrno.EMSGSIZE, "the kernel's answer is larger than the buffer");
            return (int)result;
        }
    }

    /// <summary>What was dumped changed under the dump.</summary>
    private sealed class DumpInterruptedException() : IOException("what was listed changed while it was listed");
}
