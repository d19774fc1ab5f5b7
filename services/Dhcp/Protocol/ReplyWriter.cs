using System.Text;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Protocol;

/// <summary>Where a reply goes (RFC 2131, 4.1).</summary>
public readonly record struct ReplyTarget(MacAddress Mac, Ipv4Address Address, ushort Port)
{
    public static ReplyTarget Of(DhcpReply reply)
    {
        DhcpMessage request = reply.Request;
        // To the relay, on the server's port.
        if (!request.RelayAddress.IsAny)
            return new ReplyTarget(request.From, request.RelayAddress, Dhcpv4.ServerPort);
        // A NAK without relay is always broadcast: the client may not bear the address that it speaks of.
        if (reply.Type == Dhcpv4MessageType.Nak)
            return Everybody;
        if (!request.ClientAddress.IsAny)
            return new ReplyTarget(request.Mac, request.ClientAddress, Dhcpv4.ClientPort);
        return request.Broadcast ? Everybody : new ReplyTarget(request.Mac, reply.Address, Dhcpv4.ClientPort);
    }

    private static ReplyTarget Everybody => new(MacAddress.Broadcast, Ipv4Address.Broadcast, Dhcpv4.ClientPort);
}

/// <summary>Writes replies: table 3 of RFC 2131, and the network's parameters as far as the client asks for them.</summary>
public static class ReplyWriter
{
    private const int Headers = EthernetView.HeaderLength + Ipv4Header.Length + UdpView.HeaderLength;

    /// <summary>What a client gets that sends no parameter request list.</summary>
    private static ReadOnlySpan<byte> Usual =>
        [Dhcpv4Option.SubnetMask, Dhcpv4Option.Router, Dhcpv4Option.DomainNameServer, Dhcpv4Option.HostName, Dhcpv4Option.DomainName, Dhcpv4Option.BroadcastAddress, Dhcpv4Option.ClasslessStaticRoute];

    /// <summary>The longest frame that is ever written for a network.</summary>
    public static int MaxFrameLength(NetworkSettings settings) => EthernetView.HeaderLength + Math.Clamp(settings.Mtu, Dhcpv4.MinPacketLength, 1500);

    /// <summary>Writes a whole Ethernet frame, checksums complete.</summary>
    /// <param name="frame">Room for <see cref="MaxFrameLength"/> octets.</param>
    /// <param name="source">The server's own MAC address.</param>
    /// <returns>Octets written.</returns>
    public static int WriteFrame(Span<byte> frame, DhcpReply reply, NetworkSettings settings, MacAddress source)
    {
        int packet = Math.Min(reply.Request.MaxMessageSize, MaxFrameLength(settings) - EthernetView.HeaderLength);
        int length = Write(frame.Slice(Headers, packet - (Headers - EthernetView.HeaderLength)), reply, settings);
        ReplyTarget target = ReplyTarget.Of(reply);
        EthernetView.Write(frame, target.Mac, source, EtherType.Ipv4);
        new Ipv4Header(settings.ServerAddress, target.Address, IpProtocol.Udp, UdpView.HeaderLength + length).Write(frame[EthernetView.HeaderLength..]);
        UdpView.Write(frame.Slice(Headers - UdpView.HeaderLength, UdpView.HeaderLength + length), settings.ServerAddress, target.Address, Dhcpv4.ServerPort, target.Port);
        return Headers + length;
    }

    /// <summary>Writes the DHCP message alone.</summary>
    /// <returns>Octets written.</returns>
    public static int Write(Span<byte> message, DhcpReply reply, NetworkSettings settings)
    {
        DhcpMessage request = reply.Request;
        bool isNak = reply.Type == Dhcpv4MessageType.Nak;
        var writer = new Dhcpv4Writer(message, new Dhcpv4Header
        {
            Operation = Dhcpv4.BootReply,
            TransactionId = request.TransactionId,
            // 4.3.2: a relay is to broadcast a NAK, so the bit is set for it.
            Flags = (ushort)(request.Flags | (isNak && !request.RelayAddress.IsAny ? Dhcpv4.FlagBroadcast : 0)),
            ClientAddress = reply.Type == Dhcpv4MessageType.Ack ? request.ClientAddress : default,
            YourAddress = reply.Address,
            RelayAddress = request.RelayAddress,
            HardwareAddress = request.Mac,
        });
        writer.TryAdd(Dhcpv4Option.MessageType, (byte)reply.Type);
        writer.TryAdd(Dhcpv4Option.ServerIdentifier, settings.ServerAddress);
        // RFC 6842: in every reply, as it came. Option 82 likewise (RFC 3046, 2.2).
        if (request.ClientIdentifier is { } identifier)
            writer.TryAdd(Dhcpv4Option.ClientIdentifier, identifier);
        if (isNak)
            writer.TryAdd(Dhcpv4Option.Message, Encoding.ASCII.GetBytes(reply.Text));
        if (reply.LeaseTime is { } time)
            WriteTimes(ref writer, (uint)time.TotalSeconds);
        if (!isNak)
            WriteParameters(ref writer, reply, settings);
        if (request.RelayAgentInformation is { } relay)
            writer.TryAdd(Dhcpv4Option.RelayAgentInformation, relay);
        return writer.Finish();
    }

    /// <summary>T1 is half of the lease, T2 seven eighths (4.4.5).</summary>
    private static void WriteTimes(ref Dhcpv4Writer writer, uint seconds)
    {
        writer.TryAdd(Dhcpv4Option.LeaseTime, seconds);
        writer.TryAdd(Dhcpv4Option.RenewalTime, seconds / 2);
        writer.TryAdd(Dhcpv4Option.RebindingTime, (uint)((ulong)seconds * 7 / 8));
    }

    /// <summary>In the order of the request list: where a reply is full, what the client wants most is in it (RFC 2132, 9.8).</summary>
    private static void WriteParameters(ref Dhcpv4Writer writer, DhcpReply reply, NetworkSettings settings)
    {
        ReadOnlySpan<byte> wanted = reply.Request.ParameterRequests ?? Usual;
        UInt128 low = 0, high = 0;
        // RFC 2132, 3.3: the mask must come before the routers.
        if (wanted.Contains(Dhcpv4Option.SubnetMask))
            WriteParameter(ref writer, Dhcpv4Option.SubnetMask, reply, settings);
        foreach (byte code in wanted)
        {
            ref UInt128 seen = ref code < 128 ? ref low : ref high;
            UInt128 bit = UInt128.One << (code & 127);
            if ((seen & bit) == 0 && code != Dhcpv4Option.SubnetMask)
                WriteParameter(ref writer, code, reply, settings);
            seen |= bit;
        }
    }

    private static void WriteParameter(ref Dhcpv4Writer writer, byte code, DhcpReply reply, NetworkSettings settings)
    {
        switch (code)
        {
            case Dhcpv4Option.SubnetMask:
                writer.TryAdd(code, settings.Subnet.Mask);
                break;
            case Dhcpv4Option.Router when settings.Routers.Count > 0:
                WriteAddresses(ref writer, code, settings.Routers);
                break;
            case Dhcpv4Option.DomainNameServer when settings.DnsServers.Count > 0:
                WriteAddresses(ref writer, code, settings.DnsServers);
                break;
            case Dhcpv4Option.HostName when reply.HostName.Length > 0:
                writer.TryAdd(code, Encoding.ASCII.GetBytes(reply.HostName));
                break;
            case Dhcpv4Option.DomainName when settings.Domain.Length > 0:
                writer.TryAdd(code, Encoding.ASCII.GetBytes(settings.Domain));
                break;
            case Dhcpv4Option.InterfaceMtu:
                writer.TryAdd(code, (ushort)settings.Mtu);
                break;
            case Dhcpv4Option.BroadcastAddress:
                writer.TryAdd(code, settings.Subnet.Broadcast);
                break;
            case Dhcpv4Option.ClasslessStaticRoute when settings.Routers.Count > 0 && !settings.Subnet.Contains(settings.Routers[0]):
                WriteRouteToFarRouter(ref writer, settings.Routers[0]);
                break;
        }
    }

    private static void WriteAddresses(ref Dhcpv4Writer writer, byte code, IReadOnlyList<Ipv4Address> addresses)
    {
        byte[] octets = new byte[addresses.Count * Ipv4Address.Length];
        for (int i = 0; i < addresses.Count; i++)
            addresses[i].Write(octets.AsSpan(i * Ipv4Address.Length));
        writer.TryAdd(code, octets);
    }

    /// <summary>
    /// A router outside of the subnet cannot be reached by option 3 alone: the link to it comes first, then the default route
    /// (RFC 3442; router 0.0.0.0 means "on this link").
    /// </summary>
    private static void WriteRouteToFarRouter(ref Dhcpv4Writer writer, Ipv4Address router)
    {
        Span<byte> routes = stackalloc byte[14];
        routes.Clear();
        routes[0] = 32;
        router.Write(routes[1..]);
        router.Write(routes[10..]);
        writer.TryAdd(Dhcpv4Option.ClasslessStaticRoute, routes);
    }
}
