using System.Numerics;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tcp;

/// <summary>
/// The guest's side of a proxied connection: a TCP endpoint without I/O and without a clock.
///
/// Goals: it is a real TCP (RFC 9293) with window scaling and timestamps (RFC 7323), selective
/// acknowledgements (RFC 2018, 6675), retransmission by RFC 6298, congestion control by RFC 5681 and the blind-attack
/// defences of RFC 5961. It takes and gives segments of up to 64 KiB. It allocates nothing per segment,
/// and an idle connection holds no buffers.
///
/// Limits: no urgent mode (the pointer is ignored, the data is ordinary data), no ECN, no Fast Open, no keep-alives of
/// its own (the owner ends what is idle), and no smaller congestion window after idleness: the link is inside one host.
///
/// How it goes: the flow that owns the connection calls in with a segment, room made or time passed, and gets
/// answers through <see cref="ITcpUser"/> and <see cref="ITcpOutput"/> from within the call.
/// <code>
///   guest's SYN → ReceiveSyn  (SYN-RECEIVED, silent)   → host connected → Accept → SYN-ACK → … → OnEstablished
///                                                      → host refused   → Refuse → RST
///   a forward   → Open        (SYN-SENT)               → SYN-ACK → OnEstablished
///   segment     → Receive     (data → ITcpUser.Deliver; acknowledgements are only noted)
///   host's data → SendSpace, fill, Sent;  host's end → Shutdown;  host's reset → Abort
///   after each batch of segments, and at NextDeadline → Poll (data, acknowledgements, timers)
/// </code>
/// Acknowledgements and data leave in Poll, so that a batch of segments costs one acknowledgement; what shows a loss leaves
/// at once. A connection that is over on the wire stays (LAST-ACK, TIME-WAIT) until the user has taken all that the guest sent.
/// </summary>
public sealed partial class TcpConnection
{
    private readonly TcpOptions _options;
    private readonly ITcpUser _user;
    private readonly ITcpOutput _output;
    private readonly SequenceNumber _initial;
    private TcpReceiver _receiver;
    private TcpSender _sender;
    private TcpRoundTrip _roundTrip;
    private SequenceNumber _peerInitial;
    private uint _timestampRecent;
    private long _timestampRecentAt;
    private SequenceNumber _acknowledgedToPeer;
    private byte _sendShift;
    private byte _receiveShift;
    private bool _accepted;
    private bool _passive;
    private bool _timestamps;
    private bool _sack;
    private bool _peerFinTold;
    private bool _closedTold;
    private bool _shutdownWanted;
    private bool _isOver;
    private int _segment = 536;

    /// <param name="options">Settings, shared by many connections.</param>
    /// <param name="user">The flow that owns this connection.</param>
    /// <param name="output">Where segments go.</param>
    /// <param name="pool">Where buffers come from.</param>
    /// <param name="initialSequence">ISS: unpredictable to the guest (RFC 6528).</param>
    public TcpConnection(TcpOptions options, ITcpUser user, ITcpOutput output, TcpBufferPool pool, uint initialSequence)
    {
        if (!BitOperations.IsPow2(options.ReceiveBuffer) || !BitOperations.IsPow2(options.SendBuffer))
            throw new ArgumentException("buffers are powers of two", nameof(options));
        _options = options;
        _user = user;
        _output = output;
        _initial = new SequenceNumber(initialSequence);
        _receiver = new TcpReceiver(options, pool);
        _sender = new TcpSender(options, pool);
        _roundTrip = new TcpRoundTrip(options);
        _sender.Start(_initial);
        _receiveShift = OfferedShift;
    }

    public TcpState State { get; private set; }

    /// <summary>Payload octets of one segment on the wire: the smaller of both sides' limits, less options.</summary>
    public int SegmentSize => _segment;

    /// <summary>Octets of the guest that the user has taken.</summary>
    public long BytesDelivered { get; private set; }

    /// <summary>Payload octets sent to the guest, without those sent again.</summary>
    public long BytesSent { get; private set; }

    /// <summary>Segments sent again.</summary>
    public int Retransmits { get; private set; }

    /// <summary>SRTT (RFC 6298); 0: no sample yet.</summary>
    public long SmoothedRttMicros => _roundTrip.Smoothed;

    /// <summary>Duplicate acknowledgements from the guest.</summary>
    public int DuplicateAcks => _sender.DuplicateAcks;

    /// <summary>Segments that came out of order.</summary>
    public int OutOfOrderSegments { get; private set; }

    /// <summary>Segments that were dropped for their numbers: old, outside of the window, or with an impossible acknowledgement.</summary>
    public int UnacceptableSegments { get; private set; }

    /// <summary>Challenge ACKs sent (RFC 5961).</summary>
    public int ChallengeAcks { get; private set; }

    /// <summary>Octets in order that the user has not taken yet.</summary>
    public int ReceiveBuffered => _receiver.Buffered;

    /// <summary>Octets that the guest has not acknowledged yet.</summary>
    public int SendQueued => _sender.Queued;

    /// <summary>Room for data from the host, octets.</summary>
    public int SendFree => CanSend ? _sender.Free : 0;

    /// <summary>The guest has ended its half.</summary>
    public bool PeerEnded => _receiver.FinReceived;

    /// <summary>Octets of the pool's buffers that it holds now.</summary>
    public int HeldOctets => _receiver.HeldOctets + _sender.HeldOctets;

    /// <summary>For tests of invariants: SND.UNA, SND.NXT, the highest number sent, and the window that the guest was told.</summary>
    internal (SequenceNumber Unacknowledged, SequenceNumber Next, SequenceNumber Highest, int AdvertisedWindow) Variables =>
        (_sender.Unacknowledged, _sender.Next, _sender.Highest, _receiver.AdvertisedWindow);

    private bool CanSend => State is TcpState.Established or TcpState.CloseWait && !_sender.FinQueued;

    private bool IsSynchronized => State >= TcpState.Established;

    /// <summary>Takes the guest's SYN. Nothing is answered until <see cref="Accept"/> or <see cref="Refuse"/>.</summary>
    public void ReceiveSyn(in TcpSegmentIn syn, long now)
    {
        SetState(TcpState.Listen);
        _passive = true;
        TakeSyn(syn, now);
        SetState(TcpState.SynReceived);
        _handshakeDeadline = long.MaxValue;
    }

    /// <summary>The host is connected: answer the SYN.</summary>
    public void Accept(long now)
    {
        if (State != TcpState.SynReceived || _accepted)
            return;
        _accepted = true;
        BeginHandshake(now);
    }

    /// <summary>The host refused: reset (RFC 9293, 3.10.7.1: sequence 0, and an acknowledgement of the SYN).</summary>
    public void Refuse(long now)
    {
        if (State != TcpState.SynReceived || _accepted)
            return;
        SendReset(new SequenceNumber(0), _receiver.Next, withAck: true);
        Close(TcpCloseReason.Refused);
    }

    /// <summary>Nothing is to be said to the guest: the connection just ends.</summary>
    public void Drop() => Close(TcpCloseReason.Aborted);

    /// <summary>Connects to the guest.</summary>
    public void Open(long now)
    {
        SetState(TcpState.SynSent);
        _timestamps = _sack = true;
        BeginHandshake(now);
    }

    /// <summary>
    /// Room for data from the host, contiguous; empty: none now, and <see cref="ITcpUser.OnSendSpace"/> will tell. Valid until
    /// the next call into the connection.
    /// </summary>
    public Span<byte> SendSpace() => CanSend ? _sender.Space() : default;

    /// <summary>The first octets of <see cref="SendSpace"/> were filled (0: none). They leave at the next <see cref="Poll"/>.</summary>
    /// <exception cref="ArgumentOutOfRangeException">Negative, or more than SendSpace had room for.</exception>
    public void Sent(int octets)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(octets);
        if (CanSend)
            _sender.Append(octets);
    }

    /// <summary>The host has ended its half: FIN after all that is queued.</summary>
    public void Shutdown(long now)
    {
        // RFC 9293, 3.10.4: before ESTABLISHED it waits until then.
        _shutdownWanted |= State is TcpState.SynSent or TcpState.SynReceived;
        if (!CanSend)
            return;
        _sender.QueueFin();
        SetState(State == TcpState.Established ? TcpState.FinWait1 : TcpState.LastAck);
        Poll(now);
    }

    /// <summary>The host's side is broken: reset the guest's (RFC 9293, 3.10.5).</summary>
    public void Abort(long now)
    {
        if (State == TcpState.Closed)
            return;
        if (State == TcpState.SynReceived && !_accepted)
            SendReset(new SequenceNumber(0), _receiver.Next, withAck: true);
        else if (State is not (TcpState.SynSent or TcpState.TimeWait or TcpState.Listen))
            SendReset(_sender.Idle, _receiver.Next, withAck: true);
        Close(TcpCloseReason.Aborted);
    }

    /// <summary>The user can take data again.</summary>
    public void Resume(long now)
    {
        if (!IsSynchronized)
            return;
        int before = _receiver.Buffered;
        bool all = _receiver.Deliver(_user);
        BytesDelivered += before - _receiver.Buffered;
        if (State == TcpState.Closed)
            return;
        if (all)
            TellPeerFin();
        if (_isOver)
            Finish();
        if (State == TcpState.Closed)
            return;
        if (before > 0 && _receiver.WorthAnUpdate(_segment, MaxWindow))
            _ackNow = true;
        Poll(now);
    }

    /// <summary>
    /// True when a SYN for the same addresses may begin a new connection in this one's place (RFC 9293, 3.6.1;
    /// RFC 6191): this one is in TIME-WAIT, has nothing left for its user, and the SYN is newer. The owner then calls
    /// <see cref="Drop"/> here and gives the SYN to a connection of its own.
    /// </summary>
    public bool MayBeReplacedBy(in TcpSegmentIn syn) => State == TcpState.TimeWait && _receiver.Buffered == 0 && Remains.MayBeReplacedBy(syn);

    /// <summary>
    /// Ends a connection in TIME-WAIT of which the user has taken all and the guest was told all, before its time: the owner
    /// answers for it from now on.
    /// </summary>
    public bool TryRetire(long now, out TcpRemains remains)
    {
        remains = default;
        if (State != TcpState.TimeWait || _isOver || _ackNow || _blocked || _receiver.Buffered > 0 || _timeWaitDeadline <= now)
            return false;
        remains = Remains;
        Close(TcpCloseReason.Normal);
        return true;
    }

    private TcpRemains Remains => new(_sender.Idle, _receiver.Next, _timestamps, _timestampRecent);

    // The smallest that lets the whole buffer be told.
    private byte OfferedShift => (byte)Math.Clamp(32 - BitOperations.LeadingZeroCount((uint)_options.ReceiveBuffer >> 16), 0, TcpHeaderOptions.MaxWindowScale);

    private int MaxWindow => _receiveShift == 0 ? ushort.MaxValue : ushort.MaxValue << _receiveShift;

    private void TakeSyn(in TcpSegmentIn syn, long now)
    {
        TcpHeaderOptions options = syn.Options;
        _peerInitial = syn.Sequence;
        _timestamps = options.HasTimestamps;
        _timestampRecent = options.TimestampValue;
        _timestampRecentAt = now;
        _sack = options.SackPermitted;
        // RFC 7323, 2.2: both sides or none.
        _sendShift = options.HasWindowScale ? options.WindowScale : (byte)0;
        _receiveShift = options.HasWindowScale ? OfferedShift : (byte)0;
        // RFC 9293, 3.7.1: 536 when the peer says nothing; a value that would make segments absurdly small is raised (RFC 9293 sets no
        // minimum, but a hostile 1 would cost a frame an octet).
        int peer = options.MaximumSegmentSize == 0 ? 536 : Math.Max(options.MaximumSegmentSize, (ushort)88);
        _segment = Math.Min(peer, _options.Mtu - 40) - (_timestamps ? 12 : 0);
        _receiver.Start(syn.Sequence.Add(1));
        _sender.Establish(_segment, _sack);
        // The window of a SYN is never scaled (RFC 7323, 2.2).
        _sender.SetWindow(syn, syn.Window);
    }

    private void BecomeEstablished(in TcpSegmentIn segment, long now)
    {
        _handshakeDeadline = _handshakeGiveUp = long.MaxValue;
        if (_handshakeSends == 1)
            _roundTrip.Sample(now - _handshakeSentAt);
        _sender.SetWindow(segment, segment.Has(TcpFlags.Syn) ? segment.Window : segment.Window << _sendShift);
        SetState(TcpState.Established);
        _user.OnEstablished();
        if (!_shutdownWanted || !CanSend)
            return;
        _sender.QueueFin();
        SetState(TcpState.FinWait1);
    }

    private void TellPeerFin()
    {
        if (!_receiver.FinReceived || _peerFinTold || _receiver.Buffered > 0)
            return;
        _peerFinTold = true;
        _user.OnPeerFin();
    }

    private void EnterTimeWait(long now)
    {
        SetState(TcpState.TimeWait);
        _timeWaitDeadline = now + _options.TimeWait;
        _retransmitDeadline = _persistDeadline = long.MaxValue;
    }

    /// <summary>
    /// All is said and acknowledged on both sides. What the user has not taken yet is its own all the same: the end waits for it,
    /// without a timer.
    /// </summary>
    private void Finish()
    {
        _isOver = true;
        _retransmitDeadline = _persistDeadline = _timeWaitDeadline = long.MaxValue;
        if (_receiver.Buffered == 0)
            Close(TcpCloseReason.Normal);
    }

    private void Close(TcpCloseReason reason)
    {
        if (_closedTold)
            return;
        _closedTold = true;
        SetState(TcpState.Closed);
        _receiver.Close();
        _sender.Close();
        _retransmitDeadline = _persistDeadline = _delayedAckDeadline = _handshakeDeadline = _handshakeGiveUp = _timeWaitDeadline = long.MaxValue;
        _user.OnClosed(reason);
    }

    // The only place that changes the state.
    private void SetState(TcpState state) => State = state;
}
