using System.Buffers.Binary;
using System.Net;
using PacketDotNet;

namespace VNetMesh.EndToEnd.Tests.Harness;

/// <summary>
/// Frames that no honest guest sends, the same for the same seed: valid ones with bits turned, cut short, lengths that lie, wrong checksums,
/// fragments, sources that are another's, and noise.
/// </summary>
public sealed class HostileFrames
{
    private readonly Random _random;
    private readonly byte[][] _seeds;

    /// <param name="seed">Of the random numbers.</param>
    /// <param name="mac">The sender's own address.</param>
    /// <param name="address">The sender's own address.</param>
    /// <param name="gateway">Where nat answers.</param>
    /// <param name="gatewayMac">nat's address.</param>
    public HostileFrames(int seed, byte[] mac, IPAddress address, IPAddress gateway, byte[] gatewayMac)
    {
        _random = new Random(seed);
        IPAddress wan = IPAddress.Parse(Instance.WanAddress);
        byte[] dns = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, (byte)'w', (byte)'e', (byte)'b', 3, (byte)'w', (byte)'a', (byte)'n', 4, (byte)'t', (byte)'e', (byte)'s', (byte)'t', 0, 0, 1, 0, 1];
        _seeds =
        [
            Frames.ArpRequest(mac, address, gateway),
            Frames.ArpReply(mac, address, gatewayMac, gateway),
            Frames.EchoRequest(mac, gatewayMac, address, gateway, 7, 1),
            Frames.EchoRequest(mac, gatewayMac, address, wan, 7, 1),
            Frames.Udp(mac, gatewayMac, address, gateway, 40000, 53, dns),
            Frames.Udp(mac, gatewayMac, address, wan, 40001, WanServers.EchoPort, new byte[100]),
            Frames.Udp(mac, Frames.Broadcast, IPAddress.Any, IPAddress.Broadcast, 68, 67, DhcpDiscover(mac)),
            Frames.TcpSyn(mac, gatewayMac, address, wan, 40002, WanServers.EchoPort),
            Frames.TcpSyn(mac, gatewayMac, address, gateway, 40003, 53),
            Frames.Ipv4(mac, gatewayMac, address, wan, ProtocolType.Gre, new byte[64]),
        ];
    }

    /// <summary>The next frame, 14 to 1514 bytes when <paramref name="wellSized"/> (a kernel takes no others), else 0 to 2000.</summary>
    public byte[] Next(bool wellSized)
    {
        byte[] frame = _random.Next(10) == 0 ? Noise() : Mutate((byte[])_seeds[_random.Next(_seeds.Length)].Clone());
        if (!wellSized && _random.Next(20) == 0)
            return new byte[_random.Next(2000)];
        if (wellSized && frame.Length is < 14 or > 1514)
            Array.Resize(ref frame, Math.Clamp(frame.Length, 14, 1514));
        return frame;
    }

    private byte[] Noise()
    {
        byte[] frame = new byte[_random.Next(0, 1514)];
        _random.NextBytes(frame);
        // Otherwise nearly all of it ends at the first look at the type.
        if (frame.Length > 34 && _random.Next(2) == 0)
            (frame[12], frame[13], frame[14]) = (8, (byte)(_random.Next(3) == 0 ? 6 : 0), (byte)(0x40 | _random.Next(16)));
        return frame;
    }

    private byte[] Mutate(byte[] frame)
    {
        for (int count = _random.Next(1, 4); count > 0; count--)
        {
            switch (_random.Next(9))
            {
                case 0: // turned bits, mostly in the headers
                    frame[_random.Next(Math.Min(frame.Length, 80))] ^= (byte)(1 << _random.Next(8));
                    break;
                case 1: // cut short
                    Array.Resize(ref frame, _random.Next(14, frame.Length + 1));
                    break;
                case 2: // longer than its header says
                    Array.Resize(ref frame, Math.Min(frame.Length + _random.Next(1, 400), 1514));
                    break;
                case 3 when frame.Length > 18: // a total length that lies
                    BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(16), (ushort)_random.Next(65536));
                    break;
                case 4 when frame.Length > 14: // a header length that lies
                    frame[14] = (byte)(0x40 | _random.Next(16));
                    break;
                case 5 when frame.Length > 34: // a fragment, with its header's checksum mended
                    BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(20), (ushort)_random.Next(65536));
                    MendHeader(frame);
                    break;
                case 6 when frame.Length > 34: // a source that is another's: a neighbour, a server, loopback, multicast, anybody
                    Span<byte> source = frame.AsSpan(26, 4);
                    ReadOnlySpan<byte> others = [192, 168, 108, 2, 192, 168, 108, 254, 127, 0, 0, 1, 224, 0, 0, 1, 255, 255, 255, 255, 0, 0, 0, 0];
                    others.Slice(_random.Next(others.Length / 4) * 4, 4).CopyTo(source);
                    MendHeader(frame);
                    break;
                case 7: // a source MAC that is another's, or a group's
                    _random.NextBytes(frame.AsSpan(6, 6));
                    break;
                case 8 when frame.Length > 54: // another port, flags, offset
                    _random.NextBytes(frame.AsSpan(34 + _random.Next(14), 4));
                    break;
            }
        }
        return frame;
    }

    private static void MendHeader(byte[] frame)
    {
        int length = Math.Min((frame[14] & 15) * 4, frame.Length - 14);
        if (length < 20)
            return;
        frame[24] = frame[25] = 0;
        uint sum = 0;
        for (int at = 14; at + 1 < 14 + length; at += 2)
            sum += (uint)(frame[at] << 8 | frame[at + 1]);
        while (sum > 0xFFFF)
            sum = (sum & 0xFFFF) + (sum >> 16);
        BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(24), (ushort)~sum);
    }

    /// <summary>A DHCPDISCOVER (RFC 2131).</summary>
    private static byte[] DhcpDiscover(byte[] mac)
    {
        byte[] message = new byte[300];
        (message[0], message[1], message[2]) = (1, 1, 6);
        message[10] = 0x80;
        mac.CopyTo(message, 28);
        byte[] options = [99, 130, 83, 99, 53, 1, 1, 55, 3, 1, 3, 6, 255];
        options.CopyTo(message, 236);
        return message;
    }
}
