using VNetMesh.Nat.Tcp;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tests.Tcp;

/// <summary>
/// One connection, a guest played by the test, and virtual time. Sequence numbers in scripts are relative, as packet
/// dumps show them: 0 is the SYN of either side, 1 the first octet. Poll follows each segment, as the gateway does it.
/// </summary>
internal sealed class Script : ITcpUser, ITcpOutput
{
    public const uint Gateway = 0xFFFF_FF00; // both initial numbers wrap within the first 256 octets
    public const uint Guest = 0xFFFF_FFF0;

    private readonly Queue<Segment> _sent = new();

    public Script(TcpOptions? options = null)
    {
        Options = options ?? new TcpOptions();
        Connection = new TcpConnection(Options, this, this, Pool, Gateway);
    }

    public TcpOptions Options { get; }
    public TcpBufferPool Pool { get; } = new();
    public TcpConnection Connection { get; }
    public long Now { get; set; } = 1_000_000;
    public MemoryStream Received { get; } = new();
    public List<string> Events { get; } = [];

    /// <summary>Octets that the host socket takes until it is full.</summary>
    public int Appetite { get; set; } = int.MaxValue;

    /// <summary>The guest's window where a script says no other; as on the wire.</summary>
    public int GuestWindow { get; set; } = 512;

    /// <summary>The link takes segments.</summary>
    public bool HasRoom { get; set; } = true;

    /// <summary>Called from within Deliver.</summary>
    public Action? WhileDelivering { get; set; }

    /// <summary>Called from within OnEstablished.</summary>
    public Action? WhenEstablished { get; set; }

    public TcpState State => Connection.State;

    public SequenceNumber GatewaySequence(int relative) => new SequenceNumber(Gateway).Add(relative);

    public SequenceNumber GuestSequence(int relative) => new SequenceNumber(Guest).Add(relative);

    // ---- What the guest does ----------------------------------------------------------------------------------

    public void Syn(int mss = 1460, int? scale = 7, bool sack = true, uint? timestamp = null, int window = 64240, int sequence = 0)
    {
        Connection.ReceiveSyn(new TcpSegmentIn
        {
            Sequence = GuestSequence(sequence),
            Flags = TcpFlags.Syn,
            Window = (ushort)window,
            Options = SynOptions(mss, scale, sack, timestamp),
        }, Now);
    }

    public static TcpHeaderOptions SynOptions(int mss = 1460, int? scale = 7, bool sack = true, uint? timestamp = null, uint echo = 0) => new()
    {
        MaximumSegmentSize = (ushort)mss,
        HasWindowScale = scale is not null,
        WindowScale = (byte)(scale ?? 0),
        SackPermitted = sack,
        HasTimestamps = timestamp is not null,
        TimestampValue = timestamp ?? 0,
        TimestampEcho = echo,
    };

    public void Send(TcpFlags flags, int sequence, int acknowledgment = 0, int length = 0, int? window = null, TcpHeaderOptions options = default, bool poll = true)
    {
        byte[] payload = length == 0 ? [] : new byte[length];
        for (int i = 0; i < length; i++)
            payload[i] = Octet(sequence + i);
        Connection.Receive(new TcpSegmentIn
        {
            Sequence = GuestSequence(sequence),
            Acknowledgment = GatewaySequence(acknowledgment),
            Flags = flags,
            Window = (ushort)(window ?? GuestWindow),
            Options = options,
            Payload = payload,
        }, Now);
        if (poll)
            Connection.Poll(Now);
    }

    public void Ack(int sequence, int acknowledgment, int? window = null, params (int Start, int End)[] sack)
    {
        TcpHeaderOptions options = default;
        foreach ((int start, int end) in sack)
            options.Sack[options.SackCount++] = new SackBlock(GatewaySequence(start), GatewaySequence(end));
        Send(TcpFlags.Ack, sequence, acknowledgment, window: window, options: options);
    }

    public void Data(int sequence, int length, int acknowledgment = 1, bool poll = true) =>
        Send(TcpFlags.Ack | TcpFlags.Psh, sequence, acknowledgment, length, poll: poll);

    public void Fin(int sequence, int acknowledgment) => Send(TcpFlags.Fin | TcpFlags.Ack, sequence, acknowledgment);

    public void Reset(int sequence) => Send(TcpFlags.Rst, sequence);

    /// <summary>The octet at a place in either direction's stream.</summary>
    public static byte Octet(int sequence) => (byte)((sequence * 31) + (sequence >> 8));

    // ---- What the host does -----------------------------------------------------------------------------------

    public void Write(int length)
    {
        while (length > 0)
        {
            Span<byte> room = Connection.SendSpace();
            Assert.False(room.IsEmpty, "no room to send");
            int part = Math.Min(room.Length, length);
            room[..part].Clear();
            Connection.Sent(part);
            length -= part;
        }
        Connection.Poll(Now);
    }

    public void Shutdown() => Connection.Shutdown(Now);

    /// <summary>Lets time pass, polling at every deadline.</summary>
    public void Wait(long micros)
    {
        long end = Now + micros;
        for (int polls = 0; Connection.NextDeadline <= end; polls++)
        {
            Assert.True(polls < 100_000, "deadlines that never end");
            Now = Math.Max(Now, Connection.NextDeadline);
            Connection.Poll(Now);
        }
        Now = end;
    }

    // ---- What the gateway is to say -----------------------------------------------------------------------------

    public Segment Expect(TcpFlags flags, int sequence, int? acknowledgment = null, int? length = null)
    {
        Assert.True(_sent.Count > 0, $"expected {flags} {sequence}, but nothing was sent");
        Segment segment = _sent.Dequeue();
        Assert.Equal(flags, segment.Flags & ~TcpFlags.Psh);
        Assert.Equal(sequence, segment.Sequence);
        if (acknowledgment is not null)
            Assert.Equal(acknowledgment, segment.Acknowledgment);
        if (length is not null)
            Assert.Equal(length, segment.Length);
        return segment;
    }

    public Segment ExpectAck(int sequence, int acknowledgment) => Expect(TcpFlags.Ack, sequence, acknowledgment, 0);

    public Segment ExpectData(int sequence, int length) => Expect(TcpFlags.Ack, sequence, length: length);

    public void ExpectNothing() => Assert.True(_sent.Count == 0, _sent.Count > 0 ? $"unexpected {_sent.Peek()}" : "");

    public void ExpectEvents(params string[] events)
    {
        Assert.Equal(events, Events);
        Events.Clear();
    }

    public List<Segment> TakeAll()
    {
        List<Segment> all = [.. _sent];
        _sent.Clear();
        return all;
    }

    // ---- Short cuts to a state ----------------------------------------------------------------------------------

    public static Script InSynReceived(TcpOptions? options = null, int mss = 1460, bool sack = true, uint? timestamp = null, int? scale = 7)
    {
        var script = new Script(options);
        script.Syn(mss, scale, sack, timestamp);
        script.Connection.Accept(script.Now);
        script.Expect(TcpFlags.Syn | TcpFlags.Ack, 0, 1);
        return script;
    }

    public static Script InEstablished(TcpOptions? options = null, int mss = 1460, bool sack = true, uint? timestamp = null, int window = 512, int? scale = 7)
    {
        Script script = InSynReceived(options, mss, sack, timestamp, scale);
        script.GuestWindow = window;
        TcpHeaderOptions given = timestamp is null ? default : new TcpHeaderOptions { HasTimestamps = true, TimestampValue = timestamp.Value, TimestampEcho = 1001 };
        script.Send(TcpFlags.Ack, 1, 1, window: window, options: given);
        Assert.Equal(TcpState.Established, script.State);
        script.ExpectEvents("established");
        script.ExpectNothing();
        return script;
    }

    public static Script InCloseWait(TcpOptions? options = null)
    {
        Script script = InEstablished(options);
        script.Fin(1, 1);
        script.ExpectAck(1, 2);
        script.ExpectEvents("fin");
        Assert.Equal(TcpState.CloseWait, script.State);
        return script;
    }

    public static Script InFinWait1(TcpOptions? options = null)
    {
        Script script = InEstablished(options);
        script.Shutdown();
        script.Expect(TcpFlags.Fin | TcpFlags.Ack, 1, 1, 0);
        Assert.Equal(TcpState.FinWait1, script.State);
        return script;
    }

    public static Script InFinWait2(TcpOptions? options = null)
    {
        Script script = InFinWait1(options);
        script.Ack(1, 2);
        Assert.Equal(TcpState.FinWait2, script.State);
        return script;
    }

    public static Script InTimeWait(TcpOptions? options = null)
    {
        Script script = InFinWait2(options);
        script.Fin(1, 2);
        script.ExpectAck(2, 2);
        script.ExpectEvents("fin");
        Assert.Equal(TcpState.TimeWait, script.State);
        return script;
    }

    public static Script InClosing(TcpOptions? options = null)
    {
        Script script = InFinWait1(options);
        script.Fin(1, 1);
        script.ExpectAck(2, 2);
        script.ExpectEvents("fin");
        Assert.Equal(TcpState.Closing, script.State);
        return script;
    }

    public static Script InLastAck(TcpOptions? options = null)
    {
        Script script = InCloseWait(options);
        script.Shutdown();
        script.Expect(TcpFlags.Fin | TcpFlags.Ack, 1, 2, 0);
        Assert.Equal(TcpState.LastAck, script.State);
        return script;
    }

    public static Script InSynSent(TcpOptions? options = null)
    {
        var script = new Script(options);
        script.Connection.Open(script.Now);
        script.Expect(TcpFlags.Syn, 0, length: 0);
        Assert.Equal(TcpState.SynSent, script.State);
        return script;
    }

    public static Script In(TcpState state, TcpOptions? options = null) => state switch
    {
        TcpState.SynSent => InSynSent(options),
        TcpState.SynReceived => InSynReceived(options),
        TcpState.Established => InEstablished(options),
        TcpState.FinWait1 => InFinWait1(options),
        TcpState.FinWait2 => InFinWait2(options),
        TcpState.CloseWait => InCloseWait(options),
        TcpState.Closing => InClosing(options),
        TcpState.LastAck => InLastAck(options),
        TcpState.TimeWait => InTimeWait(options),
        _ => throw new ArgumentOutOfRangeException(nameof(state)),
    };

    // ---- The connection's two sides -----------------------------------------------------------------------------

    int ITcpUser.Deliver(ReadOnlySpan<byte> payload)
    {
        WhileDelivering?.Invoke();
        int taken = Math.Min(payload.Length, Appetite);
        Appetite -= Appetite == int.MaxValue ? 0 : taken;
        Received.Write(payload[..taken]);
        return taken;
    }

    void ITcpUser.OnEstablished()
    {
        Events.Add("established");
        WhenEstablished?.Invoke();
    }

    void ITcpUser.OnPeerFin() => Events.Add("fin");

    void ITcpUser.OnSendSpace() => Events.Add("space");

    void ITcpUser.OnClosed(TcpCloseReason reason) => Events.Add("closed " + reason);

    bool ITcpOutput.Transmit(in TcpSegmentOut segment, ReadOnlySpan<byte> payload1, ReadOnlySpan<byte> payload2)
    {
        if (!HasRoom)
            return false;
        Assert.Equal(segment.PayloadLength, payload1.Length + payload2.Length);
        Assert.True(segment.SegmentSize > 0);
        _sent.Enqueue(new Segment(segment.Flags, segment.Sequence.Since(GatewaySequence(0)), segment.Acknowledgment.Since(GuestSequence(0)),
            segment.PayloadLength, segment.Window, segment.SegmentSize, segment.Options));
        return true;
    }

    /// <summary>A segment that left, with relative numbers.</summary>
    internal sealed record Segment(TcpFlags Flags, int Sequence, int Acknowledgment, int Length, int Window, int SegmentSize, TcpHeaderOptions Options)
    {
        public override string ToString() => $"{Flags} {Sequence}:{Sequence + Length} ack {Acknowledgment} win {Window}";
    }
}
