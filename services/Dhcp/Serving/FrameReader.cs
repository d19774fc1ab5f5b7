using VNetMesh.Dhcp.Protocol;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Serving;

public enum FrameContent
{
    /// <summary>Nothing for the server.</summary>
    None,
    Dhcp,
    Arp,
    EchoRequest,
}

/// <summary>What a frame holds, as far as the server cares. Spans point into the frame.</summary>
public ref struct ReceivedFrame
{
    public MacAddress From;

    /// <summary>IPv4 source.</summary>
    public Ipv4Address Source;

    /// <summary>The IPv4 destination is the server's own address.</summary>
    public bool IsToServer;
    public ArpPacket Arp;

    /// <summary>Of UDP, or the whole ICMP message.</summary>
    public ReadOnlySpan<byte> Payload;
}

/// <summary>Looks through Ethernet, IPv4 and UDP for what the server answers. Guests may send any bytes.</summary>
public static class FrameReader
{
    /// <param name="record">An offload header and a frame.</param>
    /// <param name="cause">Why it holds nothing for the server, when <see cref="FrameContent.None"/>.</param>
    public static FrameContent Read(ReadOnlySpan<byte> record, NetworkSettings settings, MacAddress mac, out ReceivedFrame frame, out DropCause cause)
    {
        frame = default;
        cause = DropCause.Malformed;
        if (record.Length < VirtioNetHeader.Length || !EthernetView.TryParse(record[VirtioNetHeader.Length..], out EthernetView ethernet))
            return FrameContent.None;
        VirtioNetHeader offload = VirtioNetHeader.Read(record);
        // Nothing that the server answers is ever a large segment.
        if (!offload.IsConsistentWith(record.Length - VirtioNetHeader.Length) || ethernet.Source.IsMulticast || ethernet.Source.IsZero)
            return FrameContent.None;
        bool isOurs = (ethernet.Destination == mac || ethernet.Destination.IsBroadcast) && ethernet.Source != mac;
        if (!isOurs || offload.GsoKind != VirtioNetHeader.GsoNone || ethernet.Type is not (EtherType.Arp or EtherType.Ipv4))
        {
            cause = DropCause.NotForUs;
            return FrameContent.None;
        }
        frame.From = ethernet.Source;
        if (ethernet.Type == EtherType.Ipv4)
            return ReadIpv4(ethernet.Payload, offload.NeedsChecksum, settings, ref frame, out cause);
        // An ARP packet that names another sender than its frame is not answered: it is made to mislead.
        return ArpPacket.TryParse(ethernet.Payload, out frame.Arp) && frame.Arp.SenderMac == ethernet.Source ? FrameContent.Arp : FrameContent.None;
    }

    private static FrameContent ReadIpv4(ReadOnlySpan<byte> payload, bool isPartial, NetworkSettings settings, ref ReceivedFrame frame, out DropCause cause)
    {
        cause = DropCause.Malformed;
        if (!Ipv4View.TryParse(payload, out Ipv4View ip))
            return FrameContent.None;
        frame.Source = ip.Source;
        frame.IsToServer = ip.Destination == settings.ServerAddress;
        bool isToAll = ip.Destination.IsBroadcast || ip.Destination == settings.Subnet.Broadcast;
        if (!frame.IsToServer && !isToAll)
        {
            cause = DropCause.NotForUs;
            return FrameContent.None;
        }
        if (!ip.HasValidChecksum)
        {
            cause = DropCause.BadChecksum;
            return FrameContent.None;
        }
        if (ip.IsFragment)
        {
            cause = DropCause.Fragment;
            return FrameContent.None;
        }
        if (ip.Protocol == IpProtocol.Udp)
            return ReadUdp(ip, isPartial, ref frame, out cause);
        return frame.IsToServer && ip.Protocol == IpProtocol.Icmp ? ReadIcmp(ip, isPartial, settings, ref frame, out cause) : Other(out cause);
    }

    private static FrameContent ReadUdp(in Ipv4View ip, bool isPartial, ref ReceivedFrame frame, out DropCause cause)
    {
        cause = DropCause.Malformed;
        if (!UdpView.TryParse(ip.Payload, out UdpView udp))
            return FrameContent.None;
        if (udp.DestinationPort != Dhcpv4.ServerPort)
            return Other(out cause);
        if (!isPartial && !udp.HasValidChecksum(ip.Source, ip.Destination))
        {
            cause = DropCause.BadChecksum;
            return FrameContent.None;
        }
        frame.Payload = udp.Payload;
        return FrameContent.Dhcp;
    }

    private static FrameContent ReadIcmp(in Ipv4View ip, bool isPartial, NetworkSettings settings, ref ReceivedFrame frame, out DropCause cause)
    {
        cause = DropCause.Malformed;
        if (!Icmpv4View.TryParse(ip.Payload, out Icmpv4View icmp))
            return FrameContent.None;
        // A source outside of the subnet could be a victim elsewhere, and the server's own would be an echo of an echo.
        if (icmp.Type != Icmpv4Type.EchoRequest || !settings.Subnet.ContainsHost(ip.Source) || ip.Source == settings.ServerAddress)
            return Other(out cause);
        if (!isPartial && !icmp.HasValidChecksum)
        {
            cause = DropCause.BadChecksum;
            return FrameContent.None;
        }
        frame.Payload = icmp.Message;
        return FrameContent.EchoRequest;
    }

    private static FrameContent Other(out DropCause cause)
    {
        cause = DropCause.NotForUs;
        return FrameContent.None;
    }
}
