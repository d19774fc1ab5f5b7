using VNetMesh.Packets;

namespace VNetMesh.Nat.Tcp;

/// <content>Segments that leave, and the timers that make them leave.</content>
public sealed partial class TcpConnection
{
    private long _retransmitDeadline = long.MaxValue;
    private long _persistDeadline = long.MaxValue;
    private long _delayedAckDeadline = long.MaxValue;
    private long _handshakeDeadline = long.MaxValue;
    private long _handshakeGiveUp = long.MaxValue;
    private long _timeWaitDeadline = long.MaxValue;
    private long _handshakeSentAt;
    private int _handshakeSends;
    private int _retransmitsInRow;
    private int _probes; // of this closed window
    private int _probesUnanswered;
    private uint _timeoutClock;
    private bool _ackNow;
    private bool _blocked;

    /// <summary>When <see cref="Poll"/> must be called at the latest, microseconds; long.MaxValue: not by time.</summary>
    public long NextDeadline => Math.Min(
        Math.Min(Math.Min(_retransmitDeadline, _persistDeadline), Math.Min(_delayedAckDeadline, _handshakeDeadline)),
        Math.Min(_handshakeGiveUp, _timeWaitDeadline));

    /// <summary>The link had no room for a segment: call <see cref="Poll"/> when it has.</summary>
    public bool IsBlocked => _blocked;

    /// <summary>Runs what is due, then sends what may be sent, then acknowledges what is to be acknowledged.</summary>
    public void Poll(long now)
    {
        _blocked = false;
        if (State == TcpState.Closed || !RunTimers(now))
            return;
        if (IsSynchronized && State != TcpState.TimeWait)
            SendData(now, force: false);
        if (_delayedAckDeadline <= now)
        {
            _ackNow = true;
            _delayedAckDeadline = long.MaxValue; // also when the link is blocked: a deadline in the past would be one for ever
        }
        if (_ackNow && !_blocked && IsSynchronized)
            SendAcknowledgment(now);
        ArmPersist(now);
        _sender.ReleaseWhenEmpty();
    }

    private bool RunTimers(long now)
    {
        if (_timeWaitDeadline <= now)
        {
            Finish();
            return State != TcpState.Closed;
        }
        if (_handshakeGiveUp <= now)
        {
            // The half-open connection of a guest that never answers is reset, should it still listen.
            SendReset(_sender.Idle, _receiver.Next, withAck: _passive);
            Close(TcpCloseReason.HandshakeTimeout);
            return false;
        }
        if (_handshakeDeadline <= now)
            SendHandshake(now);
        if (_retransmitDeadline <= now && !OnRetransmissionTimeout(now))
            return false;
        return _persistDeadline > now || OnPersistTimeout(now);
    }

    // Never scaled (RFC 7323, 2.2).
    private int SynWindow => Math.Min(_options.ReceiveBuffer, ushort.MaxValue);

    private void BeginHandshake(long now)
    {
        _handshakeGiveUp = now + _options.HandshakeTimeout;
        SendHandshake(now);
    }

    // SYN or SYN-ACK; again after 1, 2, 4 … times the first time-out.
    private void SendHandshake(long now)
    {
        bool answer = State == TcpState.SynReceived;
        var segment = new TcpSegmentOut
        {
            Sequence = _initial,
            Acknowledgment = answer ? _receiver.Next : default,
            Flags = answer ? TcpFlags.Syn | TcpFlags.Ack : TcpFlags.Syn,
            Window = (ushort)SynWindow,
            SegmentSize = _segment,
        };
        segment.Options.MaximumSegmentSize = (ushort)(_options.Mtu - 40);
        segment.Options.SackPermitted = _sack;
        segment.Options.HasWindowScale = !answer || _receiveShift > 0 || _sendShift > 0;
        segment.Options.WindowScale = _receiveShift;
        AddTimestamps(ref segment, now);
        if (!_output.Transmit(segment, default, default))
        {
            _blocked = true;
            _handshakeDeadline = now + 10_000;
            return;
        }
        if (answer)
            _receiver.TakeWindow(_segment, SynWindow);
        if (_handshakeSends++ == 0)
            _handshakeSentAt = now;
        else
            Retransmits++;
        _sender.OnSynSent();
        _acknowledgedToPeer = _receiver.Next;
        _timeoutClock = TimestampClock(now);
        _handshakeDeadline = now + (_options.InitialRto << Math.Min(_handshakeSends - 1, 6));
    }

    private bool OnRetransmissionTimeout(long now)
    {
        _retransmitDeadline = long.MaxValue;
        if (!_sender.IsOutstanding)
            return true;
        if (++_retransmitsInRow > _options.MaxRetransmits)
        {
            SendReset(_sender.Idle, _receiver.Next, withAck: true);
            Close(TcpCloseReason.RetransmissionTimeout);
            return false;
        }
        _timeoutClock = TimestampClock(now);
        _sender.OnTimeout(first: _retransmitsInRow == 1);
        _roundTrip.BackOff();
        return true;
    }

    private void SendData(long now, bool force)
    {
        while (_sender.TryNext(out SendChunk chunk, force))
        {
            _sender.Payload(chunk, out ReadOnlySpan<byte> first, out ReadOnlySpan<byte> second);
            TcpSegmentOut segment = Acknowledging(now);
            segment.Sequence = chunk.Sequence;
            segment.PayloadLength = chunk.Length;
            // PSH where the buffer is empty after it (RFC 9293, 3.9.1.2).
            if (chunk.Length > 0 && chunk.Sequence.Add(chunk.Length).Since(_sender.Unacknowledged) >= _sender.Queued)
                segment.Flags |= TcpFlags.Psh;
            if (chunk.Fin)
                segment.Flags |= TcpFlags.Fin;
            if (!_output.Transmit(segment, first, second))
            {
                _blocked = true;
                return;
            }
            if (chunk.IsRetransmission)
                Retransmits++;
            BytesSent += _sender.OnTransmitted(chunk, now);
            _probes = 0;
            OnAcknowledgmentSent();
            if (_retransmitDeadline == long.MaxValue)
                _retransmitDeadline = now + _roundTrip.Timeout;
            force = false;
        }
    }

    // RFC 9293, 3.8.6.1: a closed window must be probed, at intervals that grow, for ever as long as the guest answers. The same goes
    // for a window that closed over data that was under way: when its time-out comes, it may not be sent, either.
    private void ArmPersist(long now)
    {
        if (!_sender.IsStuck || _blocked || _retransmitDeadline != long.MaxValue || State is not (TcpState.Established or TcpState.CloseWait or TcpState.FinWait1 or TcpState.LastAck or TcpState.Closing))
            _persistDeadline = long.MaxValue;
        else if (_persistDeadline == long.MaxValue)
            _persistDeadline = now + Math.Min(_roundTrip.Timeout << Math.Min(_probes, 16), _options.MaxRto);
    }

    private bool OnPersistTimeout(long now)
    {
        _persistDeadline = long.MaxValue;
        _probes++;
        if (++_probesUnanswered > _options.MaxRetransmits)
        {
            SendReset(_sender.Idle, _receiver.Next, withAck: true);
            Close(TcpCloseReason.RetransmissionTimeout);
            return false;
        }
        if (_sender.Window > 0)
        {
            SendData(now, force: true);
            return true;
        }
        // A segment outside of the guest's window, which it must answer with where its window is now.
        TcpSegmentOut probe = Acknowledging(now);
        probe.Sequence = _sender.Unacknowledged.Add(-1);
        _output.Transmit(probe, default, default);
        return true;
    }

    private void SendAcknowledgment(long now)
    {
        TcpSegmentOut segment = Acknowledging(now);
        segment.Sequence = _sender.Idle;
        if (_sack)
            segment.Options.SackCount = _receiver.WriteSack(ref segment.Options.Sack, _timestamps ? 3 : 4);
        if (_output.Transmit(segment, default, default))
            OnAcknowledgmentSent();
        else
            _blocked = _ackNow = true;
    }

    private TcpSegmentOut Acknowledging(long now)
    {
        int window = _receiver.TakeWindow(_segment, MaxWindow);
        var segment = new TcpSegmentOut
        {
            Acknowledgment = _receiver.Next,
            Flags = TcpFlags.Ack,
            Window = (ushort)Math.Min(window >> _receiveShift, ushort.MaxValue),
            SegmentSize = _segment,
        };
        AddTimestamps(ref segment, now);
        return segment;
    }

    private void OnAcknowledgmentSent()
    {
        _acknowledgedToPeer = _receiver.Next;
        _ackNow = false;
        _delayedAckDeadline = long.MaxValue;
    }

    private void SendReset(SequenceNumber sequence, SequenceNumber acknowledgment, bool withAck)
    {
        var segment = new TcpSegmentOut
        {
            Sequence = sequence,
            Acknowledgment = acknowledgment,
            Flags = withAck ? TcpFlags.Rst | TcpFlags.Ack : TcpFlags.Rst,
            SegmentSize = _segment,
        };
        _output.Transmit(segment, default, default);
    }

    private void AddTimestamps(ref TcpSegmentOut segment, long now)
    {
        if (!_timestamps)
            return;
        segment.Options.HasTimestamps = true;
        segment.Options.TimestampValue = TimestampClock(now);
        segment.Options.TimestampEcho = _timestampRecent;
    }

    // RFC 7323, 5.4: 1 ms to 1 s a tick. Never 0, which an echo of "none" would look like.
    internal static uint TimestampClock(long now) => (uint)(now / 1000) + 1;
}
