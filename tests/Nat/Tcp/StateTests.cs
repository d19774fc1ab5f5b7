using VNetMesh.Nat.Tcp;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tests.Tcp;

/// <summary>The state machine of RFC 9293, 3.3.2 and 3.10, as scripts of segments.</summary>
public sealed class StateTests
{
    private const TcpFlags SynAck = TcpFlags.Syn | TcpFlags.Ack, FinAck = TcpFlags.Fin | TcpFlags.Ack, RstAck = TcpFlags.Rst | TcpFlags.Ack;

    // ---- Opening ------------------------------------------------------------------------------------------------

    [Fact]
    public void TheSynAckIsWithheldUntilTheHostIsConnected()
    {
        var script = new Script();
        script.Syn();
        script.Wait(30_000_000);
        script.ExpectNothing();
        Assert.Equal(TcpState.SynReceived, script.State);
        Assert.Equal(long.MaxValue, script.Connection.NextDeadline);
        script.Connection.Accept(script.Now);
        Script.Segment answer = script.Expect(SynAck, 0, 1, 0);
        Assert.Equal(1460, answer.Options.MaximumSegmentSize);
        Assert.True(answer.Options.HasWindowScale && answer.Options.SackPermitted);
        Assert.False(answer.Options.HasTimestamps); // not offered
        script.Ack(1, 1);
        Assert.Equal(TcpState.Established, script.State);
        script.ExpectEvents("established");
    }

    [Fact]
    public void RepeatedSynsWhileDiallingAreAbsorbed()
    {
        var script = new Script();
        script.Syn();
        for (int i = 0; i < 3; i++)
            script.Send(TcpFlags.Syn, 0, options: Script.SynOptions());
        script.ExpectNothing();
        script.Connection.Accept(script.Now);
        script.Expect(SynAck, 0, 1);
        script.ExpectNothing();
    }

    [Fact]
    public void ANewSynWhileDiallingTakesTheOldOnesPlace()
    {
        var script = new Script();
        script.Syn();
        script.Send(TcpFlags.Syn, 5000, options: Script.SynOptions(mss: 1000));
        script.Connection.Accept(script.Now);
        script.Expect(SynAck, 0, 5001);
        script.Ack(5001, 1);
        Assert.Equal(TcpState.Established, script.State);
        Assert.Equal(1000, script.Connection.SegmentSize);
    }

    [Fact]
    public void AResetWhileDiallingEndsIt()
    {
        var script = new Script();
        script.Syn();
        script.Reset(5000); // not where the next octet belongs
        Assert.Equal(TcpState.SynReceived, script.State);
        script.Reset(1);
        script.ExpectEvents("closed ResetByPeer");
        script.ExpectNothing();
    }

    [Fact]
    public void ARefusalResetsTheSyn() // 3.10.7.1: <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>
    {
        var script = new Script();
        script.Syn();
        script.Connection.Refuse(script.Now);
        Script.Segment reset = script.Expect(RstAck, new SequenceNumber(0).Since(script.GatewaySequence(0)), 1, 0);
        Assert.Equal(0, reset.Options.Length);
        script.ExpectEvents("closed Refused");
        Assert.Equal(TcpState.Closed, script.State);
    }

    [Fact]
    public void TheSynAckIsSentAt0And1And3And7SecondsAndGivenUpAt15()
    {
        Script script = Script.InSynReceived();
        long start = script.Now;
        var times = new List<long>();
        while (script.Connection.NextDeadline != long.MaxValue)
        {
            script.Now = script.Connection.NextDeadline;
            script.Connection.Poll(script.Now);
            foreach (Script.Segment segment in script.TakeAll())
            {
                if (segment.Flags == SynAck)
                    times.Add((script.Now - start) / 1000);
                else
                    Assert.True(segment.Flags.HasFlag(TcpFlags.Rst));
            }
        }
        Assert.Equal([1000, 3000, 7000], times);
        Assert.Equal(15_000_000, script.Now - start);
        script.ExpectEvents("closed HandshakeTimeout");
    }

    [Fact]
    public void ASynInSynReceivedIsAnsweredAgain()
    {
        Script script = Script.InSynReceived();
        script.Send(TcpFlags.Syn, 0, options: Script.SynOptions());
        script.Expect(SynAck, 0, 1);
        script.ExpectNothing();
        Assert.Equal(TcpState.SynReceived, script.State);
    }

    [Fact]
    public void AWrongAcknowledgementInSynReceivedIsReset() // 3.10.7.4, fifth: <SEQ=SEG.ACK><CTL=RST>
    {
        Script script = Script.InSynReceived();
        script.Ack(1, 77);
        script.Expect(TcpFlags.Rst, 77, length: 0);
        Assert.Equal(TcpState.SynReceived, script.State);
        script.Ack(1, 1);
        Assert.Equal(TcpState.Established, script.State);
    }

    [Fact]
    public void TheFirstDataMayCompleteTheHandshake()
    {
        Script script = Script.InSynReceived();
        script.Data(1, 3000);
        script.ExpectEvents("established");
        Assert.Equal(3000, script.Received.Length);
        script.ExpectAck(1, 3001);
    }

    [Fact]
    public void DataAndFinMayCompleteTheHandshake()
    {
        Script script = Script.InSynReceived();
        script.Send(FinAck, 1, 1, 100);
        script.ExpectEvents("established", "fin");
        script.ExpectAck(1, 102);
        Assert.Equal(TcpState.CloseWait, script.State);
    }

    [Fact]
    public void AnActiveOpenIsEstablishedByTheSynAck()
    {
        Script script = Script.InSynSent();
        script.Send(SynAck, 0, 1, window: 64240, options: Script.SynOptions());
        script.ExpectEvents("established");
        script.ExpectAck(1, 1);
    }

    [Fact]
    public void AWrongAcknowledgementInSynSentIsReset() // 3.10.7.3, first
    {
        Script script = Script.InSynSent();
        script.Send(SynAck, 0, 9);
        script.Expect(TcpFlags.Rst, 9, length: 0);
        script.Send(TcpFlags.Rst | TcpFlags.Ack, 0, 9); // a reset that acknowledges nothing of ours: dropped
        script.Send(TcpFlags.Rst, 0);
        script.ExpectNothing();
        Assert.Equal(TcpState.SynSent, script.State);
    }

    [Fact]
    public void ARefusedActiveOpenIsTold() // 3.10.7.3, second
    {
        Script script = Script.InSynSent();
        script.Send(RstAck, 0, 1);
        script.ExpectEvents("closed RefusedByPeer");
    }

    [Fact]
    public void ASimultaneousOpenCompletes() // 3.5, figure 8
    {
        Script script = Script.InSynSent();
        script.Send(TcpFlags.Syn, 0, options: Script.SynOptions());
        script.Expect(SynAck, 0, 1);
        Assert.Equal(TcpState.SynReceived, script.State);
        script.Send(SynAck, 0, 1, options: Script.SynOptions());
        Assert.Equal(TcpState.Established, script.State);
        script.ExpectEvents("established");
        script.ExpectAck(1, 1);
    }

    [Fact]
    public void AShutdownBeforeTheHandshakeEndsIsKept() // 3.10.4, SYN-RECEIVED: queued until ESTABLISHED
    {
        Script script = Script.InSynReceived();
        script.Shutdown();
        script.ExpectNothing();
        script.Ack(1, 1);
        script.Expect(FinAck, 1, 1, 0);
        Assert.Equal(TcpState.FinWait1, script.State);
    }

    // ---- Closing ------------------------------------------------------------------------------------------------

    [Fact]
    public void TheHostEndsFirst() // ESTABLISHED → FIN-WAIT-1 → FIN-WAIT-2 → TIME-WAIT → CLOSED
    {
        Script script = Script.InTimeWait();
        Assert.Equal(script.Now + script.Options.TimeWait, script.Connection.NextDeadline);
        script.Wait(script.Options.TimeWait);
        script.ExpectEvents("closed Normal");
        script.ExpectNothing();
    }

    [Fact]
    public void TheGuestEndsFirst() // ESTABLISHED → CLOSE-WAIT → LAST-ACK → CLOSED
    {
        Script script = Script.InLastAck();
        script.Ack(2, 2);
        script.ExpectEvents("closed Normal");
        Assert.Equal(long.MaxValue, script.Connection.NextDeadline);
        script.ExpectNothing();
    }

    [Fact]
    public void BothEndAtOnce() // FIN-WAIT-1 → CLOSING → TIME-WAIT
    {
        Script script = Script.InClosing();
        script.Ack(2, 2);
        Assert.Equal(TcpState.TimeWait, script.State);
        script.Wait(script.Options.TimeWait);
        script.ExpectEvents("closed Normal");
    }

    [Fact]
    public void AFinThatAcknowledgesOursGoesStraightToTimeWait()
    {
        Script script = Script.InFinWait1();
        script.Fin(1, 2);
        script.ExpectAck(2, 2);
        Assert.Equal(TcpState.TimeWait, script.State);
    }

    [Fact]
    public void TheGuestMaySendAfterTheHostsEnd()
    {
        Script script = Script.InFinWait2();
        script.Data(1, 5000, 2);
        script.ExpectAck(2, 5001);
        Assert.Equal(5000, script.Received.Length);
        Assert.Equal(TcpState.FinWait2, script.State);
    }

    [Fact]
    public void TheHostMaySendAfterTheGuestsEnd()
    {
        Script script = Script.InCloseWait();
        script.Write(5000);
        script.ExpectData(1, 5000);
        script.Ack(2, 5001);
        script.Shutdown();
        script.Expect(FinAck, 5001, 2, 0);
        script.Ack(2, 5002);
        script.ExpectEvents("closed Normal");
    }

    [Fact]
    public void TheFinRidesOnTheLastData()
    {
        Script script = Script.InEstablished();
        script.Connection.SendSpace();
        script.Connection.Sent(100);
        script.Shutdown();
        script.Expect(FinAck, 1, 1, 100);
        script.Ack(1, 102);
        Assert.Equal(TcpState.FinWait2, script.State);
    }

    [Fact]
    public void AFinSentAgainIsAcknowledgedAgainAndRestartsTimeWait() // 3.10.7.4, eighth
    {
        Script script = Script.InTimeWait();
        script.Wait(script.Options.TimeWait - 1);
        script.Fin(1, 2);
        script.ExpectAck(2, 2);
        script.Wait(script.Options.TimeWait - 1);
        Assert.Equal(TcpState.TimeWait, script.State);
        script.Wait(1);
        script.ExpectEvents("closed Normal");
    }

    [Fact]
    public void OurFinIsSentAgainUntilAcknowledged()
    {
        Script script = Script.InFinWait1();
        script.Wait(script.Options.InitialRto * 2);
        script.Expect(FinAck, 1, 1, 0);
        script.Ack(1, 2);
        Assert.Equal(TcpState.FinWait2, script.State);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void WhatTheHostHasNotTakenSurvivesTheEndOfTheConnection(bool guestEndsFirst)
    {
        Script script = Script.InEstablished();
        script.Appetite = 0;
        script.Data(1, 4000);
        script.ExpectAck(1, 4001);
        if (!guestEndsFirst)
        {
            script.Shutdown();
            script.Expect(FinAck, 1, 4001);
            script.Ack(4001, 2);
        }
        script.Fin(4001, guestEndsFirst ? 1 : 2);
        script.TakeAll();
        if (guestEndsFirst)
        {
            script.Shutdown();
            script.Expect(FinAck, 1, 4002);
            script.Ack(4002, 2);
        }
        script.Wait(60_000_000);
        script.ExpectEvents(); // neither the guest's end nor ours was told: 4000 octets are still to come before it
        Assert.Equal(1, script.Pool.Rented);
        script.Appetite = int.MaxValue;
        script.Connection.Resume(script.Now);
        Assert.Equal(4000, script.Received.Length);
        script.ExpectEvents("fin", "closed Normal");
        Assert.Equal(0, script.Pool.Rented);
    }

    // ---- TIME-WAIT and a new connection ---------------------------------------------------------------------------

    [Fact]
    public void ANewerSynMayReplaceAConnectionInTimeWait() // 3.6.1, RFC 6191
    {
        Script script = Script.InTimeWait();
        Assert.True(script.Connection.MayBeReplacedBy(NewSyn(script, 100_000)));
        Assert.False(script.Connection.MayBeReplacedBy(NewSyn(script, -100_000)));
        Assert.False(script.Connection.MayBeReplacedBy(new TcpSegmentIn { Sequence = script.GuestSequence(100_000), Flags = SynAck }));
        Assert.False(Script.InEstablished().Connection.MayBeReplacedBy(NewSyn(script, 100_000)));
    }

    private static TcpSegmentIn NewSyn(Script script, int sequence) => new() { Sequence = script.GuestSequence(sequence), Flags = TcpFlags.Syn };

    // ---- Resets ---------------------------------------------------------------------------------------------------

    public static TheoryData<TcpState> Synchronized() =>
        [TcpState.Established, TcpState.FinWait1, TcpState.FinWait2, TcpState.CloseWait, TcpState.Closing, TcpState.LastAck];

    private static int GuestNext(TcpState state) => state is TcpState.CloseWait or TcpState.Closing or TcpState.LastAck or TcpState.TimeWait ? 2 : 1;

    [Theory]
    [MemberData(nameof(Synchronized))]
    public void AnExactResetEndsTheConnectionInEveryState(TcpState state)
    {
        Script script = Script.In(state);
        script.Reset(GuestNext(state));
        script.ExpectEvents("closed ResetByPeer");
        script.ExpectNothing();
        Assert.Equal(long.MaxValue, script.Connection.NextDeadline);
        script.Data(GuestNext(state), 10);
        script.Wait(100_000_000);
        script.ExpectNothing();
        script.ExpectEvents();
    }

    [Theory]
    [MemberData(nameof(Synchronized))]
    public void AnInexactResetIsChallenged(TcpState state) // RFC 5961, 3.2
    {
        Script script = Script.In(state);
        script.Reset(GuestNext(state) + 100);
        script.Expect(TcpFlags.Ack, 1 + (state is TcpState.Established or TcpState.CloseWait ? 0 : 1), GuestNext(state), 0);
        Assert.Equal(state, script.State);
        script.Reset(GuestNext(state) - 5000); // outside of the window: dropped without a word
        script.ExpectNothing();
    }

    [Theory]
    [MemberData(nameof(Synchronized))]
    public void ASynInAConnectionIsChallenged(TcpState state) // RFC 5961, 4.2
    {
        Script script = Script.In(state);
        foreach (int sequence in (int[])[GuestNext(state), GuestNext(state) + 1000, GuestNext(state) - 100_000])
        {
            script.Send(TcpFlags.Syn, sequence);
            script.Expect(TcpFlags.Ack, 1 + (state is TcpState.Established or TcpState.CloseWait ? 0 : 1), GuestNext(state), 0);
        }
        Assert.Equal(state, script.State);
        script.ExpectEvents();
    }

    [Fact]
    public void AResetInTimeWaitEndsIt()
    {
        Script script = Script.InTimeWait();
        script.Reset(2);
        script.ExpectEvents("closed Normal");
    }

    [Fact]
    public void AResetInSynReceivedEndsIt()
    {
        Script script = Script.InSynReceived();
        script.Reset(1);
        script.ExpectEvents("closed ResetByPeer");
    }

    [Theory]
    [MemberData(nameof(Synchronized))]
    public void AnAbortResetsTheGuest(TcpState state) // 3.10.5
    {
        Script script = Script.In(state);
        script.Connection.Abort(script.Now);
        script.Expect(RstAck, 1 + (state is TcpState.Established or TcpState.CloseWait ? 0 : 1), GuestNext(state), 0);
        script.ExpectEvents("closed Aborted");
        script.Connection.Abort(script.Now);
        script.ExpectNothing();
        script.ExpectEvents();
    }

    [Fact]
    public void AnAbortBeforeTheHandshakeSaysWhatAClosedPortWould()
    {
        var script = new Script();
        script.Syn();
        script.Connection.Abort(script.Now);
        Assert.Equal(RstAck, script.TakeAll().Single().Flags);
        script = Script.InSynSent();
        script.Connection.Abort(script.Now);
        script.ExpectNothing();
        script.ExpectEvents("closed Aborted");
    }

    [Fact]
    public void AnAbortInTimeWaitIsSilent()
    {
        Script script = Script.InTimeWait();
        script.Connection.Abort(script.Now);
        script.ExpectNothing();
        script.ExpectEvents("closed Aborted");
    }

    [Fact]
    public void AnAbortFromWithinDeliverLeavesNothingBehind()
    {
        Script script = Script.InEstablished();
        script.Appetite = 0;
        script.WhileDelivering = () => script.Connection.Abort(script.Now);
        script.Data(1, 1000);
        script.ExpectEvents("closed Aborted");
        Assert.Equal(0, script.Pool.Rented);
    }

    [Fact]
    public void AResumeFromWithinDeliverDeliversNothingTwice()
    {
        Script script = Script.InEstablished();
        script.Appetite = 0;
        script.Data(1, 1000);
        script.Appetite = int.MaxValue;
        script.WhileDelivering = () =>
        {
            script.WhileDelivering = null;
            script.Connection.Resume(script.Now);
        };
        script.Connection.Resume(script.Now);
        Assert.Equal(1000, script.Received.Length);
        Assert.Equal(1000, script.Connection.BytesDelivered);
    }

    [Fact]
    public void AnAbortFromWithinOnEstablishedEndsIt()
    {
        Script script = Script.InSynReceived();
        script.WhenEstablished = () => script.Connection.Abort(script.Now);
        script.Data(1, 1000);
        script.ExpectEvents("established", "closed Aborted");
        Assert.Equal(0, script.Received.Length);
    }
}
