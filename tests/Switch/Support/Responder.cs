using System.Buffers.Binary;
using VNetMesh.Packets;

namespace VNetMesh.Switch.Tests.Support;

/// <summary>A station that answers ARP and pings for one address.</summary>
internal static class Responder
{
    /// <returns>The answer; null where there is none to give.</returns>
    public static byte[]? Answer(byte[] frame, MacAddress mac, Ipv4Address address) =>
        BinaryPrimitives.ReadUInt16BigEndian(frame.AsSpan(12)) switch
        {
            EtherType.Arp when frame.Length >= 42 && frame[21] == 1 && Ipv4Address.Read(frame.AsSpan(38)) == address => ArpReply(frame, mac, address),
            EtherType.Ipv4 when frame.Length >= 42 && frame[23] == 1 && frame[34] == 8 && Ipv4Address.Read(frame.AsSpan(30)) == address => EchoReply(frame, mac, address),
            _ => null,
        };

    private static byte[] ArpReply(byte[] request, MacAddress mac, Ipv4Address address)
    {
        byte[] reply = request.AsSpan(0, 42).ToArray();
        Turn(reply, mac);
        reply[21] = 2;
        request.AsSpan(22, 10).CopyTo(reply.AsSpan(32));
        mac.Write(reply.AsSpan(22));
        address.Write(reply.AsSpan(28));
        return reply;
    }

    private static byte[] EchoReply(byte[] request, MacAddress mac, Ipv4Address address)
    {
        byte[] reply = [.. request];
        Turn(reply, mac);
        request.AsSpan(26, 4).CopyTo(reply.AsSpan(30));
        address.Write(reply.AsSpan(26));
        reply[34] = 0;
        reply.AsSpan(36, 2).Clear();
        BinaryPrimitives.WriteUInt16BigEndian(reply.AsSpan(36), Checksum.Compute(reply.AsSpan(34)));
        return reply;
    }

    private static void Turn(byte[] frame, MacAddress mac)
    {
        frame.AsSpan(6, 6).CopyTo(frame);
        mac.Write(frame.AsSpan(6));
    }
}
