using SharpPcap;
using SharpPcap.LibPcap;
using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.Packets;
using VNetMesh.Packets.Offload;

namespace VNetMesh.Agent.Uplinks;

// A NIC by libpcap, as a port of the switch. One thread carries frames both ways; it looks at addresses, and at what libpcap
// does not tell (CapturedFrame), and parses nothing else.
//
//   captured on the NIC     for a guest or a group: to the switch; the host's own frames are among what is captured, those for
//                           the host's address are not
//   from the switch         for the host, or a group: to the TAP, whose one program leads into the NIC's ingress: what libpcap
//                           sends goes to the wire and is never received by the host itself
//                           for anybody else, or a group: cut to the NIC's MTU and sent
//
// libpcap does not capture what it sends by the same handle; what came by the TAP it does, and GuestTable knows it again.

/// <summary>Carries frames between a NIC and the switch by libpcap.</summary>
internal sealed class PcapUplink : IPortHandler, IReadyHandler, ILoopWork, IDisposable
{
    private const int Batch = 64;
    private const int KernelBuffer = 32 * 1024 * 1024;
    private const long StatisticsPeriod = 1_000_000; // microseconds

    private readonly EventLoop _loop;
    private readonly LibPcapLiveDevice _nic;
    private readonly TapLink _toHost;
    private readonly GuestTable _guests;
    private readonly MacAddress _host;
    private readonly int _mtu;
    private readonly byte[] _frame = new byte[FrameRecord.MaxFrameLength];
    private readonly EventLoop.Registration _nicWatch;
    private IFrameLink? _link;
    private EventLoop.Registration _linkWatch;
    private bool _nicMayHoldMore, _linkMayHoldMore;
    private long _nextStatistics;
    private volatile string _fault = "";

    /// <param name="nic">Its name.</param>
    /// <param name="mac">The host's own address on it.</param>
    /// <param name="toHost">A queue of the TAP that leads to the host.</param>
    /// <exception cref="IOException">libpcap is missing, or refuses.</exception>
    public PcapUplink(EventLoop loop, string nic, MacAddress mac, int mtu, TapLink toHost)
    {
        (_loop, _host, _mtu, _toHost, _guests) = (loop, mac, mtu, toHost, new GuestTable(mac));
        _nic = Open(nic, mac);
        _loop.Add(this);
        _nicWatch = _loop.Register(Libpcap.SelectableDescriptor(_nic.Handle.DangerousGetHandle()), SysEpoll.EPOLLIN, this);
    }

    public UplinkDrops Drops { get; } = new();

    /// <summary>Why it carries nothing any more; empty while it does.</summary>
    public string Fault => _fault;

    public void OnLinkUp(IFrameLink link)
    {
        OnLinkDown("replaced");
        _link = link;
        _linkWatch = _loop.Register(link.Descriptor, SysEpoll.EPOLLIN, this);
        _linkMayHoldMore = true;
    }

    public void OnLinkDown(string reason)
    {
        if (_link is null)
            return;
        _loop.Unregister(_linkWatch);
        _link = null;
    }

    // Descriptors only wake the loop; OnTurn does the work.
    public void OnReady(uint events, long now) => _nicMayHoldMore = _linkMayHoldMore = true;

    public long OnTurn(long now)
    {
        if (_fault.Length > 0)
            return long.MaxValue;
        if (_nicMayHoldMore)
            _nicMayHoldMore = CaptureSome(now);
        if (_linkMayHoldMore)
            _linkMayHoldMore = TakeSome(now);
        _link?.Flush();
        if (_nicMayHoldMore || _linkMayHoldMore)
            return now;
        if (now >= _nextStatistics)
            TakeStatistics(now);
        return _nextStatistics;
    }

    public bool PrepareToSleep()
    {
        if (_link is null || _fault.Length > 0 || (!_linkMayHoldMore && _link.PrepareToSleep()))
            return true;
        _linkMayHoldMore = true;
        return false;
    }

    /// <summary>After the loop has ended.</summary>
    public void Dispose()
    {
        _nic.Dispose();
        _toHost.Dispose();
    }

    /// <summary>Ends the watch, on the loop's thread.</summary>
    public void Stop()
    {
        _loop.Unregister(_nicWatch);
        _loop.Remove(this);
        OnLinkDown("stopped");
        _fault = "stopped";
    }

    private static LibPcapLiveDevice Open(string nic, MacAddress mac)
    {
        try
        {
            LibPcapLiveDevice device = LibPcapLiveDeviceList.New().FirstOrDefault(found => found.Name == nic) ?? throw new IOException($"libpcap knows no interface {nic}");
            device.Open(new DeviceConfiguration { Mode = DeviceModes.Promiscuous, Immediate = true, Snaplen = FrameRecord.MaxFrameLength, BufferSize = KernelBuffer, ReadTimeout = 1 });
            device.NonBlockingMode = true;
            device.Filter = $"not ether dst {mac}";
            return device;
        }
        catch (Exception exception) when (exception is PcapException or DllNotFoundException or TypeInitializationException)
        {
            throw new IOException($"libpcap cannot be used on {nic}: {(exception.InnerException ?? exception).Message}; install the package libpcap0.8", exception);
        }
    }

    /// <returns>Whether the batch was full.</returns>
    private bool CaptureSome(long now)
    {
        for (int i = 0; i < Batch; i++)
        {
            Libpcap.ReadResult status = Libpcap.TryRead(_nic.Handle.DangerousGetHandle(), out ReadOnlySpan<byte> captured);
            if (status == Libpcap.ReadResult.Nothing)
                return false;
            if (status == Libpcap.ReadResult.Failed)
            {
                Fail("libpcap cannot read from the NIC any more: it went away, or down");
                return false;
            }
            Captured(captured, now);
        }
        return true;
    }

    private void Captured(ReadOnlySpan<byte> captured, long now)
    {
        if (!EthernetView.TryParse(captured, out EthernetView ethernet) || captured.Length > _frame.Length)
            return;
        switch (_guests.Judge(ethernet.Destination, ethernet.Source, now))
        {
            case CaptureVerdict.NotOurs:
                return;
            case CaptureVerdict.Reflected:
                Drops.Count(UplinkDropCause.Reflected);
                return;
        }
        Span<byte> frame = _frame.AsSpan(0, captured.Length);
        captured.CopyTo(frame);
        if (!CapturedFrame.Describe(frame, _mtu, out VirtioNetHeader header))
            Drops.Count(UplinkDropCause.SegmentSizeUnknown);
        else if (_link is not { } link || !TrySend(link, header, frame))
            Drops.Count(UplinkDropCause.QueueFull);
    }

    private static bool TrySend(IFrameLink link, in VirtioNetHeader header, ReadOnlySpan<byte> frame)
    {
        int length = VirtioNetHeader.Length + frame.Length;
        Span<byte> room = link.Reserve(length);
        if (room.IsEmpty)
            return false;
        header.Write(room);
        frame.CopyTo(room[VirtioNetHeader.Length..]);
        return link.Commit(length, default) == SendStatus.Sent;
    }

    /// <returns>Whether the batch was full.</returns>
    private bool TakeSome(long now)
    {
        for (int i = 0; i < Batch; i++)
        {
            if (_link is not { } link || link.TryReceive(out ReadOnlySpan<byte> record, out _) != ReceiveStatus.Received)
                return false;
            Taken(record, now);
        }
        return true;
    }

    private void Taken(ReadOnlySpan<byte> record, long now)
    {
        if (record.Length < FrameRecord.MinLength || !EthernetView.TryParse(record[VirtioNetHeader.Length..], out EthernetView ethernet))
        {
            Drops.Count(UplinkDropCause.RecordMalformed);
            return;
        }
        MacAddress destination = ethernet.Destination;
        if (!_guests.LearnFromSwitch(ethernet.Source, now))
        {
            Drops.Count(UplinkDropCause.HostAddressSpoofed);
            return;
        }
        if (destination != _host)
            SendToNic(record);
        if ((destination == _host || destination.IsMulticast) && _toHost.TrySend(record, default) != SendStatus.Sent)
            Drops.Count(UplinkDropCause.HostRefused);
    }

    private void SendToNic(ReadOnlySpan<byte> record)
    {
        if (Segmenter.Begin(record[VirtioNetHeader.Length..], VirtioNetHeader.Read(record), out SegmentCursor cursor) != OffloadFault.None)
        {
            Drops.Count(UplinkDropCause.RecordMalformed);
            return;
        }
        // One VLAN tag may stand in front of a packet of the full MTU.
        if (cursor.LongestLength > EthernetView.HeaderLength + 4 + _mtu)
        {
            Drops.Count(UplinkDropCause.FrameTooLong);
            return;
        }
        while (cursor.NextLength > 0)
        {
            int length = cursor.WriteNext(_frame);
            try
            {
                _nic.SendPacket(_frame.AsSpan(0, length));
            }
            catch (PcapException)
            {
                Drops.Count(UplinkDropCause.NicRefused);
                return;
            }
        }
    }

    private void TakeStatistics(long now)
    {
        _nextStatistics = now + StatisticsPeriod;
        try
        {
            Drops.Set(UplinkDropCause.CaptureOverflow, _nic.Statistics.DroppedPackets);
        }
        catch (PcapException exception)
        {
            Fail(exception.Message);
        }
    }

    private void Fail(string reason)
    {
        _loop.Unregister(_nicWatch);
        _fault = reason;
    }
}
