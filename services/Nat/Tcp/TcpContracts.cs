using VNetMesh.Packets;

namespace VNetMesh.Nat.Tcp;

/// <summary>Connection states (RFC 9293, 3.3.2).</summary>
public enum TcpState
{
    Closed,
    Listen,
    SynSent,
    SynReceived,
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    Closing,
    LastAck,
    TimeWait,
}

/// <summary>Why a connection is no more.</summary>
public enum TcpCloseReason
{
    /// <summary>Both sides ended their halves, and all was acknowledged.</summary>
    Normal,

    /// <summary>The guest sent a RST.</summary>
    ResetByPeer,

    /// <summary>The guest refused our SYN.</summary>
    RefusedByPeer,

    /// <summary>The guest did not complete the handshake in time.</summary>
    HandshakeTimeout,

    /// <summary>The guest acknowledged nothing for the whole of the retransmissions.</summary>
    RetransmissionTimeout,

    /// <summary>Our own side aborted it.</summary>
    Aborted,

    /// <summary>Our own side refused the guest's SYN.</summary>
    Refused,
}

/// <summary>The flow that owns a connection. Called only from inside a call into the connection.</summary>
public interface ITcpUser
{
    /// <summary>In-order payload from the guest.</summary>
    /// <returns>Octets taken, 0 to the length. The rest stays in the connection's bounded buffer until <see cref="TcpConnection.Resume"/>.</returns>
    int Deliver(ReadOnlySpan<byte> payload);

    /// <summary>The handshake with the guest is complete.</summary>
    void OnEstablished();

    /// <summary>The guest ended its half, and all its data was delivered.</summary>
    void OnPeerFin();

    /// <summary>The send buffer, which was full, has room again.</summary>
    void OnSendSpace();

    /// <summary>Called exactly once; nothing is called after it.</summary>
    void OnClosed(TcpCloseReason reason);
}

/// <summary>Where segments go.</summary>
public interface ITcpOutput
{
    /// <summary>Sends one segment; its payload comes in two parts because the send buffer is circular.</summary>
    /// <returns>False: no room in the link now. The connection tries again at the next <see cref="TcpConnection.Poll"/>.</returns>
    bool Transmit(in TcpSegmentOut segment, ReadOnlySpan<byte> payload1, ReadOnlySpan<byte> payload2);
}

/// <summary>A segment from the guest, checked and parsed.</summary>
public readonly ref struct TcpSegmentIn
{
    public SequenceNumber Sequence { get; init; }
    public SequenceNumber Acknowledgment { get; init; }
    public TcpFlags Flags { get; init; }

    /// <summary>As on the wire: not scaled.</summary>
    public ushort Window { get; init; }
    public TcpHeaderOptions Options { get; init; }

    /// <summary>Up to 64 KiB: the kernel may hand over a segment that is still to be cut.</summary>
    public ReadOnlySpan<byte> Payload { get; init; }

    public bool Has(TcpFlags flag) => (Flags & flag) != 0;

    /// <summary>Octets of sequence space: payload, and one each for SYN and FIN (RFC 9293, 3.4).</summary>
    public int SequenceLength => Payload.Length + (Has(TcpFlags.Syn) ? 1 : 0) + (Has(TcpFlags.Fin) ? 1 : 0);

    public static TcpSegmentIn From(in TcpView view) => new()
    {
        Sequence = view.Sequence,
        Acknowledgment = view.Acknowledgment,
        Flags = view.Flags,
        Window = view.Window,
        Options = TcpHeaderOptions.Parse(view.Options),
        Payload = view.Payload,
    };
}

/// <summary>A segment to the guest: all that the header says but ports and checksum.</summary>
public struct TcpSegmentOut
{
    public SequenceNumber Sequence;
    public SequenceNumber Acknowledgment;
    public TcpFlags Flags;

    /// <summary>As it goes on the wire: scaled already.</summary>
    public ushort Window;
    public TcpHeaderOptions Options;

    /// <summary>Payload octets, both parts together.</summary>
    public int PayloadLength;

    /// <summary>
    /// Payload octets that one segment on the wire may have. Where PayloadLength is larger, the link or its far
    /// side cuts (gso_size).
    /// </summary>
    public int SegmentSize;
}

/// <summary>What is left of a connection in TIME-WAIT: enough to answer the guest, should it not have heard the last acknowledgement.</summary>
/// <param name="Next">Our next number.</param>
/// <param name="Expected">The guest's next number.</param>
public readonly record struct TcpRemains(SequenceNumber Next, SequenceNumber Expected, bool HasTimestamps, uint TimestampRecent)
{
    /// <summary>RFC 9293, 3.6.1; RFC 6191: a SYN that is newer than all that was.</summary>
    public bool MayBeReplacedBy(in TcpSegmentIn syn) =>
        syn.Has(TcpFlags.Syn) && !syn.Has(TcpFlags.Ack) && !syn.Has(TcpFlags.Rst)
        && (syn.Sequence.IsAfter(Expected) || (HasTimestamps && syn.Options.HasTimestamps && (int)(syn.Options.TimestampValue - TimestampRecent) > 0));

    public TcpSegmentOut Acknowledge(long now)
    {
        var segment = new TcpSegmentOut { Sequence = Next, Acknowledgment = Expected, Flags = TcpFlags.Ack, Window = ushort.MaxValue };
        if (HasTimestamps)
        {
            segment.Options.HasTimestamps = true;
            segment.Options.TimestampValue = TcpConnection.TimestampClock(now);
            segment.Options.TimestampEcho = TimestampRecent;
        }
        return segment;
    }
}

/// <summary>Settings of a connection. Times in microseconds.</summary>
public sealed record TcpOptions
{
    /// <summary>Largest IP packet on the link, 576 to 65535.</summary>
    public int Mtu { get; init; } = 1500;

    /// <summary>Bound on data received from the guest that the host socket has not taken yet; a power of two.</summary>
    public int ReceiveBuffer { get; init; } = 1024 * 1024;

    /// <summary>Bound on data from the host that the guest has not acknowledged yet; a power of two.</summary>
    public int SendBuffer { get; init; } = 1024 * 1024;

    /// <summary>Bounds of the retransmission time-out. RFC 6298 (2.4) asks for 1 s at least; on a link inside one host a lost segment need not cost that long.</summary>
    public long MinRto { get; init; } = 200_000;
    public long MaxRto { get; init; } = 60_000_000;

    /// <summary>First retransmission of SYN and SYN-ACK (RFC 6298, 2.1); doubled each time.</summary>
    public long InitialRto { get; init; } = 1_000_000;

    /// <summary>The handshake is given up this long after its first segment.</summary>
    public long HandshakeTimeout { get; init; } = 15_000_000;

    /// <summary>Retransmissions in a row without an answer before the connection is given up.</summary>
    public int MaxRetransmits { get; init; } = 10;

    public long DelayedAck { get; init; } = 40_000;

    /// <summary>2 MSL. Short: no segment lives for minutes on a link inside one host.</summary>
    public long TimeWait { get; init; } = 2_000_000;

    /// <summary>
    /// Largest payload handed to the link at once, before it is cut to segments; rounded down to whole segments, but to one at
    /// the least. 0: the link cuts nothing.
    /// </summary>
    public int MaxTransmit { get; init; } = 65535 - 60 - 60;

    /// <summary>Challenge ACKs a connection sends in a second at the most (RFC 5961, 7).</summary>
    public int MaxChallengesPerSecond { get; init; } = 10;
}
