using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Sockets;
using VNetMesh.Nat.Tcp;
using VNetMesh.Nat.Timing;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Flows;

/// <summary>
/// A guest's TCP connection and the host socket behind it. <see cref="TcpConnection"/> is the guest's side; this class joins
/// the two: see the table in <see cref="Gateway"/>. Every entry from outside ends in <see cref="Settle"/>, which brings the
/// socket's watch and the timer in line with what both sides want now.
/// </summary>
internal sealed class TcpFlow : Flow, ITcpUser, ITcpOutput, IReadyHandler, ITimerOwner, INeighbourWaiter
{
    /// <summary>RFC 5382, REQ-5: not less than 2 h 4 min.</summary>
    public const long EstablishedIdle = (2 * 3600 + 4 * 60) * 1_000_000L;

    /// <summary>RFC 5382, REQ-5 asks for 4 min at least; a late answer to a request that ended its half may take longer.</summary>
    public const long HalfClosedIdle = 30 * 60 * 1_000_000L;

    /// <summary>Longer than any guest's own connect goes on.</summary>
    public const long DialTimeout = 150 * 1_000_000L;

    private const long BlockedRetry = 5_000;
    private const int ReadsPerTurn = 4;

    private readonly TcpFlowTable _table;
    private readonly LoopTimer _timer;
    private FileDescriptor? _socket;
    private EventLoop.Registration _registration;
    private bool _isDirty;
    private bool _isReadable; // in the table's list of flows to read
    private bool _isBlocked;
    private bool _isPrompt; // TCP_NODELAY is set
    private bool _hostReady; // the socket may have more to give
    private bool _hostEnding; // its end is there, behind what it has to give
    private bool _hostFull; // the socket takes no more now
    private bool _hostEnded; // the socket gave its end
    private bool _hostBroken; // the socket gave an error
    private int _retransmitsCounted;
    private bool _guestEnded;
    private string _reason = "";

    // While the host's connect is under way.
    private List<HostEndpoint> _targets = [];
    private byte[] _quote = [];
    private int _target = -1;

    public TcpFlow(GatewayContext gateway, TcpFlowTable table, Neighbour guest, in TcpFlowKey key, bool inbound, long now)
        : base(gateway, FlowProtocol.Tcp, guest, key.GuestPort, key.Remote, key.RemotePort, inbound ? FlowState.Handshake : FlowState.Dialing, inbound, now)
    {
        _table = table;
        Key = key;
        _timer = new LoopTimer(this);
        Connection = table.CreateConnection(this);
    }

    public TcpFlowKey Key { get; }

    public TcpConnection Connection { get; }

    public override uint Retransmits => (uint)Connection.Retransmits;

    public override long RoundTrip => Connection.SmoothedRttMicros;

    /// <summary>The guest's SYN: dials the targets in turn, and answers when one has answered.</summary>
    public void BeginOutbound(in GuestPacket packet, in TcpSegmentIn syn, List<HostEndpoint> targets)
    {
        // RFC 792: the header and 64 bits are quoted should the destination be unreachable.
        ReadOnlySpan<byte> original = packet.Ip.Packet;
        _quote = original[..Math.Min(original.Length, packet.Ip.HeaderLength + 8)].ToArray();
        _targets = targets;
        Connection.ReceiveSyn(syn, packet.Now);
        DialNext(NativeErrno.ECONNREFUSED, packet.Now);
        Settle(packet.Now);
    }

    /// <summary>A forward's client is connected: opens to the guest.</summary>
    public void BeginInbound(FileDescriptor client, long now)
    {
        TakeSocket(client);
        Host = HostSocket.LocalEndpoint(client.Number);
        if (!Gateway.Neighbours.TryResolve(Guest.Address, this, now))
            End("guest_unreachable");
        Settle(now);
    }

    public void OnResolved(Neighbour neighbour, long now)
    {
        if (State == FlowState.Closed)
            return;
        Connection.Open(now);
        Settle(now);
    }

    public void OnUnresolved(Neighbour neighbour, long now) => End("guest_unreachable");

    /// <summary>A segment of the guest's.</summary>
    public void Receive(in TcpSegmentIn segment, long now)
    {
        LastActivity = now;
        Connection.Receive(segment, now);
        if (_isDirty || State == FlowState.Closed)
            return;
        _isDirty = true;
        _table.MarkDirty(this);
    }

    /// <summary>The turn's segments are all in.</summary>
    public void PollNow(long now)
    {
        _isDirty = false;
        Connection.Poll(now);
        Settle(now);
    }

    /// <summary>The link has room again.</summary>
    public void OnRoom(long now)
    {
        _isBlocked = false;
        Connection.Poll(now);
        Settle(now);
    }

    // The watch is edge-triggered: what is ready is remembered until a call says that it is not any more.
    public void OnReady(uint events, long now)
    {
        if (State == FlowState.Dialing)
        {
            OnDialled((events & (SysEpoll.EPOLLERR | SysEpoll.EPOLLHUP)) == 0 ? 0 : HostSocket.TakeError(_socket!.Number), now);
            if (State is FlowState.Dialing or FlowState.Closed)
            {
                Settle(now);
                return;
            }
        }
        else if ((events & SysEpoll.EPOLLERR) != 0)
        {
            _hostBroken = true;
        }
        _hostReady |= (events & (SysEpoll.EPOLLIN | SysEpoll.EPOLLRDHUP | SysEpoll.EPOLLHUP)) != 0;
        _hostEnding |= (events & (SysEpoll.EPOLLRDHUP | SysEpoll.EPOLLHUP)) != 0;
        if ((events & SysEpoll.EPOLLOUT) != 0 && _hostFull && !_hostBroken)
        {
            _hostFull = false;
            Connection.Resume(now);
        }
        if (!_hostBroken)
            ReadHost(now);
        Settle(now);
    }

    /// <summary>The host's socket had more to give than one turn takes, or the guest has made room for it.</summary>
    public void ReadMore(long now)
    {
        _isReadable = false;
        ReadHost(now);
        Settle(now);
    }

    public void OnTimer(long now)
    {
        if (State == FlowState.Dialing)
        {
            if (now - Started >= DialTimeout)
                End("dial_timeout");
        }
        else if (now - LastActivity >= IdleLimit)
        {
            End("idle_timeout");
        }
        else
        {
            Connection.Poll(now);
        }
        Settle(now);
    }

    public override void End(string reason)
    {
        if (State == FlowState.Closed)
            return;
        _reason = reason;
        // Nothing was said to the guest yet, and silence stays silence; or there is nobody to say it to.
        if (reason == "dial_timeout" || Connection.State == TcpState.Closed)
            Connection.Drop();
        else
            Connection.Abort(EventLoop.Now);
    }

    // ---- The guest's side -------------------------------------------------------------------------------------

    public int Deliver(ReadOnlySpan<byte> payload)
    {
        if (_hostFull || _socket is null)
            return _hostBroken ? payload.Length : 0;
        // What the guest sends apart leaves apart; what it sends as a whole comes as a whole. The first is never held back in any case.
        if (!_isPrompt && BytesToRemote > 0)
        {
            _isPrompt = true;
            _ = SysSocket.SetOption(_socket.Number, SysSocket.IPPROTO_TCP, SysSocket.TCP_NODELAY, 1);
        }
        int sent = HostSocket.Send(_socket.Number, payload);
        if (sent < 0 && sent != -NativeErrno.EAGAIN)
        {
            _hostBroken = true; // Settle resets the guest; until then its data goes nowhere
            return payload.Length;
        }
        _hostFull = sent < payload.Length;
        sent = Math.Max(0, sent);
        if (BytesToRemote == 0 && sent > 0)
            Note(FlowMoment.FirstByteToRemote, EventLoop.Now);
        BytesToRemote += (ulong)sent;
        return sent;
    }

    public void OnEstablished()
    {
        Note(FlowMoment.Established, EventLoop.Now);
        SetState(FlowState.Established);
    }

    public void OnPeerFin()
    {
        _guestEnded = true;
        Note(FlowMoment.GuestFin, EventLoop.Now);
        NoteHalf("guest_fin");
        // Where the host had ended before, closing says the same.
        if (_socket is not null && !_hostEnded && SysSocket.shutdown(_socket.Number, SysSocket.SHUT_WR) != 0)
            _hostBroken = true;
    }

    // Settle begins to read the host again.
    public void OnSendSpace()
    {
    }

    public void OnClosed(TcpCloseReason reason)
    {
        CountProgress();
        if (_socket is not null && reason != TcpCloseReason.Normal)
            HostSocket.ResetOnClose(_socket.Number);
        CloseSocket();
        if (Story.Dial is { Ended: 0 })
            FinishDial(_reason == "dial_timeout" ? "timeout" : "given_up", EventLoop.Now);
        Gateway.Timers.Cancel(_timer);
        _table.Forget(this);
        Gateway.Flows.Remove(this, reason switch
        {
            TcpCloseReason.Normal or TcpCloseReason.Aborted or TcpCloseReason.Refused when _reason.Length > 0 => _reason,
            TcpCloseReason.ResetByPeer => "guest_reset",
            TcpCloseReason.RefusedByPeer => "guest_refused",
            TcpCloseReason.HandshakeTimeout => "handshake_timeout",
            TcpCloseReason.RetransmissionTimeout => "guest_timeout",
            _ => "closed",
        });
    }

    private void CountProgress()
    {
        BytesToGuest = (ulong)Connection.BytesSent;
        Gateway.Flows.Retransmits += Connection.Retransmits - _retransmitsCounted;
        _retransmitsCounted = Connection.Retransmits;
    }

    public bool Transmit(in TcpSegmentOut segment, ReadOnlySpan<byte> payload1, ReadOnlySpan<byte> payload2)
    {
        if (!TcpFrames.Send(Gateway.Sender, Guest.Mac, Key, segment, payload1, payload2))
            return false;
        if (segment.PayloadLength > 0 && BytesToGuest == 0)
        {
            BytesToGuest = (ulong)segment.PayloadLength; // Settle makes it exact
            Note(FlowMoment.FirstByteToGuest, EventLoop.Now);
        }
        return true;
    }

    // ---- The host's side --------------------------------------------------------------------------------------

    private bool WantsToRead => _hostReady && State is FlowState.Established or FlowState.HalfClosed && !_hostEnded && Connection.SendFree > 0;

    private long IdleLimit => State == FlowState.HalfClosed || State == FlowState.Closing ? HalfClosedIdle : EstablishedIdle;

    private void DialNext(int lastError, long now)
    {
        int errno = lastError;
        while (++_target < _targets.Count)
        {
            HostEndpoint target = _targets[_target];
            Story.Dial = new DialAttempt(target, now, Story.Dial);
            FileDescriptor? socket = HostSocket.Open(target.Family, SysSocket.SOCK_STREAM, 0, out errno);
            if (socket is null)
            {
                FinishDial(DialResult(errno), now);
                break;
            }
            errno = HostSocket.Connect(socket.Number, target);
            if (errno is 0 or NativeErrno.EINPROGRESS)
            {
                TakeSocket(socket);
                if (errno == 0)
                    OnDialled(0, now);
                return;
            }
            socket.Dispose();
            FinishDial(DialResult(errno), now);
        }
        TellDialFailed(errno, now);
    }

    private void OnDialled(int errno, long now)
    {
        FinishDial(DialResult(errno), now);
        if (errno == 0)
        {
            Host = HostSocket.LocalEndpoint(_socket!.Number);
            (_targets, _quote) = ([], []);
            LastActivity = now;
            SetState(FlowState.Handshake);
            Connection.Accept(now);
            return;
        }
        CloseSocket();
        DialNext(errno, now);
    }

    private void FinishDial(string result, long now)
    {
        DialAttempt dial = Story.Dial!;
        dial.End(result, now);
        Gateway.Shared.Metrics.Dialled(Gateway.Settings.NetworkId, result, now - dial.Began);
    }

    // What the host learned, the guest is told; what the host did not learn, it is not.
    private void TellDialFailed(int errno, long now)
    {
        _reason = "dial_" + DialResult(errno);
        if (errno is NativeErrno.ECONNREFUSED or NativeErrno.ECONNRESET)
        {
            Connection.Refuse(now);
            return;
        }
        if (DialResult(errno) == "failed")
            Gateway.Drops.Count(DropCause.SocketUnavailable);
        if (SocketErrors.UnreachableCode(errno) is { } code)
        {
            Gateway.Drops.Count(DropCause.DialUnreachable);
            Gateway.Errors.Send(Guest, _quote, Icmpv4Type.DestinationUnreachable, code, now);
        }
        Connection.Drop();
    }

    private static string DialResult(int errno) => errno switch
    {
        0 => "connected",
        NativeErrno.ECONNREFUSED or NativeErrno.ECONNRESET => "refused",
        NativeErrno.ETIMEDOUT => "timeout",
        NativeErrno.ENETUNREACH or NativeErrno.ENETDOWN => "net_unreachable",
        NativeErrno.EHOSTUNREACH or NativeErrno.EHOSTDOWN => "host_unreachable",
        NativeErrno.EACCES or NativeErrno.EPERM => "prohibited",
        _ => "failed",
    };

    private void ReadHost(long now)
    {
        for (int i = 0; i < ReadsPerTurn && WantsToRead; i++)
        {
            Span<byte> room = Connection.SendSpace();
            if (room.IsEmpty)
                break;
            int received = HostSocket.Receive(_socket!.Number, room);
            if (received <= 0)
            {
                OnHostEnd(received, now);
                break;
            }
            Note(FlowMoment.FirstByteFromRemote, now);
            LastActivity = now;
            Connection.Sent(received);
            Connection.Poll(now);
            // Empty now; what comes later is told. An end that is there already is not told twice.
            if (received < room.Length && !_hostEnding)
                _hostReady = false;
        }
    }

    private void OnHostEnd(int result, long now)
    {
        _hostReady = false;
        if (result == -NativeErrno.EAGAIN)
            return;
        if (result < 0)
        {
            _hostBroken = true;
            return;
        }
        _hostEnded = true;
        Note(FlowMoment.RemoteFin, now);
        NoteHalf("remote_fin");
        Connection.Shutdown(now);
    }

    private void NoteHalf(string who)
    {
        if (_reason.Length == 0)
            _reason = who;
        SetState(_guestEnded && _hostEnded ? FlowState.Closing : FlowState.HalfClosed);
    }

    private void TakeSocket(FileDescriptor socket)
    {
        _socket = socket;
        _registration = Gateway.Loop.Register(socket.Number, SysEpoll.EPOLLIN | SysEpoll.EPOLLOUT | SysEpoll.EPOLLRDHUP | SysEpoll.EPOLLET, this);
    }

    private void CloseSocket()
    {
        if (_socket is null)
            return;
        Gateway.Loop.Forget(_registration);
        _socket.Dispose();
        _socket = null;
    }

    // ---- Both -------------------------------------------------------------------------------------------------

    private void Settle(long now)
    {
        if (State == FlowState.Closed)
            return;
        if (_hostBroken)
        {
            End("remote_reset");
            return;
        }
        CountProgress();
        // Both have ended and all was handed over: the kernel brings the rest to its end without us.
        if (State == FlowState.Closing)
            CloseSocket();
        // All is said on the guest's side, too: what may still come of it needs no flow.
        if (Connection.TryRetire(now, out TcpRemains remains))
        {
            _table.Linger(Key, remains, now);
            return;
        }
        if (!_isReadable && WantsToRead)
        {
            _isReadable = true;
            _table.MarkReadable(this);
        }
        long deadline = State == FlowState.Dialing ? Started + DialTimeout : LastActivity + IdleLimit;
        long core = Connection.NextDeadline;
        if (Connection.IsBlocked)
        {
            core = Math.Max(core, now + BlockedRetry);
            if (!_isBlocked)
            {
                _isBlocked = true;
                _table.MarkBlocked(this);
            }
        }
        Gateway.Timers.Set(_timer, Math.Min(deadline, core));
    }
}
