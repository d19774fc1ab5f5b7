using System.Buffers.Binary;
using System.Globalization;
using System.Runtime.InteropServices;
using VNetMesh.Native;

namespace VNetMesh.Agent.Netlink;

/// <summary>
/// Whether an interface is a Wi-Fi station: asked of nl80211 (linux/nl80211.h), which knows the interfaces of the caller's
/// namespace. sysfs shows those of the namespace in which it was mounted, so it counts only where it speaks of the same interface.
/// </summary>
public static unsafe class WirelessLinks
{
    internal const ushort CtrlIdFamily = 0x10;
    internal const ushort CtrlAttrFamilyId = 1;
    internal const ushort AttrInterfaceType = 5;
    internal const ushort AttrFourAddresses = 0x53;
    internal const uint TypeStation = 2;
    internal const uint TypeP2pClient = 8;

    private const int NETLINK_GENERIC = 16;
    private const byte CtrlCmdGetFamily = 3;
    private const ushort CtrlAttrFamilyName = 2;
    private const byte CmdGetInterface = 5;
    private const ushort AttrInterfaceIndex = 3;
    private const int GenericHeaderLength = 4;

    public static bool IsStation(LinkInfo link)
    {
        // Wireless devices are of no kind that can be made: they are hardware's.
        if (link.Kind.Length > 0)
            return false;
        using FileDescriptor? socket = TryOpen();
        if (socket is not null && Ask(socket, CtrlIdFamily, CtrlCmdGetFamily, new NetlinkRequest(CtrlAttrFamilyName, "nl80211\0"u8)) is { } family && FamilyOf(family) is { } id)
        {
            byte[] index = new byte[4];
            MemoryMarshal.Write(index, link.Index);
            return Ask(socket, id, CmdGetInterface, new NetlinkRequest(AttrInterfaceIndex, index)) is { } answer && IsStation(answer);
        }
        return IsWirelessBySysfs("/sys", link);
    }

    /// <summary>An answer of nl80211's: a station, or a Wi-Fi Direct client, that does not send four addresses (WDS).</summary>
    internal static bool IsStation(ReadOnlySpan<byte> datagram)
    {
        var reader = new NetlinkReader(datagram);
        while (reader.TryNext(out NetlinkMessage message))
        {
            uint type = 0;
            bool hasFourAddresses = false;
            foreach (NetlinkAttribute attribute in message.Attributes(GenericHeaderLength))
            {
                if (attribute.Type == AttrInterfaceType)
                    attribute.TryGetUInt32(out type);
                else if (attribute.Type == AttrFourAddresses)
                    hasFourAddresses = attribute.Value.Length > 0 && attribute.Value[0] != 0;
            }
            if (type is TypeStation or TypeP2pClient)
                return !hasFourAddresses;
        }
        return false;
    }

    /// <summary>Where nl80211 does not answer: a wireless device, in whatever mode.</summary>
    internal static bool IsWirelessBySysfs(string sysfs, LinkInfo link)
    {
        string folder = Path.Combine(sysfs, "class/net", link.Name);
        try
        {
            return int.TryParse(File.ReadAllText(Path.Combine(folder, "ifindex")), NumberStyles.None | NumberStyles.AllowTrailingWhite, CultureInfo.InvariantCulture, out int index) && index == link.Index
                && File.ReadAllText(Path.Combine(folder, "address")).Trim() == link.Mac.ToString()
                && (Directory.Exists(Path.Combine(folder, "phy80211")) || Directory.Exists(Path.Combine(folder, "wireless")));
        }
        catch (IOException)
        {
            return false;
        }
    }

    private static ushort? FamilyOf(ReadOnlySpan<byte> datagram)
    {
        var reader = new NetlinkReader(datagram);
        while (reader.TryNext(out NetlinkMessage message))
        {
            foreach (NetlinkAttribute attribute in message.Attributes(GenericHeaderLength))
            {
                if (message.Type == CtrlIdFamily && attribute.Type == CtrlAttrFamilyId && attribute.Value.Length >= 2)
                    return MemoryMarshal.Read<ushort>(attribute.Value);
            }
        }
        return null;
    }

    private static FileDescriptor? TryOpen()
    {
        int socket = SysSocket.socket(SysSocket.AF_NETLINK, SysSocket.SOCK_RAW | SysSocket.SOCK_CLOEXEC, NETLINK_GENERIC);
        if (socket < 0)
            return null;
        long* timeout = stackalloc long[2] { 1, 0 };
        const int SO_RCVTIMEO = 20;
        _ = SysSocket.setsockopt(socket, SysSocket.SOL_SOCKET, SO_RCVTIMEO, timeout, 16);
        return new FileDescriptor(socket);
    }

    /// <returns>The answer; null where it is an error (no such family, no wireless device).</returns>
    private static byte[]? Ask(FileDescriptor socket, ushort family, byte command, in NetlinkRequest request)
    {
        byte[] header = [command, 1, 0, 0];
        ReadOnlySpan<byte> message = new NetlinkWriter(family, 0, header).Attribute(request.Attribute, request.Value).Finish(1);
        byte[] answer = new byte[16 * 1024];
        fixed (byte* octets = message)
        fixed (byte* room = answer)
        {
            if (SysSocket.send(socket.Number, octets, (nuint)message.Length, 0) < 0)
                return null;
            nint length = SysSocket.recv(socket.Number, room, (nuint)answer.Length, 0);
            if (length < LinuxNetlink.NLMSG_HDRLEN || BinaryPrimitives.ReadUInt16LittleEndian(answer.AsSpan(4)) == LinuxNetlink.NLMSG_ERROR)
                return null;
            return answer[..(int)length];
        }
    }

    private readonly ref struct NetlinkRequest(ushort attribute, ReadOnlySpan<byte> value)
    {
        public ushort Attribute { get; } = attribute;

        public ReadOnlySpan<byte> Value { get; } = value;
    }
}
