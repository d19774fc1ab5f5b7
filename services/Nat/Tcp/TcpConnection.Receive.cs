using VNetMesh.Packets;

namespace VNetMesh.Nat.Tcp;

/// <content>Segments that arrive (RFC 9293, 3.10.7).</content>
public sealed partial class TcpConnection
{
    // RFC 7323, 5.5: the guest's clock may have gone half around by then.
    private const long TimestampLifetime = 24L * 24 * 3600 * 1_000_000;

    private long _challengeSecond;
    private int _challenges;

    /// <summary>Takes a segment from the guest. Call <see cref="Poll"/> after the batch.</summary>
    public void Receive(in TcpSegmentIn segment, long now)
    {
        switch (State)
        {
            // 3.10.7.1: the owner answers for connections that are no more.
            case TcpState.Closed or TcpState.Listen:
                return;
            case TcpState.SynSent:
                ReceiveInSynSent(segment, now);
                return;
            // Our own answer is still withheld: the host's connect is under way.
            case TcpState.SynReceived when !_accepted:
                ReceiveWhileDialing(segment, now);
                return;
            default:
                ReceiveSynchronized(segment, now);
                return;
        }
    }

    private void ReceiveWhileDialing(in TcpSegmentIn segment, long now)
    {
        // The guest gave up (3.10.7.4, RST in SYN-RECEIVED).
        if (segment.Has(TcpFlags.Rst))
        {
            if (segment.Sequence == _receiver.Next)
                Close(TcpCloseReason.ResetByPeer);
        }
        // It tries anew from the same port; nothing was promised for the old SYN. The same SYN again is absorbed: its answer comes with the host's.
        else if (segment.Has(TcpFlags.Syn) && !segment.Has(TcpFlags.Ack) && segment.Sequence != _peerInitial)
        {
            TakeSyn(segment, now);
        }
    }

    // 3.10.7.3
    private void ReceiveInSynSent(in TcpSegmentIn segment, long now)
    {
        bool acknowledges = segment.Has(TcpFlags.Ack);
        if (acknowledges && segment.Acknowledgment != _sender.Next)
        {
            if (!segment.Has(TcpFlags.Rst))
                SendReset(segment.Acknowledgment, default, withAck: false);
            return;
        }
        if (segment.Has(TcpFlags.Rst))
        {
            if (acknowledges)
                Close(TcpCloseReason.RefusedByPeer);
            return;
        }
        if (!segment.Has(TcpFlags.Syn))
            return;
        TakeSyn(segment, now);
        _receiver.TakeWindow(_segment, Math.Min(MaxWindow, SynWindow)); // as our SYN told it
        if (!acknowledges)
        {
            // Simultaneous open: answer with SYN-ACK.
            SetState(TcpState.SynReceived);
            _accepted = true;
            SendHandshake(now);
            return;
        }
        _sender.Acknowledge(segment, segment.Window, now, out _);
        BecomeEstablished(segment, now);
        if (State == TcpState.Closed)
            return;
        _ackNow = true;
        TakePayload(segment, now);
    }

    // 3.10.7.4
    private void ReceiveSynchronized(in TcpSegmentIn segment, long now)
    {
        if (State == TcpState.SynReceived && segment.Has(TcpFlags.Syn) && !segment.Has(TcpFlags.Rst) && segment.Sequence == _peerInitial)
        {
            // Both opened at once (3.5, figure 8): its SYN again, which acknowledges ours.
            if (segment.Has(TcpFlags.Ack) && segment.Acknowledgment == _sender.Next)
            {
                _sender.Acknowledge(segment, segment.Window, now, out _);
                BecomeEstablished(segment, now);
                _ackNow = true;
            }
            // The guest did not hear our SYN-ACK and asks again.
            else
            {
                SendHandshake(now);
            }
            return;
        }
        if (!PassesSequenceChecks(segment, now))
            return;
        if (!segment.Has(TcpFlags.Ack))
            return;
        if (State == TcpState.SynReceived)
        {
            if (segment.Acknowledgment != _sender.Next)
            {
                SendReset(segment.Acknowledgment, default, withAck: false);
                return;
            }
            BecomeEstablished(segment, now);
            if (State == TcpState.Closed)
                return;
        }
        NoteTimestamp(segment, now);
        if (!TakeAcknowledgment(segment, now) || State == TcpState.Closed)
            return;
        TakePayload(segment, now);
    }

    private bool PassesSequenceChecks(in TcpSegmentIn segment, long now)
    {
        bool reset = segment.Has(TcpFlags.Rst);
        // RFC 7323, 5.3, R1: an old duplicate from before the numbers wrapped.
        if (_timestamps && segment.Options.HasTimestamps && !reset && (int)(segment.Options.TimestampValue - _timestampRecent) < 0
            && now - _timestampRecentAt < TimestampLifetime)
        {
            UnacceptableSegments++;
            _ackNow = true;
            return false;
        }
        // First: sequence numbers. What is not acceptable is answered by an acknowledgement, unless it is a reset.
        if (!_receiver.IsAcceptable(segment.Sequence, segment.SequenceLength))
        {
            if (!reset)
                AnswerUnacceptable(segment, now);
            return false;
        }
        // Second: RST. Exactly where the next octet belongs, or it may be a blind guess (RFC 5961, 3.2).
        if (reset)
        {
            if (segment.Sequence != _receiver.Next)
                Challenge(now);
            else if (State == TcpState.TimeWait || _isOver)
                Finish();
            else
                Close(TcpCloseReason.ResetByPeer);
            return false;
        }
        // Fourth: SYN inside a connection (RFC 5961, 4.2).
        if (segment.Has(TcpFlags.Syn))
        {
            Challenge(now);
            return false;
        }
        return true;
    }

    private void AnswerUnacceptable(in TcpSegmentIn segment, long now)
    {
        UnacceptableSegments++;
        // A FIN sent again restarts TIME-WAIT (3.10.7.4, eighth).
        if (State == TcpState.TimeWait && segment.Has(TcpFlags.Fin) && !_isOver)
            _timeWaitDeadline = now + _options.TimeWait;
        // A probe of our closed window: the data is not taken, its acknowledgement is (3.10.7.4, "special allowance").
        if (IsSynchronized && segment.Sequence == _receiver.Next && segment.Has(TcpFlags.Ack) && !segment.Has(TcpFlags.Syn))
            TakeAcknowledgment(segment, now);
        if (State == TcpState.Closed)
            return;
        // Two ends that disagree on what is acceptable would answer each other's answers for ever.
        if (segment.SequenceLength == 0)
            Challenge(now);
        else
            _ackNow = true;
    }

    // RFC 7323, 4.3: only a segment that begins at or before what was acknowledged last.
    private void NoteTimestamp(in TcpSegmentIn segment, long now)
    {
        if (!_timestamps || !segment.Options.HasTimestamps || !segment.Sequence.IsAtOrBefore(_acknowledgedToPeer))
            return;
        _timestampRecent = segment.Options.TimestampValue;
        _timestampRecentAt = now;
    }

    // Fifth: the ACK field.
    private bool TakeAcknowledgment(in TcpSegmentIn segment, long now)
    {
        if (segment.Acknowledgment.IsAfter(_sender.Highest)
            || segment.Acknowledgment.IsBefore(_sender.Unacknowledged.Add(-Math.Max(_sender.MaxWindow, ushort.MaxValue))))
        {
            UnacceptableSegments++;
            Challenge(now); // RFC 5961, 5.2
            return false;
        }
        _probesUnanswered = 0;
        if (segment.Acknowledgment.IsBefore(_sender.Unacknowledged))
            return true; // old: the data in it may still be new
        int octets = _sender.Acknowledge(segment, segment.Window << _sendShift, now, out long sample);
        if (octets > 0)
            OnAcknowledged(segment, sample, now);
        if (_sender.TakeSpaceWanted() && CanSend)
            _user.OnSendSpace();
        if (!_sender.FinAcknowledged)
            return true;
        switch (State)
        {
            // Our FIN is acknowledged; the guest may go on sending.
            case TcpState.FinWait1:
                SetState(TcpState.FinWait2);
                break;
            // Both had sent FIN at once.
            case TcpState.Closing:
                EnterTimeWait(now);
                break;
            // The guest had ended first: nothing is left to wait for.
            case TcpState.LastAck:
                Finish();
                break;
        }
        return true;
    }

    private void OnAcknowledged(in TcpSegmentIn segment, long sample, long now)
    {
        _retransmitsInRow = 0;
        // RFC 7323, 4.1: the echo tells which segment was answered, also after a retransmission. Its clock is in
        // milliseconds, so our own measurement is better where there is one. An echo from before the last time-out
        // says nothing: an answer to it was lost, and the answer to what was sent again repeats the old echo (5.3, R3).
        if (sample > 0)
            _roundTrip.Sample(sample);
        else if (_timestamps && segment.Options.HasTimestamps && (int)(segment.Options.TimestampEcho - _timeoutClock) >= 0)
            _roundTrip.Sample(Math.Max(0, (int)(TimestampClock(now) - segment.Options.TimestampEcho)) * 1000L);
        else
            _roundTrip.Restore();
        // RFC 6298, 5.2 and 5.3.
        _retransmitDeadline = _sender.IsOutstanding ? now + _roundTrip.Timeout : long.MaxValue;
    }

    // Seventh and eighth: payload and FIN.
    private void TakePayload(in TcpSegmentIn segment, long now)
    {
        if (segment.Payload.IsEmpty && !segment.Has(TcpFlags.Fin))
            return;
        if (State is not (TcpState.Established or TcpState.FinWait1 or TcpState.FinWait2))
        {
            _ackNow = true; // sent again after the guest's FIN: the acknowledgement was lost
            return;
        }
        SequenceNumber before = _receiver.Next;
        int buffered = _receiver.Buffered;
        bool hadHoles = _receiver.HasOutOfOrder;
        SequenceNumber first = segment.Sequence.Add(segment.Has(TcpFlags.Syn) ? 1 : 0);
        bool inOrder = _receiver.Take(first, segment.Payload, segment.Has(TcpFlags.Fin), _user);
        if (State == TcpState.Closed)
            return;
        int advanced = _receiver.Next.Since(before) - (_receiver.FinReceived ? 1 : 0);
        BytesDelivered += Math.Max(0, advanced) + buffered - _receiver.Buffered;
        // RFC 5681, 4.2: each segment that is out of order has an acknowledgement of its own, since the guest counts them, and without
        // data, since it counts no others.
        if (!inOrder)
        {
            OutOfOrderSegments++;
            SendAcknowledgment(now);
        }
        // And at once for what fills a hole, and for every second full segment.
        else if (hadHoles || _receiver.FinReceived || _receiver.Next.Since(_acknowledgedToPeer) >= 2 * _segment)
            _ackNow = true;
        else if (_delayedAckDeadline == long.MaxValue)
            _delayedAckDeadline = now + _options.DelayedAck;
        if (_receiver.FinReceived)
            TakeFin(now);
    }

    private void TakeFin(long now)
    {
        _ackNow = true;
        switch (State)
        {
            // The guest ended its half; the host may go on.
            case TcpState.Established:
                SetState(TcpState.CloseWait);
                break;
            // Our FIN is not acknowledged yet, or this segment would have moved us to FIN-WAIT-2.
            case TcpState.FinWait1:
                SetState(TcpState.Closing);
                break;
            case TcpState.FinWait2:
                EnterTimeWait(now);
                break;
        }
        TellPeerFin();
    }

    private void Challenge(long now)
    {
        long second = now / 1_000_000;
        if (second != _challengeSecond)
            (_challengeSecond, _challenges) = (second, 0);
        if (_challenges >= _options.MaxChallengesPerSecond)
            return;
        _challenges++;
        ChallengeAcks++;
        SendAcknowledgment(now);
    }
}
