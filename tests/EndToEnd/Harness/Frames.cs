using System.Net;
using System.Net.NetworkInformation;
using PacketDotNet;

namespace VNetMesh.EndToEnd.Tests.Harness;

/// <summary>Frames that a test writes itself, made by PacketDotNet and not by the code under test.</summary>
public static class Frames
{
    public static readonly byte[] Broadcast = [255, 255, 255, 255, 255, 255];

    public static byte[] Mac(string text) => PhysicalAddress.Parse(text.Trim().Replace(':', '-').ToUpperInvariant()).GetAddressBytes();

    public static byte[] ArpRequest(byte[] mac, IPAddress address, IPAddress target) =>
        Ethernet(mac, Broadcast, EthernetType.Arp, new ArpPacket(ArpOperation.Request, new PhysicalAddress(new byte[6]), target, new PhysicalAddress(mac), address));

    public static byte[] ArpReply(byte[] mac, IPAddress address, byte[] targetMac, IPAddress target) =>
        Ethernet(mac, targetMac, EthernetType.Arp, new ArpPacket(ArpOperation.Response, new PhysicalAddress(targetMac), target, new PhysicalAddress(mac), address));

    public static byte[] EchoRequest(byte[] mac, byte[] targetMac, IPAddress address, IPAddress target, ushort identifier, ushort sequence, int size = 56)
    {
        byte[] message = new byte[8 + size];
        message[0] = 8;
        (message[4], message[5], message[6], message[7]) = ((byte)(identifier >> 8), (byte)identifier, (byte)(sequence >> 8), (byte)sequence);
        ushort checksum = Checksum(message);
        (message[2], message[3]) = ((byte)(checksum >> 8), (byte)checksum);
        return Ipv4(mac, targetMac, address, target, ProtocolType.Icmp, message);
    }

    public static byte[] Udp(byte[] mac, byte[] targetMac, IPAddress address, IPAddress target, ushort port, ushort targetPort, byte[] payload)
    {
        var ip = new IPv4Packet(address, target) { TimeToLive = 64 };
        var udp = new UdpPacket(port, targetPort) { PayloadData = payload };
        ip.PayloadPacket = udp;
        udp.UpdateUdpChecksum();
        ip.UpdateCalculatedValues();
        ip.UpdateIPChecksum();
        return Ethernet(mac, targetMac, EthernetType.IPv4, ip);
    }

    public static byte[] TcpSyn(byte[] mac, byte[] targetMac, IPAddress address, IPAddress target, ushort port, ushort targetPort)
    {
        var ip = new IPv4Packet(address, target) { TimeToLive = 64 };
        var tcp = new TcpPacket(port, targetPort) { Synchronize = true, SequenceNumber = 0x1234_5678, WindowSize = 64240 };
        ip.PayloadPacket = tcp;
        tcp.UpdateTcpChecksum();
        ip.UpdateCalculatedValues();
        ip.UpdateIPChecksum();
        return Ethernet(mac, targetMac, EthernetType.IPv4, ip);
    }

    public static byte[] Ipv4(byte[] mac, byte[] targetMac, IPAddress address, IPAddress target, ProtocolType protocol, byte[] payload)
    {
        var ip = new IPv4Packet(address, target) { TimeToLive = 64, Protocol = protocol, PayloadData = payload };
        ip.UpdateCalculatedValues();
        ip.UpdateIPChecksum();
        return Ethernet(mac, targetMac, EthernetType.IPv4, ip);
    }

    private static byte[] Ethernet(byte[] mac, byte[] targetMac, EthernetType type, Packet payload) =>
        new EthernetPacket(new PhysicalAddress(mac), new PhysicalAddress(targetMac), type) { PayloadPacket = payload }.Bytes;

    /// <summary>The Internet checksum (RFC 1071).</summary>
    private static ushort Checksum(ReadOnlySpan<byte> bytes)
    {
        uint sum = 0;
        for (int at = 0; at < bytes.Length; at += 2)
            sum += (uint)(bytes[at] << 8 | (at + 1 < bytes.Length ? bytes[at + 1] : 0));
        while (sum > 0xFFFF)
            sum = (sum & 0xFFFF) + (sum >> 16);
        return (ushort)~sum;
    }
}
