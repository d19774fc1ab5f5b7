using VNetMesh.Nat.Tcp;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tests.Tcp;

/// <summary>Receiving: order, windows, acknowledgements (RFC 9293, 3.8 and 3.10.7.4; RFC 2018; RFC 5681, 4.2; RFC 7323, 5).</summary>
public sealed class ReceiverTests
{
    private const TcpFlags FinAck = TcpFlags.Fin | TcpFlags.Ack;

    // ---- Acknowledgements -------------------------------------------------------------------------------------------

    [Fact]
    public void ASmallSegmentIsAcknowledgedAfterTheDelay() // RFC 9293, 3.8.6.3
    {
        Script script = Script.InEstablished();
        script.Data(1, 100);
        script.ExpectNothing();
        Assert.Equal(script.Now + script.Options.DelayedAck, script.Connection.NextDeadline);
        script.Wait(script.Options.DelayedAck);
        script.ExpectAck(1, 101);
        Assert.Equal(long.MaxValue, script.Connection.NextDeadline);
    }

    [Fact]
    public void EverySecondFullSegmentIsAcknowledgedAtOnce() // RFC 5681, 4.2
    {
        Script script = Script.InEstablished();
        script.Data(1, 1460);
        script.ExpectNothing();
        script.Data(1461, 1460);
        script.ExpectAck(1, 2921);
    }

    [Fact]
    public void ALargeSegmentIsAcknowledgedAtOnceAndABatchOnce()
    {
        Script script = Script.InEstablished();
        script.Data(1, 30_000, poll: false);
        script.Data(30_001, 30_000, poll: false);
        script.ExpectNothing();
        script.Connection.Poll(script.Now);
        script.ExpectAck(1, 60_001);
        script.ExpectNothing();
    }

    [Fact]
    public void DataThatLeavesCarriesTheAcknowledgement()
    {
        Script script = Script.InEstablished();
        script.Data(1, 100);
        script.Write(50);
        script.Expect(TcpFlags.Ack, 1, 101, 50);
        script.Ack(101, 51);
        script.Wait(1_000_000);
        script.ExpectNothing();
    }

    // ---- Order ------------------------------------------------------------------------------------------------------

    [Fact]
    public void WhatComesOutOfOrderIsShownAtOnceAndDeliveredInOrder() // RFC 2018, 4; RFC 5681, 4.2
    {
        Script script = Script.InEstablished();
        script.Data(2001, 1000);
        Assert.Equal([(2001, 3001)], Blocks(script, script.ExpectAck(1, 1)));
        script.Data(4001, 1000);
        Assert.Equal([(4001, 5001), (2001, 3001)], Blocks(script, script.ExpectAck(1, 1))); // the latest first
        script.Data(1001, 1000);
        Assert.Equal([(1001, 3001), (4001, 5001)], Blocks(script, script.ExpectAck(1, 1)));
        Assert.Equal(0, script.Received.Length);
        script.Data(1, 1000);
        Assert.Equal([(4001, 5001)], Blocks(script, script.ExpectAck(1, 3001)));
        script.Data(3001, 1000);
        Assert.Empty(Blocks(script, script.ExpectAck(1, 5001)));
        AssertReceived(script, 5000);
        Assert.Equal(0, script.Pool.Rented);
    }

    [Fact]
    public void EachSegmentOutOfOrderHasItsOwnAcknowledgementAlsoInABatch() // else the guest never counts three of them
    {
        Script script = Script.InEstablished(sack: false);
        for (int i = 1; i <= 4; i++)
            script.Data(1 + (i * 1460), 1460, poll: false);
        Assert.Equal(4, script.TakeAll().Count(s => s.Acknowledgment == 1));
    }

    [Fact]
    public void ALossIsShownAlsoWhileTheHostSends()
    {
        Script script = Script.InEstablished();
        script.Connection.SendSpace();
        script.Connection.Sent(100);
        script.Data(5001, 1000);
        Assert.Contains(script.TakeAll(), s => s.Length == 0 && s.Options.SackCount == 1);
    }

    [Fact]
    public void NoBlocksAreShownToAGuestThatDidNotAsk()
    {
        Script script = Script.InEstablished(sack: false);
        script.Data(2001, 1000);
        Assert.Equal(0, script.ExpectAck(1, 1).Options.SackCount);
    }

    [Fact]
    public void BlocksAndTimestampsFitTheHeader() // RFC 2018, 3
    {
        Script script = Script.InEstablished(timestamp: 5);
        var options = new TcpHeaderOptions { HasTimestamps = true, TimestampValue = 6 };
        for (int i = 1; i <= 6; i++)
            script.Send(TcpFlags.Ack, i * 2000, 1, 100, options: options);
        Script.Segment last = script.TakeAll().Last();
        Assert.Equal(3, last.Options.SackCount);
        Assert.True(last.Options.Length <= 40);
    }

    [Fact]
    public void OverlapsAreDeliveredOnce()
    {
        Script script = Script.InEstablished();
        script.Data(501, 1000);
        script.Data(1001, 2000);
        script.Data(301, 300);
        script.Data(1, 800);
        script.Data(1, 3000);
        AssertReceived(script, 3000);
        Assert.Equal(3000, script.Connection.BytesDelivered);
    }

    [Fact]
    public void TheNumberOfHolesIsBounded()
    {
        Script script = Script.InEstablished();
        for (int i = 1; i <= 200; i++)
            script.Data(1 + (i * 100), 50);
        script.TakeAll();
        for (int i = 0; i <= 200; i++)
            script.Data(1 + (i * 100), 100); // sent again, as the guest does with what was not acknowledged
        AssertReceived(script, 20_100);
    }

    [Fact]
    public void AFinOutOfOrderWaitsForTheDataBeforeIt()
    {
        Script script = Script.InEstablished();
        script.Fin(1001, 1);
        Assert.Equal(TcpState.Established, script.State);
        script.Data(1, 1000);
        script.ExpectEvents("fin");
        Assert.Equal(TcpState.CloseWait, script.State);
        Assert.Equal(1002, script.TakeAll().Last().Acknowledgment);
    }

    [Fact]
    public void DataBehindTheFinIsNotDelivered() // RFC 9293, 3.10.7.4, seventh: must not happen; the text is ignored
    {
        Script script = Script.InEstablished();
        script.Data(2001, 1000);
        script.Fin(101, 1);
        script.Data(1, 100);
        script.ExpectEvents("fin");
        AssertReceived(script, 100);
        script.Data(102, 3000);
        AssertReceived(script, 100);
        Assert.Equal(0, script.Pool.Rented);
        script.Connection.Abort(script.Now);
    }

    [Fact]
    public void TheGuestsEndIsToldAfterAllOfItsData()
    {
        Script script = Script.InEstablished();
        script.Appetite = 400;
        script.Send(FinAck, 1, 1, 1000);
        script.ExpectEvents();
        script.Connection.Resume(script.Now);
        script.ExpectEvents();
        script.Appetite = 600;
        script.Connection.Resume(script.Now);
        AssertReceived(script, 1000);
        script.ExpectEvents("fin");
        script.Connection.Resume(script.Now);
        script.ExpectEvents();
    }

    [Fact]
    public void UrgentDataIsOrdinaryData()
    {
        Script script = Script.InEstablished();
        script.Send(TcpFlags.Ack | TcpFlags.Urg, 1, 1, 3000);
        AssertReceived(script, 3000);
    }

    [Fact]
    public void ASegmentWithoutAckIsDropped() // RFC 9293, 3.10.7.4, fifth
    {
        Script script = Script.InEstablished();
        script.Send(TcpFlags.Psh, 1, 0, 3000);
        Assert.Equal(0, script.Received.Length);
        script.ExpectNothing();
    }

    // ---- Acceptability (RFC 9293, 3.10.7.4, first) ------------------------------------------------------------------

    [Fact]
    public void OldDuplicatesAreAcknowledgedAndDropped()
    {
        Script script = Script.InEstablished();
        script.Data(1, 3000);
        script.ExpectAck(1, 3001);
        script.Data(1, 3000);
        script.ExpectAck(1, 3001);
        AssertReceived(script, 3000);
    }

    [Fact]
    public void WhatLiesOutsideOfTheWindowIsNotTaken()
    {
        Script script = Script.InEstablished(new TcpOptions { ReceiveBuffer = 65536 });
        script.Data(200_000, 1000);
        script.ExpectAck(1, 1);
        script.Data(-200_000, 1000);
        script.ExpectAck(1, 1);
        Assert.Equal(0, script.Pool.Rented);
    }

    [Fact]
    public void AKeepAliveIsAnswered() // RFC 9293, 3.8.4
    {
        Script script = Script.InEstablished();
        script.Ack(0, 1);
        script.ExpectAck(1, 1);
        script.Data(0, 1);
        script.ExpectAck(1, 1);
        Assert.Equal(0, script.Received.Length);
    }

    [Fact]
    public void AnswersToEmptySegmentsOutsideOfTheWindowAreLimited() // two ends that disagree must not talk for ever
    {
        Script script = Script.InEstablished();
        for (int i = 0; i < 1000; i++)
            script.Ack(-5000, 1);
        Assert.InRange(script.TakeAll().Count, 1, script.Options.MaxChallengesPerSecond);
    }

    [Fact]
    public void AnAcknowledgementAtTheVeryEdgeOfTheWindowCounts()
    {
        // The guest has filled the window, and a segment of it was lost: its number stands at the edge.
        Script script = Script.InEstablished(new TcpOptions { ReceiveBuffer = 65536 });
        script.Write(1000);
        script.ExpectData(1, 1000);
        int edge = 1 + 65535;
        script.Ack(edge, 1001);
        Assert.Equal(0, script.Connection.SendQueued);
    }

    // ---- Windows ----------------------------------------------------------------------------------------------------

    [Fact]
    public void TheWindowClosesAsTheHostStallsAndOpensAtAWorthwhileStep() // RFC 9293, 3.8.6.2.2
    {
        Script script = Script.InEstablished(new TcpOptions { ReceiveBuffer = 65536 });
        script.Appetite = 0;
        int at = 1;
        while (Window(script) > 0)
        {
            int part = Math.Min(8192, Window(script));
            script.Data(at, part);
            at += part;
            script.Wait(script.Options.DelayedAck);
            Script.Segment answer = script.TakeAll().Last();
            Assert.Equal(at, answer.Acknowledgment);
            _window = answer.Window << Scale(script);
        }
        Assert.InRange(script.Connection.ReceiveBuffered, 65000, 65536);
        // A window probe: acknowledged, not taken.
        int held = script.Connection.ReceiveBuffered;
        script.Data(at, 5000);
        script.Wait(script.Options.DelayedAck);
        Script.Segment closed = script.TakeAll().Last();
        Assert.Equal(0, closed.Window);
        at = closed.Acknowledgment;
        Assert.InRange(script.Connection.ReceiveBuffered, held, 65536);
        // A crumb of room is not told.
        script.Appetite = 100;
        script.Connection.Resume(script.Now);
        script.ExpectNothing();
        script.Appetite = 20_000;
        script.Connection.Resume(script.Now);
        Assert.True(script.ExpectAck(1, at).Window << Scale(script) >= 20_000);
    }

    private int _window = 65535;

    private int Window(Script script) => script.State == TcpState.Established ? _window : 0;

    private static int Scale(Script script) => script.Options.ReceiveBuffer > 65535 ? 1 : 0;

    [Fact]
    public void TheRightEdgeNeverGoesBack() // RFC 9293, 3.8.6
    {
        Script script = Script.InEstablished(new TcpOptions { ReceiveBuffer = 65536 });
        script.Appetite = 10_000;
        int edge = 0;
        for (int at = 1; at < 50_000; at += 1000)
        {
            script.Data(at, 1000);
            script.Wait(script.Options.DelayedAck);
            foreach (Script.Segment segment in script.TakeAll())
            {
                int now = segment.Acknowledgment + (segment.Window << 1);
                Assert.True(now >= edge - 1, $"{now} after {edge}");
                edge = now;
            }
        }
    }

    [Fact]
    public void ResetsAndAcknowledgementsPassAClosedWindow() // RFC 9293, 3.10.7.4: special allowance
    {
        Script script = Script.InEstablished(new TcpOptions { ReceiveBuffer = 32768 }, scale: null, window: 65535);
        script.Appetite = 0;
        script.Data(1, 32768);
        Assert.Equal(0, script.ExpectAck(1, 32769).Window);
        script.Write(1000);
        script.ExpectData(1, 1000);
        script.Ack(32769, 1001);
        Assert.Equal(0, script.Connection.SendQueued);
        script.Write(1000);
        script.ExpectData(1001, 1000);
        script.Data(32769, 1, 2001); // a probe that acknowledges
        script.TakeAll();
        Assert.Equal(0, script.Connection.SendQueued);
        script.Reset(32769);
        script.ExpectEvents("closed ResetByPeer");
    }

    [Theory]
    [InlineData(512 * 1024, 4)]
    [InlineData(65536, 1)]
    [InlineData(32768, 0)]
    public void TheScaleFitsTheBuffer(int buffer, int scale) // RFC 7323, 2.3
    {
        var script = new Script(new TcpOptions { ReceiveBuffer = buffer });
        script.Syn();
        script.Connection.Accept(script.Now);
        Script.Segment answer = script.Expect(TcpFlags.Syn | TcpFlags.Ack, 0, 1);
        Assert.Equal(scale, answer.Options.WindowScale);
        Assert.Equal(Math.Min(buffer, 65535), answer.Window); // never scaled in a SYN
        script.Ack(1, 1);
        script.Data(1, 3000);
        Assert.InRange(script.ExpectAck(1, 3001).Window << scale, Math.Min(buffer, 65535 << scale) - 3000, buffer);
    }

    [Fact]
    public void WithoutTheGuestsScaleThereIsNone() // RFC 7323, 2.2
    {
        Script script = Script.InEstablished(scale: null, window: 60_000);
        script.Data(1, 3000);
        Assert.InRange(script.ExpectAck(1, 3001).Window, 60_000, 65535);
        script.Write(65536);
        Assert.InRange(script.TakeAll().Sum(s => s.Length), 1, 60_000);
    }

    // ---- Timestamps (RFC 7323) --------------------------------------------------------------------------------------

    [Fact]
    public void AnOldTimestampIsAcknowledgedAndDropped() // 5.3, R1 (PAWS)
    {
        Script script = Script.InEstablished(timestamp: 100);
        Send(script, 1, 3000, 200);
        Assert.Equal(200u, script.ExpectAck(1, 3001).Options.TimestampEcho);
        Send(script, 3001, 3000, 150);
        script.ExpectAck(1, 3001);
        AssertReceived(script, 3000);
        Send(script, 3001, 3000, 200);
        AssertReceived(script, 6000);
    }

    [Fact]
    public void ATimestampWrapsAround()
    {
        Script script = Script.InEstablished(timestamp: 0xFFFF_FFF0);
        Send(script, 1, 3000, 5);
        AssertReceived(script, 3000);
    }

    [Fact]
    public void AfterTwentyFourDaysOfSilenceAnyTimestampIsNew() // 5.5
    {
        Script script = Script.InEstablished(timestamp: 100);
        script.Now += 25L * 24 * 3600 * 1_000_000;
        Send(script, 1, 3000, unchecked(100 + 0x9000_0000));
        AssertReceived(script, 3000);
    }

    [Fact]
    public void AResetNeedsNoTimestamp() // 5.2
    {
        Script script = Script.InEstablished(timestamp: 100);
        script.Reset(1);
        script.ExpectEvents("closed ResetByPeer");
    }

    [Fact]
    public void TheEchoIsOfTheOldestSegmentThatIsAcknowledged() // 4.3
    {
        Script script = Script.InEstablished(timestamp: 100);
        Send(script, 1, 100, 110, poll: false);
        Send(script, 101, 3000, 120, poll: false);
        script.Connection.Poll(script.Now);
        Assert.Equal(110u, script.ExpectAck(1, 3101).Options.TimestampEcho);
        Send(script, 5000, 100, 130); // out of order: not taken
        Assert.Equal(110u, script.ExpectAck(1, 3101).Options.TimestampEcho);
    }

    private static void Send(Script script, int sequence, int length, uint timestamp, bool poll = true) =>
        script.Send(TcpFlags.Ack, sequence, 1, length, options: new TcpHeaderOptions { HasTimestamps = true, TimestampValue = timestamp }, poll: poll);

    private static (int, int)[] Blocks(Script script, Script.Segment segment)
    {
        TcpHeaderOptions options = segment.Options;
        var blocks = new (int, int)[options.SackCount];
        for (int i = 0; i < blocks.Length; i++)
            blocks[i] = (options.Sack[i].Start.Since(script.GuestSequence(0)), options.Sack[i].End.Since(script.GuestSequence(0)));
        return blocks;
    }

    private static void AssertReceived(Script script, int length)
    {
        byte[] received = script.Received.ToArray();
        Assert.Equal(length, received.Length);
        for (int i = 0; i < received.Length; i++)
            Assert.Equal(Script.Octet(1 + i), received[i]);
    }
}
