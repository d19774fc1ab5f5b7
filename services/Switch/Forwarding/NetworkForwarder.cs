using VNetMesh.Links;
using VNetMesh.Packets;
using VNetMesh.Packets.Offload;
using VNetMesh.Switch.Capturing;
using VNetMesh.Switch.Observability;
using VNetMesh.Switch.Registry;

namespace VNetMesh.Switch.Forwarding;

/// <summary>
/// The data path of one network.
///
/// Theory of operation
///
/// Goals: a frame goes from its link to the others in one turn of one thread, without locks, queues or
/// allocation; whatever a guest or a peer sends, only that frame or that link suffers; nothing is dropped
/// without a name.
///
/// Everything here is owned by the network's loop (docs/adr/0001). The control side reaches it by posting to the
/// loop, and reads counters, which are plain numbers with a single writer.
///
/// A record is a virtio_net_hdr and an Ethernet frame. What happens to it:
///
///   link readable ─ Serve: up to 64 records or 256 frames sent, then the next port's turn; what is left
///      │                   over is deferred to the end of the turn, so that no port starves another
///      ├ too short, too long, header inconsistent, source a group or zero,
///      │   meant for the nearest bridge alone ............................. drop at the port it came from
///      ├ learn source → port (known: renew; elsewhere: move; bound reached: count "mac_table_full")
///      ├ destination is a group, or not known ............................. to every other port
///      ├ destination is on this very port ................................. drop "hairpin"
///      ├ both ports are guests' and the network isolates .................. drop "isolated"
///      └ to the destination's port:
///           link takes the record as it is ................................ written whole, from where it was read
///           link lacks an offload ......................................... cut and completed by Segmenter, into the link's room
///           no link / full / down / refused / closed ...................... drop at the port it should have gone to
///
///   somebody captures ─ FrameTap hears of each step and copies the frame at its end (nobody does: a null check)
///
///   after the batch ─ Flush: each link that was written to or read from rings its peer's doorbell, once
///
/// A link ends when its far side closes or breaks the rules. It is let go at once: its addresses are
/// forgotten, so that frames to them are flooded until they are seen elsewhere, and the control side is told,
/// which marks the port DOWN. Connecting a new link lets go of the old one in the same turn.
///
/// Limits: one network uses one core at most. A record lies in memory that a ring's peer can still write to while
/// it is forwarded: the header and the addresses are therefore read once, before they are checked; Segmenter does the
/// same with what it goes by; and whoever gets a record checks its header again, as the kernel does.
/// </summary>
public sealed class NetworkForwarder : ILoopWork
{
    internal const int BatchSize = 64;

    /// <summary>Frames sent in one port's turn, after which it is the next one's: a broadcast to 500 ports is as much work as 500 frames.</summary>
    internal const int MaxSentPerTurn = 256;

    /// <summary>Ethernet header and one VLAN tag: what a frame may have beyond the MTU.</summary>
    private const int FrameOverhead = 18;

    /// <summary>01:80:C2:00:00:0x without its last four bits.</summary>
    private const ulong LinkLocalGroup = 0x0180_C200_0000;

    private readonly EventLoop? _loop;
    private readonly ILinkObserver _observer;
    private readonly FlowTracer _tracer;
    private readonly ForwardingSampler? _sampler;
    private readonly List<ForwardingPort> _dirty = [];
    private List<ForwardingPort> _deferred = [];
    private List<ForwardingPort> _serving = [];
    private ForwardingPort?[] _byIndex = new ForwardingPort?[16];
    private ForwardingPort[] _ports = [];
    private ForwardingSettings _settings;
    private MacTable _macs;
    private FrameTap? _tap;
    private bool _isClosed;
    private long _now;
    private int _sent;
    private long _nextSweep = long.MaxValue;

    /// <param name="loop">Where links are watched; null in tests, which serve ports themselves.</param>
    /// <param name="sampler">Measures some of the batches; null: none.</param>
    internal NetworkForwarder(string name, ForwardingSettings settings, EventLoop? loop, ILinkObserver observer, ForwardingSampler? sampler = null)
    {
        _sampler = sampler;
        Name = name;
        _settings = settings;
        _loop = loop;
        _observer = observer;
        _tracer = new FlowTracer(name);
        _macs = new MacTable(settings.MaxMacs, settings.MacAgeing);
    }

    /// <summary>"networks/vmnet8"</summary>
    public string Name { get; }

    public TrafficCounters Counters { get; } = new();

    /// <summary>Addresses held now; may be read from any thread.</summary>
    public int MacCount => _macs.Count;

    /// <summary>Addresses that two stations claim; watched on bridged networks, where fixed addresses meet those of the LAN.</summary>
    public AddressWatch Addresses { get; } = new();

    /// <summary>Makes a port, from any thread; <see cref="AddPort"/> brings it into the data path.</summary>
    public ForwardingPort CreatePort(string name, PortRole role) => new(this, name, role);

    public void AddPort(ForwardingPort port)
    {
        int index = Array.IndexOf(_byIndex, null);
        if (index < 0)
        {
            index = _byIndex.Length;
            Array.Resize(ref _byIndex, index * 2);
        }
        port.Index = index;
        _byIndex[index] = port;
        _ports = [.. _ports, port];
    }

    public void RemovePort(ForwardingPort port)
    {
        if (port.IsRemoved)
            return;
        Release(port, "the port was removed");
        port.IsRemoved = true;
        _byIndex[port.Index] = null;
        _ports = [.. _ports.Where(other => other != port)];
    }

    /// <summary>Connects a link to a port and lets go of what was connected before.</summary>
    /// <param name="connection">A number that names this connection to the observer.</param>
    /// <param name="released">Called once, when the link has been let go.</param>
    /// <exception cref="Native.SyscallException">The link's descriptor cannot be watched; the link is let go.</exception>
    public void Connect(ForwardingPort port, IFrameLink link, long connection, Action<string>? released)
    {
        if (port.IsRemoved)
        {
            link.Dispose();
            released?.Invoke("the port was removed");
            return;
        }
        Release(port, "another link was connected");
        port.Link = link;
        port.Connection = connection;
        port.Released = released;
        try
        {
            if (_loop is not null)
                port.Registration = _loop.Register(link.Descriptor, Native.SysEpoll.EPOLLIN, port);
        }
        catch
        {
            port.Registration = default;
            Release(port, "the link cannot be watched");
            throw;
        }
        // What came before the watch began rings no doorbell.
        Defer(port);
    }

    /// <summary>Ends one connection of a port, unless another has taken its place.</summary>
    public void Disconnect(ForwardingPort port, long connection, string reason)
    {
        if (port.Link is not null && port.Connection == connection)
            Lose(port, reason);
    }

    public void SetRole(ForwardingPort port, PortRole role) => port.Role = role;

    /// <summary>Takes over new settings. What was learned is kept, as far as the new bounds allow.</summary>
    public void Apply(ForwardingSettings settings, long now)
    {
        ForwardingSettings before = _settings;
        _settings = settings;
        _macs.Ageing = settings.MacAgeing;
        if (before.MaxMacs == settings.MaxMacs)
            return;
        var table = new MacTable(settings.MaxMacs, settings.MacAgeing);
        foreach ((MacAddress address, int port, long lastSeen) in _macs.Entries(now))
        {
            if (_byIndex[port] is { } learnedOn)
                table.Learn(address, port, BoundOf(learnedOn), lastSeen);
        }
        _macs = table;
    }

    /// <summary>Lets go of all ports.</summary>
    public void Close()
    {
        foreach (ForwardingPort port in _ports)
            RemovePort(port);
        _isClosed = true;
        _tap?.Close();
        _tap = null;
    }

    public void AddCapture(CaptureSession session)
    {
        if (_isClosed)
            session.End(CaptureEnd.NetworkRemoved);
        else
            (_tap ??= new FrameTap()).Add(session);
    }

    public void RemoveCapture(CaptureSession session)
    {
        _tap?.Remove(session);
        if (_tap is { IsEmpty: true })
            _tap = null;
        session.End(CaptureEnd.Stopped);
    }

    public List<(MacAddress Address, string Port, long Age)> ListMacs(long now) =>
        [.. _macs.Entries(now).Where(entry => _byIndex[entry.Port] is not null).Select(entry => (entry.Address, _byIndex[entry.Port]!.Name, Math.Max(0, now - entry.LastSeen)))];

    /// <summary>Takes a batch from a port's link and forwards it.</summary>
    public void Serve(ForwardingPort port, long now)
    {
        _now = now;
        _sent = 0;
        bool isMeasured = _sampler is not null && _sampler.Begin(port.Link, now);
        int received;
        for (received = 0; port.Link is { } link; received++)
        {
            if (received == BatchSize || _sent >= MaxSentPerTurn)
            {
                Defer(port);
                break;
            }
            ReceiveStatus status = link.TryReceive(out ReadOnlySpan<byte> record, out TraceContext trace);
            if (status == ReceiveStatus.Received && _tap is null)
                Forward(port, record, trace);
            else if (status == ReceiveStatus.Received)
                ForwardCaptured(port, record, trace);
            else if (status == ReceiveStatus.Broken)
                Break(port);
            else if (status == ReceiveStatus.Closed)
                Lose(port, "its device or peer is gone");
            else if (link.PrepareToSleep())
                break;
        }
        MarkForFlush(port);
        isMeasured &= received > 0;
        if (isMeasured)
            _sampler!.Fill(_dirty, port);
        Flush();
        if (isMeasured)
            _sampler!.End(now, EventLoop.Now);
    }

    public long OnTurn(long now)
    {
        (_serving, _deferred) = (_deferred, _serving);
        // Taken one by one: should one fail unexpectedly, the others' turn comes the next time around.
        while (_serving.Count > 0)
        {
            ForwardingPort port = _serving[^1];
            _serving.RemoveAt(_serving.Count - 1);
            port.IsDeferred = false;
            Serve(port, now);
        }
        return SweepWhenDue(now);
    }

    public bool PrepareToSleep() => _deferred.Count == 0 && _serving.Count == 0;

    private void ForwardCaptured(ForwardingPort ingress, ReadOnlySpan<byte> record, in TraceContext trace)
    {
        _tap!.Begin();
        Forward(ingress, record, trace);
        // The record is there until the next is taken from its link.
        _tap.End(ingress, record);
    }

    private void Forward(ForwardingPort ingress, ReadOnlySpan<byte> record, in TraceContext trace)
    {
        int frameLength = Math.Max(0, record.Length - VirtioNetHeader.Length);
        ingress.Counters.CountReceived(frameLength);
        Counters.CountReceived(frameLength);
        if (record.Length < FrameRecord.MinLength)
        {
            Drop(ingress, DropCause.FrameTooShort);
            return;
        }
        VirtioNetHeader header = VirtioNetHeader.Read(record);
        MacAddress destination = MacAddress.Read(record[VirtioNetHeader.Length..]);
        MacAddress source = MacAddress.Read(record[(VirtioNetHeader.Length + MacAddress.Length)..]);
        if (FindFault(header, frameLength, destination, source) is { } fault)
        {
            Drop(ingress, fault);
            return;
        }
        if (_macs.Learn(source, ingress.Index, BoundOf(ingress), _now) == LearnResult.Full)
            Drop(ingress, DropCause.MacTableFull);
        if (_settings.WatchesAddresses && record[VirtioNetHeader.Length + 12] == 0x08 && record[VirtioNetHeader.Length + 13] == 0x06
            && Addresses.Observe(record[VirtioNetHeader.Length..], ingress.Name, _now) is { } conflict)
            _observer.OnAddressConflict(Name, conflict);
        int index = destination.IsMulticast ? -1 : _macs.Find(destination, _now);
        if (index < 0)
        {
            Flood(ingress, record, header, TraceOf(ingress, null, record, trace));
            return;
        }
        ForwardingPort egress = _byIndex[index]!;
        if (egress == ingress)
            Drop(ingress, DropCause.Hairpin);
        else if (AreIsolated(ingress, egress))
            Drop(ingress, DropCause.Isolated);
        else
            Send(egress, record, header, TraceOf(ingress, egress, record, trace));
    }

    private TraceContext TraceOf(ForwardingPort ingress, ForwardingPort? egress, ReadOnlySpan<byte> record, in TraceContext trace) =>
        trace.IsPresent || egress is { Role: not PortRole.Service } || !FlowTracer.IsOn ? trace : _tracer.Begin(ingress, egress, record[VirtioNetHeader.Length..], _now);

    private DropCause? FindFault(in VirtioNetHeader header, int frameLength, MacAddress destination, MacAddress source)
    {
        if (!header.IsConsistentWith(frameLength))
            return DropCause.HeaderInconsistent;
        if (header.GsoKind == VirtioNetHeader.GsoNone ? frameLength > _settings.Mtu + FrameOverhead : frameLength > FrameRecord.MaxFrameLength)
            return DropCause.FrameTooLong;
        if (header.GsoKind != VirtioNetHeader.GsoNone && header.GsoSize + SmallestHeaders(header.GsoKind) > _settings.Mtu)
            return DropCause.SegmentTooLong;
        if (source.IsMulticast)
            return DropCause.SourceMulticast;
        if (source.IsZero)
            return DropCause.SourceZero;
        return (destination.Value & ~0xFUL) == LinkLocalGroup ? DropCause.LinkLocalMulticast : null;
    }

    /// <summary>Octets of IP and transport header that each segment has at least.</summary>
    private static int SmallestHeaders(byte gsoKind) => gsoKind switch
    {
        VirtioNetHeader.GsoTcpv4 => 20 + 20,
        VirtioNetHeader.GsoTcpv6 => 40 + 20,
        _ => 20 + 8,
    };

    private void Flood(ForwardingPort ingress, ReadOnlySpan<byte> record, in VirtioNetHeader header, in TraceContext trace)
    {
        _tap?.OnFlooded();
        foreach (ForwardingPort egress in _ports)
        {
            if (egress != ingress && egress.Link is not null && !AreIsolated(ingress, egress))
                Send(egress, record, header, trace);
        }
    }

    private void Send(ForwardingPort egress, ReadOnlySpan<byte> record, in VirtioNetHeader header, in TraceContext trace)
    {
        _sent++;
        if (egress.Link is not { } link)
            Drop(egress, DropCause.LinkDown);
        else if ((NeededBy(header) & ~link.Offloads) == 0)
            SendAsItIs(egress, link, record, trace);
        else
            SendInSoftware(egress, record, header, trace);
        _tap?.OnOffered(egress);
    }

    private void SendAsItIs(ForwardingPort egress, IFrameLink link, ReadOnlySpan<byte> record, in TraceContext trace)
    {
        SendStatus status = link.TrySend(record, trace);
        if (status != SendStatus.Sent)
        {
            FailToSend(egress, link, status);
            return;
        }
        CountSent(egress, record.Length - VirtioNetHeader.Length);
    }

    /// <summary>Cuts and completes what the link does not take, straight into the link's own room.</summary>
    private void SendInSoftware(ForwardingPort egress, ReadOnlySpan<byte> record, in VirtioNetHeader header, in TraceContext trace)
    {
        if (Segmenter.Begin(record[VirtioNetHeader.Length..], header, out SegmentCursor cursor) != OffloadFault.None)
        {
            Drop(egress, DropCause.OffloadImpossible);
            return;
        }
        if (cursor.LongestLength > _settings.Mtu + FrameOverhead)
        {
            Drop(egress, DropCause.SegmentTooLong);
            return;
        }
        while (egress.Link is { } link && cursor.NextLength > 0)
        {
            int length = cursor.NextLength;
            Span<byte> room = link.Reserve(VirtioNetHeader.Length + length);
            if (!room.IsEmpty)
            {
                new VirtioNetHeader { BufferCount = 1 }.Write(room);
                cursor.WriteNext(room[VirtioNetHeader.Length..]);
            }
            SendStatus status = room.IsEmpty ? SendStatus.Full : link.Commit(VirtioNetHeader.Length + length, trace);
            if (status != SendStatus.Sent)
            {
                // What is left of the record is lost with it, and counts once, as the record would have.
                FailToSend(egress, link, status);
                return;
            }
            CountSent(egress, length);
        }
    }

    private static LinkOffloads NeededBy(in VirtioNetHeader header) => header.GsoKind switch
    {
        VirtioNetHeader.GsoNone => header.NeedsChecksum ? LinkOffloads.Checksum : LinkOffloads.None,
        VirtioNetHeader.GsoTcpv4 => LinkOffloads.Checksum | LinkOffloads.Tso4,
        VirtioNetHeader.GsoTcpv6 => LinkOffloads.Checksum | LinkOffloads.Tso6,
        _ => LinkOffloads.Checksum | LinkOffloads.Uso,
    };

    private void FailToSend(ForwardingPort egress, IFrameLink link, SendStatus status)
    {
        if (link.Fault is not null)
        {
            Break(egress);
            return;
        }
        Drop(egress, status switch
        {
            SendStatus.Full => link is TapLink ? DropCause.DeviceFull : DropCause.QueueFull,
            SendStatus.Refused when link is DatagramSocketLink => DropCause.LinkDown,
            SendStatus.Refused => link is TapLink { SendError: not Native.NativeErrno.EIO } ? DropCause.DeviceRefused : DropCause.DeviceDown,
            _ => DropCause.LinkClosed,
        });
        if (status == SendStatus.Closed)
            Lose(egress, "its device or peer is gone");
    }

    private bool AreIsolated(ForwardingPort one, ForwardingPort other) =>
        _settings.IsolatePorts && one.Role == PortRole.Guest && other.Role == PortRole.Guest;

    private int BoundOf(ForwardingPort port) =>
        port.Role is PortRole.Host or PortRole.Uplink ? _settings.MaxMacs : Math.Min(_settings.MaxMacsPerPort, _settings.MaxMacs);

    private void CountSent(ForwardingPort egress, int frameLength)
    {
        egress.Counters.CountSent(frameLength);
        Counters.CountSent(frameLength);
        MarkForFlush(egress);
    }

    private void Drop(ForwardingPort port, DropCause cause)
    {
        port.Counters.CountDrop(cause);
        Counters.CountDrop(cause);
        _tap?.OnDropped(port, cause);
    }

    private void MarkForFlush(ForwardingPort port)
    {
        if (port.NeedsFlush)
            return;
        port.NeedsFlush = true;
        _dirty.Add(port);
    }

    private void Flush()
    {
        foreach (ForwardingPort port in _dirty)
        {
            port.NeedsFlush = false;
            port.Link?.Flush();
        }
        _dirty.Clear();
    }

    private void Defer(ForwardingPort port)
    {
        if (port.IsDeferred)
            return;
        port.IsDeferred = true;
        _deferred.Add(port);
    }

    private void Break(ForwardingPort port)
    {
        bool isSocket = port.Link is StreamSocketLink;
        Drop(port, isSocket ? DropCause.SocketFault : DropCause.RingFault);
        Lose(port, $"its peer broke the {(isSocket ? "socket" : "ring")}'s rules ({port.Link?.Fault ?? "unknown"})");
    }

    private void Lose(ForwardingPort port, string reason)
    {
        long connection = port.Connection;
        Release(port, reason);
        _observer.OnLinkLost(port, connection, reason);
    }

    private void Release(ForwardingPort port, string reason)
    {
        if (port.Link is not { } link)
            return;
        port.Link = null;
        _loop?.Unregister(port.Registration);
        link.Dispose();
        _macs.RemovePort(port.Index);
        Action<string>? released = port.Released;
        port.Released = null;
        released?.Invoke(reason);
    }

    private long SweepWhenDue(long now)
    {
        if (_macs.Count == 0)
            return _nextSweep = long.MaxValue;
        long interval = Math.Max(1_000_000, _settings.MacAgeing / 8);
        if (_nextSweep == long.MaxValue || _nextSweep - now > interval)
            _nextSweep = now + interval;
        if (_nextSweep > now)
            return _nextSweep;
        _macs.Sweep(now);
        return _nextSweep = now + interval;
    }
}
