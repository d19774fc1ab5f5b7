using System.Net.NetworkInformation;
using System.Text;
using PacketDotNet;

namespace VNetMesh.Cli.Capturing;

/// <summary>
/// A frame in one line, decoded by PacketDotNet. Frames come from guests, who may send anything: nothing of theirs is printed but numbers,
/// addresses and harmless letters, and what cannot be decoded says so.
/// </summary>
internal static class FrameDecoder
{
    private const int MaxNameLength = 80;

    /// <param name="octets">The frame, or its beginning.</param>
    /// <param name="length">Octets of the whole frame.</param>
    public static string Decode(byte[] octets, int length)
    {
        if (octets.Length < 14)
            return $"too short: {length} octets";
        try
        {
            var ethernet = (EthernetPacket)Packet.ParsePacket(LinkLayers.Ethernet, octets);
            return Describe(ethernet, length);
        }
        catch (Exception exception) when (exception is not OutOfMemoryException)
        {
            // PacketDotNet reads fields when asked, and throws where they lie outside of the frame.
            return $"{Mac(octets, 6)} > {Mac(octets, 0)} type 0x{octets[12]:x2}{octets[13]:x2}, {length} octets, malformed or cut short";
        }
    }

    private static string Describe(EthernetPacket ethernet, int length)
    {
        string tag = "";
        Packet? payload = ethernet.PayloadPacket;
        while (payload is Ieee8021QPacket vlan)
        {
            tag += $"vlan {vlan.VlanIdentifier} ";
            payload = vlan.PayloadPacket;
        }
        return tag + payload switch
        {
            ArpPacket arp => Describe(arp),
            IPPacket ip => Describe(ip),
            _ => $"{Text(ethernet.SourceHardwareAddress)} > {Text(ethernet.DestinationHardwareAddress)} type 0x{(int)ethernet.Type:x4}, {length} octets",
        };
    }

    private static string Describe(ArpPacket arp) => arp.Operation switch
    {
        ArpOperation.Request when arp.SenderProtocolAddress.Equals(arp.TargetProtocolAddress) => $"ARP announces {arp.SenderProtocolAddress} at {Text(arp.SenderHardwareAddress)}",
        ArpOperation.Request => $"ARP who has {arp.TargetProtocolAddress}? tell {arp.SenderProtocolAddress}",
        ArpOperation.Response => $"ARP {arp.SenderProtocolAddress} is at {Text(arp.SenderHardwareAddress)}",
        _ => $"ARP operation {(int)arp.Operation}",
    };

    private static string Describe(IPPacket ip)
    {
        string ends = $"{ip.SourceAddress} > {ip.DestinationAddress}";
        if (ip is IPv4Packet { FragmentOffset: > 0 } fragment)
            return $"{ends} fragment at {fragment.FragmentOffset * 8}, {fragment.TotalLength} octets";
        return ip.PayloadPacket switch
        {
            TcpPacket tcp => $"{Ends(ip, tcp.SourcePort, tcp.DestinationPort)} TCP {Describe(tcp, ip)}",
            UdpPacket udp => $"{Ends(ip, udp.SourcePort, udp.DestinationPort)} {Describe(udp)}",
            IcmpV4Packet icmp => $"{ends} ICMP {Describe(icmp)}",
            IcmpV6Packet icmp => $"{ends} ICMPv6 {Words(icmp.Type.ToString())}",
            _ => $"{ends} {(ip.Protocol == ProtocolType.Icmp || ip.Protocol == ProtocolType.Tcp || ip.Protocol == ProtocolType.Udp ? ip.Protocol.ToString().ToUpperInvariant() + " malformed" : "protocol " + (int)ip.Protocol)}, {ip.TotalLength} octets",
        };
    }

    private static string Describe(TcpPacket tcp, IPPacket ip)
    {
        string flags = (tcp.Synchronize ? "S" : "") + (tcp.Finished ? "F" : "") + (tcp.Reset ? "R" : "") + (tcp.Push ? "P" : "") + (tcp.Acknowledgment ? "." : "") + (tcp.Urgent ? "U" : "");
        int headers = (ip is IPv4Packet four ? four.HeaderLength * 4 : 0) + (tcp.DataOffset * 4);
        int payload = Math.Max(0, (ip is IPv6Packet six ? six.PayloadLength : ip.TotalLength) - headers);
        string ack = tcp.Acknowledgment ? $" ack {tcp.AcknowledgmentNumber}" : "";
        return $"[{flags}] seq {tcp.SequenceNumber}{ack} win {tcp.WindowSize}, {payload} octets";
    }

    private static string Describe(UdpPacket udp)
    {
        int payload = Math.Max(0, udp.Length - 8);
        byte[] data = udp.PayloadData ?? [];
        if ((udp.SourcePort == 53 || udp.DestinationPort == 53) && DnsText(data) is { } dns)
            return "DNS " + dns;
        if (udp.SourcePort is 67 or 68 && udp.DestinationPort is 67 or 68)
            return "DHCP " + DhcpText(udp);
        return $"UDP {payload} octets";
    }

    private static string DhcpText(UdpPacket udp) =>
        udp.PayloadPacket is DhcpV4Packet dhcp
            ? $"{Words(dhcp.MessageType.ToString())} client {Text(dhcp.ClientHardwareAddress)}{(dhcp.YourAddress.Equals(System.Net.IPAddress.Any) ? "" : " address " + dhcp.YourAddress)}"
            : $"{Math.Max(0, udp.Length - 8)} octets";

    /// <summary>Header and first question of RFC 1035, 4.1; null where they are not there.</summary>
    private static string? DnsText(ReadOnlySpan<byte> message)
    {
        if (message.Length < 17 || message[4] != 0 || message[5] != 1)
            return null;
        var name = new StringBuilder();
        int at = 12;
        while (at < message.Length && message[at] is > 0 and < 64 && at + message[at] < message.Length && name.Length < MaxNameLength)
        {
            foreach (byte letter in message.Slice(at + 1, message[at]))
                name.Append(char.IsAsciiLetterOrDigit((char)letter) || letter is (byte)'-' or (byte)'_' ? (char)letter : '?');
            name.Append('.');
            at += message[at] + 1;
        }
        if (at + 3 > message.Length)
            return null;
        int type = (message[at + 1] << 8) | message[at + 2];
        string question = $"{DnsType(type)} {(name.Length == 0 ? "." : name.ToString().TrimEnd('.'))}";
        bool isAnswer = (message[2] & 0x80) != 0;
        return isAnswer ? $"answer {question}: {DnsResult(message[3] & 0x0F)}, {(message[6] << 8) | message[7]} records" : $"{question}?";
    }

    private static string DnsType(int type) => type switch { 1 => "A", 2 => "NS", 5 => "CNAME", 6 => "SOA", 12 => "PTR", 15 => "MX", 16 => "TXT", 28 => "AAAA", 33 => "SRV", 65 => "HTTPS", _ => "type " + type };

    private static string DnsResult(int code) => code switch { 0 => "ok", 2 => "server failure", 3 => "no such name", 5 => "refused", _ => "code " + code };

    private static string Describe(IcmpV4Packet icmp) => icmp.TypeCode switch
    {
        IcmpV4TypeCode.EchoRequest => $"echo request id {icmp.Id} seq {icmp.Sequence}",
        IcmpV4TypeCode.EchoReply => $"echo reply id {icmp.Id} seq {icmp.Sequence}",
        _ => Enum.IsDefined(icmp.TypeCode) ? Words(icmp.TypeCode.ToString()) : $"type {(int)icmp.TypeCode >> 8} code {(int)icmp.TypeCode & 0xFF}",
    };

    private static string Ends(IPPacket ip, ushort source, ushort destination) => ip is IPv6Packet
        ? $"[{ip.SourceAddress}]:{source} > [{ip.DestinationAddress}]:{destination}"
        : $"{ip.SourceAddress}:{source} > {ip.DestinationAddress}:{destination}";

    /// <summary>"UnreachablePort" as people write it.</summary>
    private static string Words(string name)
    {
        var text = new StringBuilder();
        foreach (char letter in name)
        {
            if (char.IsUpper(letter) && text.Length > 0)
                text.Append(' ');
            text.Append(char.ToLowerInvariant(letter));
        }
        return text.ToString();
    }

    private static string Text(PhysicalAddress address) => string.Join(':', address.GetAddressBytes().Select(octet => octet.ToString("x2")));

    private static string Mac(byte[] octets, int at) => string.Join(':', octets.Skip(at).Take(6).Select(octet => octet.ToString("x2")));
}
