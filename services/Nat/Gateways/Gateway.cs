using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.Nat.Dns;
using VNetMesh.Nat.Flows;
using VNetMesh.Nat.Forwards;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Gateways;

/// <summary>
/// THEORY OF OPERATION
///
/// nat is a proxy, not a translator. It is plugged into each NAT network as one more port, answers ARP for the gateway's
/// address, and ends every conversation of the guests itself: what a guest sends goes out by an ordinary socket of the
/// host's, opened without any privilege, and what that socket gives goes back under the remote's address. Sequence numbers,
/// windows and retransmissions of the two sides have nothing to do with each other.
///
/// One thread owns it all. A gateway, its tables, its flows and their sockets are touched on the thread of its
/// <see cref="EventLoop"/> and nowhere else, so nothing here is locked; the Rpc side asks by <see cref="EventLoop.InvokeAsync"/>.
/// No frame allocates; a flow's beginning may.
///
/// A turn of the loop:
/// <code>
///  host sockets that are ready    → flows read them, build frames in the link's memory, or write what the guest sent before
///  the link's records (a batch)   → Gateway.Receive → ArpTable | ICMP | UdpMappings | TcpFlowTable
///  timers that are due            → flows, ArpTable, FragmentStore, DnsQuery
///  link.Flush                     → one doorbell for all
/// </code>
///
/// What a guest's packet meets, in this order; each "no" is a named drop (<see cref="DropCause"/>, docs/drops.md):
/// <code>
///  record and offload header consistent → to our MAC → IPv4, checksum → source inside the subnet and nobody's of ours
///  → fragments put together → TTL (time exceeded) → destination allowed → transport checksum (unless partial) → flow
/// </code>
///
/// Flows (<see cref="Flow"/>; bounded in all and per guest; one descriptor each):
/// <code>
///  TCP   state        event                          action
///        –            SYN                            connect on the host           → DIALING
///        DIALING      connected                      SYN-ACK                       → HANDSHAKE
///                     refused                        RST                           → CLOSED
///                     net, host unreachable, barred  ICMP unreachable              → CLOSED
///                     timed out                      nothing: silence stays silence → CLOSED
///        HANDSHAKE    guest's ACK                    read the host                 → ESTABLISHED
///                     15 s                           RST, close                    → CLOSED
///        ESTABLISHED  host ends                      FIN to the guest              → HALF_CLOSED
///                     guest ends                     shutdown(SHUT_WR)             → HALF_CLOSED
///        HALF_CLOSED  the other ends                                               → CLOSING
///        any          RST from either                RST to the other              → CLOSED
///        forwards begin at HANDSHAKE: the client is connected, the guest gets a SYN
///  UDP   one socket per guest address and port (<see cref="UdpMapping"/>), one per client of a forward's port
///  ICMP  one ping socket per guest, identifier and remote (<see cref="PingFlow"/>)
/// </code>
/// Backpressure needs no queue of its own: a host socket that takes no more leaves the guest's data in the connection's
/// receive buffer, whose window closes; a guest that takes no more fills the send buffer, and the host socket is not read.
///
/// The link comes and goes with the switch; flows stay. While it is away nothing can be sent, and what TCP had in flight is
/// sent again when it is back.
/// </summary>
public sealed class Gateway : IReadyHandler, ILoopWork, IPortHandler
{
    private const int ReceiveBatch = 256;
    private const byte LastHop = 1;

    private readonly GatewayContext _context;
    private readonly FragmentStore _fragments;
    private readonly TcpFlowTable _tcp;
    private readonly UdpMappings _udp;
    private readonly UdpForwardFlows _udpForwards;
    private readonly PingFlows _pings;
    private readonly DnsProxy _dns;
    private EventLoop.Registration _registration;
    private bool _mayHoldMore;
    private bool _mayReadMore;
    private volatile bool _isLinkUp;

    public Gateway(GatewaySettings settings, NatShared shared)
    {
        _context = new GatewayContext(settings, shared);
        _fragments = new FragmentStore(_context.Timers, _context.Drops);
        _dns = new DnsProxy(_context);
        _tcp = new TcpFlowTable(_context, _dns);
        _udp = new UdpMappings(_context);
        _udpForwards = new UdpForwardFlows(_context);
        _pings = new PingFlows(_context);
        Forwards = new GatewayForwards(_context, _tcp, _udpForwards);
    }

    public GatewaySettings Settings => _context.Settings;

    /// <summary>The port on the switch is connected. From any thread.</summary>
    public bool IsLinkUp => _isLinkUp;

    /// <summary>From any thread.</summary>
    public DropCounters Drops => _context.Drops;

    public FlowRegistry Flows => _context.Flows;

    internal GatewayForwards Forwards { get; }

    internal GatewayContext Context => _context;

    /// <summary>Begins to take part in its loop. On the loop's thread, or before the loop's start.</summary>
    public void Open()
    {
        _context.Loop.Add(this);
        _context.Shared.Metrics.Add(this);
    }

    /// <summary>Ends every flow and listener. On the loop's thread.</summary>
    public void Close(string reason)
    {
        Forwards.Close();
        Flows.EndAll(reason);
        _dns.Close();
        _context.Sender.Link?.Flush();
        OnLinkDown(reason);
        _context.Loop.Remove(this);
        _context.Shared.Metrics.Remove(this);
    }

    /// <summary>A link, new or again. Owned by the caller. On the loop's thread.</summary>
    public void OnLinkUp(IFrameLink link)
    {
        OnLinkDown("replaced");
        _context.Sender.Link = link;
        _registration = _context.Loop.Register(link.Descriptor, SysEpoll.EPOLLIN, this);
        _isLinkUp = true;
        _mayHoldMore = true;
        _context.Neighbours.Announce();
        _tcp.OnRoom(EventLoop.Now);
    }

    /// <summary>The link is gone; the flows wait for the next. On the loop's thread.</summary>
    public void OnLinkDown(string reason)
    {
        if (!_isLinkUp)
            return;
        _isLinkUp = false;
        _context.Loop.Unregister(_registration);
        _context.Sender.Link = null;
    }

    // The link's descriptor only wakes the loop; OnTurn does the work.
    public void OnReady(uint events, long now) => _mayHoldMore = true;

    public long OnTurn(long now)
    {
        if (_context.Sender.SawFull)
        {
            _context.Sender.SawFull = false;
            _tcp.OnRoom(now);
        }
        if (_mayHoldMore)
            _mayHoldMore = ReceiveSome(now);
        _udp.Flush(now);
        _tcp.PollDirty(now);
        _context.Timers.Run(now);
        _mayReadMore = _tcp.ReadMore(now);
        _context.Sender.Link?.Flush();
        return _context.Timers.Next;
    }

    public bool PrepareToSleep()
    {
        if (_mayReadMore)
            return false;
        if (_context.Sender.Link is not { } link)
            return true;
        if (!_mayHoldMore && link.PrepareToSleep())
            return true;
        _mayHoldMore = true;
        return false;
    }

    // True: the batch was full, there may be more.
    private bool ReceiveSome(long now)
    {
        for (int i = 0; i < ReceiveBatch; i++)
        {
            if (_context.Sender.Link is not { } link || link.TryReceive(out ReadOnlySpan<byte> record, out TraceContext trace) != ReceiveStatus.Received)
                return false;
            Receive(record, trace, now);
        }
        return true;
    }

    /// <summary>Takes one record from the link, whatever its bytes.</summary>
    internal void Receive(ReadOnlySpan<byte> record, in TraceContext trace, long now)
    {
        if (record.Length < FrameRecord.MinLength || !EthernetView.TryParse(record[VirtioNetHeader.Length..], out EthernetView ethernet))
        {
            Drop(DropCause.RecordMalformed);
            return;
        }
        VirtioNetHeader offload = VirtioNetHeader.Read(record);
        if (!offload.IsConsistentWith(record.Length - VirtioNetHeader.Length))
        {
            Drop(DropCause.OffloadMalformed);
            return;
        }
        if (ethernet.Source.IsMulticast || ethernet.Source.IsZero || ethernet.Source == Settings.Mac)
        {
            Drop(DropCause.SourceMacInvalid);
            return;
        }
        bool toUs = ethernet.Destination == Settings.Mac;
        switch (ethernet.Type)
        {
            case EtherType.Arp when toUs || ethernet.Destination.IsBroadcast:
                _context.Neighbours.Receive(ethernet.Source, ethernet.Payload, now);
                break;
            case EtherType.Ipv4 when toUs:
                ReceiveIpv4(ethernet, offload, trace, now);
                break;
            case EtherType.Ipv4 or EtherType.Arp:
                Drop(ethernet.Destination.IsMulticast ? DropCause.DestinationMulticast : DropCause.OtherMac);
                break;
            case EtherType.Ipv6:
                Drop(DropCause.Ipv6NotServed);
                break;
            case EtherType.Vlan or EtherType.ProviderVlan:
                Drop(DropCause.VlanNotServed);
                break;
            default:
                Drop(DropCause.EthertypeNotServed);
                break;
        }
    }

    private void ReceiveIpv4(in EthernetView ethernet, in VirtioNetHeader offload, in TraceContext trace, long now)
    {
        if (!Ipv4View.TryParse(ethernet.Payload, out Ipv4View ip))
        {
            Drop(DropCause.IpMalformed);
            return;
        }
        if (!ip.HasValidChecksum)
        {
            Drop(DropCause.IpChecksum);
            return;
        }
        if (!_context.Neighbours.IsGuestAddress(ip.Source))
        {
            Drop(DropCause.SpoofedSource);
            return;
        }
        if (_context.Neighbours.Learn(ip.Source, ethernet.Source, now) is not { } guest)
        {
            Drop(DropCause.NeighbourTableFull);
            return;
        }
        if (ip.IsFragment)
        {
            // A kernel that leaves segments or checksums to the device does not cut packets as well.
            if (offload.NeedsChecksum)
                Drop(DropCause.OffloadMalformed);
            else if (_fragments.TryAdd(ip, now, out ReadOnlySpan<byte> whole) && Ipv4View.TryParse(whole, out Ipv4View packet))
                Dispatch(new GuestPacket { Guest = guest, Ip = packet, Trace = trace, Now = now });
            return;
        }
        if (!IsOffloadPlausible(offload, ip))
        {
            Drop(DropCause.OffloadMalformed);
            return;
        }
        Dispatch(new GuestPacket
        {
            Guest = guest,
            Ip = ip,
            ChecksumTrusted = (offload.Flags & (VirtioNetHeader.FlagNeedsChecksum | VirtioNetHeader.FlagDataValid)) != 0,
            GsoKind = offload.GsoKind,
            GsoSize = offload.GsoSize,
            Trace = trace,
            Now = now,
        });
    }

    // A partial checksum must be the transport's own, and a large segment of the protocol that it says.
    private static bool IsOffloadPlausible(in VirtioNetHeader offload, in Ipv4View ip)
    {
        (byte gso, int offset) = ip.Protocol switch
        {
            IpProtocol.Tcp => (VirtioNetHeader.GsoTcpv4, 16),
            IpProtocol.Udp => (VirtioNetHeader.GsoUdpL4, 6),
            _ => (VirtioNetHeader.GsoNone, -1),
        };
        if (offload.GsoKind != VirtioNetHeader.GsoNone && offload.GsoKind != gso)
            return false;
        return !offload.NeedsChecksum
            || (offset >= 0 && offload.ChecksumStart == EthernetView.HeaderLength + ip.HeaderLength && offload.ChecksumOffset == offset);
    }

    private void Dispatch(in GuestPacket packet)
    {
        bool toGateway = packet.Ip.Destination == Settings.Address;
        if (!toGateway && !MayPass(packet))
            return;
        switch (packet.Ip.Protocol)
        {
            case IpProtocol.Tcp:
                _tcp.Receive(packet, toGateway);
                break;
            case IpProtocol.Udp:
                ReceiveUdp(packet, toGateway);
                break;
            case IpProtocol.Icmp:
                ReceiveIcmp(packet, toGateway);
                break;
            default:
                Drop(DropCause.IpProtocolNotServed);
                _context.Errors.Send(packet.Guest, packet.Ip.Packet, Icmpv4Type.DestinationUnreachable, Icmpv4Type.CodeProtocolUnreachable, packet.Now);
                break;
        }
    }

    private bool MayPass(in GuestPacket packet)
    {
        Ipv4Address destination = packet.Ip.Destination;
        if (destination.IsMulticast || destination.IsBroadcast)
            return Refuse(DropCause.DestinationMulticast);
        if (Settings.Subnet.Contains(destination))
            return Refuse(DropCause.DestinationOnLink);
        if (!_context.Policy.Allows(destination))
            return Refuse(DropCause.DestinationForbidden);
        if (packet.Ip.TimeToLive > LastHop)
            return true;
        _context.Errors.Send(packet.Guest, packet.Ip.Packet, Icmpv4Type.TimeExceeded, 0, packet.Now);
        return Refuse(DropCause.TtlExceeded);
    }

    private void ReceiveUdp(in GuestPacket packet, bool toGateway)
    {
        if (!UdpView.TryParse(packet.Ip.Payload, out UdpView datagram))
        {
            Drop(DropCause.UdpMalformed);
            return;
        }
        if (!packet.ChecksumTrusted && !datagram.HasValidChecksum(packet.Ip.Source, packet.Ip.Destination))
        {
            Drop(DropCause.UdpChecksum);
            return;
        }
        if (_udpForwards.TryFromGuest(packet.Guest, datagram.SourcePort, packet.Ip.Destination, datagram.DestinationPort, datagram.Payload, packet.Now))
            return;
        if (!toGateway)
        {
            _udp.Receive(packet, datagram);
        }
        else if (datagram.DestinationPort == DnsProxy.Port)
        {
            _dns.Receive(packet, datagram);
        }
        else
        {
            Drop(DropCause.UdpPortUnserved);
            _context.Errors.Send(packet.Guest, packet.Ip.Packet, Icmpv4Type.DestinationUnreachable, Icmpv4Type.CodePortUnreachable, packet.Now);
        }
    }

    private void ReceiveIcmp(in GuestPacket packet, bool toGateway)
    {
        if (!Icmpv4View.TryParse(packet.Ip.Payload, out Icmpv4View message))
            Drop(DropCause.IcmpMalformed);
        else if (!message.HasValidChecksum)
            Drop(DropCause.IcmpChecksum);
        else if (message.Type != Icmpv4Type.EchoRequest || message.Code != 0)
            Drop(DropCause.IcmpTypeNotServed);
        else if (toGateway)
            AnswerEcho(packet, message);
        else
            _pings.Receive(packet, message.Identifier);
    }

    private void AnswerEcho(in GuestPacket packet, in Icmpv4View request)
    {
        Span<byte> reply = _context.Datagram.AsSpan(0, request.Message.Length);
        request.Data.CopyTo(reply[Icmpv4View.HeaderLength..]);
        Icmpv4View.Write(reply, Icmpv4Type.EchoReply, 0, request.Rest);
        _context.Sender.SendPayload(packet.Guest, Settings.Address, IpProtocol.Icmp, reply);
    }

    private void Drop(DropCause cause) => _context.Drops.Count(cause);

    private bool Refuse(DropCause cause)
    {
        Drop(cause);
        return false;
    }
}
