using VNetMesh.Nat.Tcp;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tests.Tcp;

/// <summary>What a link does to segments. Probabilities 0 to 1, times in microseconds.</summary>
/// <param name="QueueLimit">Segments under way; beyond it the link has no room, as a full ring.</param>
/// <param name="Burst">Segments that are lost in a row.</param>
internal sealed record LinkBehaviour(double Loss = 0, double Duplicate = 0, double Reorder = 0, long Delay = 100, int QueueLimit = int.MaxValue, int Burst = 1)
{
    /// <summary>What the SYNs may offer.</summary>
    public bool Sack { get; init; } = true;
    public bool Timestamps { get; init; } = true;
    public bool Scale { get; init; } = true;

    /// <summary>Octets of buffers at each end, beside its smallest.</summary>
    public long Buffers { get; init; } = long.MaxValue;
}

/// <summary>
/// Two connections joined by a link that loses, repeats and reorders, in virtual time and from a fixed seed.
/// Every segment goes through its wire format, and is cut to the segment size as a real link would.
/// </summary>
internal sealed class SimulatedLink
{
    private readonly Random _random;
    private readonly LinkBehaviour _behaviour;
    private readonly PriorityQueue<(Endpoint To, byte[] Bytes), (long Time, long Order)> _queue = new();
    private long _order;
    private int _burst;

    public SimulatedLink(int seed, LinkBehaviour behaviour, TcpOptions? guest = null, TcpOptions? gateway = null)
    {
        _random = new Random(seed);
        _behaviour = behaviour;
        Guest = new Endpoint(this, guest ?? new TcpOptions(), (uint)_random.NextInt64(uint.MaxValue), behaviour.Buffers);
        Gateway = new Endpoint(this, gateway ?? new TcpOptions(), (uint)_random.NextInt64(uint.MaxValue), behaviour.Buffers);
        Guest.Far = Gateway;
        Gateway.Far = Guest;
    }

    public long Now { get; private set; } = 1_000_000;

    public Endpoint Guest { get; }

    public Endpoint Gateway { get; }

    public long Segments { get; private set; }

    /// <summary>Lets everything through until told otherwise; for tests that break the link in the middle.</summary>
    public bool Cut { get; set; }

    public void Connect()
    {
        Guest.Connection.Open(Now);
        Run(60_000_000, () => Guest.Established && Gateway.Established);
        Assert.True(Guest.Established && Gateway.Established, "the handshake did not complete");
    }

    /// <summary>Runs until the condition holds, nothing is left to happen, or the time is up.</summary>
    public void Run(long duration, Func<bool> until)
    {
        long end = Now + duration;
        while (Now < end && !until())
        {
            Guest.Pump(Now);
            Gateway.Pump(Now);
            long next = Math.Min(Guest.Connection.NextDeadline, Gateway.Connection.NextDeadline);
            if (_queue.TryPeek(out _, out (long Time, long Order) first))
                next = Math.Min(next, first.Time);
            if (Guest.IsHungry || Gateway.IsHungry || Guest.Connection.IsBlocked || Gateway.Connection.IsBlocked)
                next = Math.Min(next, Now + 10);
            if (next == long.MaxValue)
                return;
            Now = Math.Max(Now, Math.Min(next, end));
            while (_queue.TryPeek(out _, out first) && first.Time <= Now)
            {
                (Endpoint to, byte[] bytes) = _queue.Dequeue();
                to.Take(bytes, Now);
            }
            Guest.Connection.Poll(Now);
            Gateway.Connection.Poll(Now);
        }
    }

    private bool Send(Endpoint to, in TcpSegmentOut segment, ReadOnlySpan<byte> first, ReadOnlySpan<byte> second)
    {
        if (_queue.Count >= _behaviour.QueueLimit)
            return false;
        byte[] payload = [.. first, .. second];
        Assert.Equal(segment.PayloadLength, payload.Length);
        int at = 0;
        do
        {
            int length = Math.Min(segment.SegmentSize, payload.Length - at);
            bool last = at + length == payload.Length;
            TcpFlags flags = last ? segment.Flags : segment.Flags & ~(TcpFlags.Fin | TcpFlags.Psh);
            byte[] bytes = new byte[60 + length];
            int header = new TcpHeader(1, 2, segment.Sequence.Add(at), segment.Acknowledgment, flags, segment.Window).Write(bytes, Passed(segment));
            payload.AsSpan(at, length).CopyTo(bytes.AsSpan(header));
            Enqueue(to, bytes[..(header + length)]);
            at += length;
        }
        while (at < payload.Length);
        return true;
    }

    private TcpHeaderOptions Passed(in TcpSegmentOut segment)
    {
        TcpHeaderOptions options = segment.Options;
        if ((segment.Flags & TcpFlags.Syn) == 0)
            return options;
        options.SackPermitted &= _behaviour.Sack;
        options.HasTimestamps &= _behaviour.Timestamps;
        options.HasWindowScale &= _behaviour.Scale;
        return options;
    }

    private void Enqueue(Endpoint to, byte[] bytes)
    {
        Segments++;
        if (_burst > 0 || _random.NextDouble() < _behaviour.Loss)
            _burst = (_burst == 0 ? _behaviour.Burst : _burst) - 1;
        else if (!Cut)
            Carry(to, bytes);
    }

    private void Carry(Endpoint to, byte[] bytes)
    {
        int copies = _random.NextDouble() < _behaviour.Duplicate ? 2 : 1;
        for (int i = 0; i < copies; i++)
        {
            long delay = _behaviour.Delay;
            if (_random.NextDouble() < _behaviour.Reorder)
                delay += _random.NextInt64(_behaviour.Delay * 10);
            _queue.Enqueue((to, bytes), (Now + delay, _order++));
        }
    }

    /// <summary>One end: a connection, what it is to send, and what it received.</summary>
    internal sealed class Endpoint : ITcpUser, ITcpOutput
    {
        private readonly SimulatedLink _link;
        private byte[] _toSend = [];
        private int _sent;
        private bool _shutdownAfter;

        public Endpoint(SimulatedLink link, TcpOptions options, uint initialSequence, long poolLimit = long.MaxValue)
        {
            _link = link;
            Pool = new TcpBufferPool(limit: poolLimit);
            Connection = new TcpConnection(options, this, this, Pool, initialSequence);
        }

        public TcpBufferPool Pool { get; }
        public TcpConnection Connection { get; }
        public Endpoint Far { get; set; } = null!;
        public MemoryStream Received { get; } = new();
        public bool Established { get; private set; }
        public bool PeerEnded { get; private set; }
        public TcpCloseReason? Closed { get; private set; }

        /// <summary>Octets that the user takes at each offer; 0: it takes nothing for now.</summary>
        public int Appetite { get; set; } = int.MaxValue;

        public bool IsHungry => Appetite > 0 && Connection.ReceiveBuffered > 0;

        public void Queue(byte[] data, bool thenShutdown)
        {
            _toSend = data;
            _sent = 0;
            _shutdownAfter = thenShutdown;
        }

        public void Pump(long now)
        {
            while (Established && _sent < _toSend.Length)
            {
                Span<byte> room = Connection.SendSpace();
                int length = Math.Min(room.Length, _toSend.Length - _sent);
                if (length == 0)
                    break;
                _toSend.AsSpan(_sent, length).CopyTo(room);
                Connection.Sent(length);
                _sent += length;
            }
            if (Established && _shutdownAfter && _sent == _toSend.Length)
            {
                _shutdownAfter = false;
                Connection.Shutdown(now);
            }
            if (IsHungry)
                Connection.Resume(now);
            Connection.Poll(now);
        }

        public void Take(byte[] bytes, long now)
        {
            Assert.True(TcpView.TryParse(bytes, out TcpView view));
            TcpSegmentIn segment = TcpSegmentIn.From(view);
            if (Connection.State == TcpState.Closed && Closed is null && segment.Has(TcpFlags.Syn))
            {
                Connection.ReceiveSyn(segment, now);
                Connection.Accept(now);
                return;
            }
            Connection.Receive(segment, now);
        }

        public int Deliver(ReadOnlySpan<byte> payload)
        {
            int taken = Math.Min(payload.Length, Appetite);
            Received.Write(payload[..taken]);
            return taken;
        }

        public void OnEstablished() => Established = true;

        public void OnPeerFin() => PeerEnded = true;

        public void OnSendSpace()
        {
        }

        public void OnClosed(TcpCloseReason reason)
        {
            Assert.Null(Closed);
            Closed = reason;
        }

        public bool Transmit(in TcpSegmentOut segment, ReadOnlySpan<byte> payload1, ReadOnlySpan<byte> payload2) =>
            _link.Send(Far, segment, payload1, payload2);
    }
}
