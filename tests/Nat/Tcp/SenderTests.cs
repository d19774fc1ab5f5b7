using VNetMesh.Nat.Tcp;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tests.Tcp;

/// <summary>Sending: windows, retransmission (RFC 6298), recovery (RFC 5681, 6582, 6675), probes (RFC 9293, 3.8.6).</summary>
public sealed class SenderTests
{
    private const TcpFlags FinAck = TcpFlags.Fin | TcpFlags.Ack;

    [Fact]
    public void ALargeWriteLeavesAsOneLargeSegment()
    {
        Script script = Script.InEstablished();
        script.Write(60_000);
        Script.Segment segment = script.Expect(TcpFlags.Ack, 1, 1);
        Assert.Equal(1460, segment.SegmentSize);
        Assert.Equal(60_000, segment.Length + script.TakeAll().Sum(s => s.Length));
    }

    [Fact]
    public void ASmallWriteLeavesAtOnce() // RFC 9293, 3.7.4: Nagle's algorithm is off
    {
        Script script = Script.InEstablished();
        script.Write(1);
        script.ExpectData(1, 1);
        script.Write(1);
        script.ExpectData(2, 1);
    }

    [Theory]
    [InlineData(1460, null, 1460)]
    [InlineData(0, null, 536)] // RFC 9293, 3.7.1: none given
    [InlineData(9000, null, 1460)] // ours is smaller
    [InlineData(1, null, 88)] // hostile
    [InlineData(1460, 1u, 1448)] // each segment carries timestamps
    public void TheSegmentSizeIsTheSmallerOfBoth(int mss, uint? timestamp, int expected)
    {
        Script script = Script.InEstablished(mss: mss, timestamp: timestamp);
        Assert.Equal(expected, script.Connection.SegmentSize);
    }

    [Theory]
    [InlineData(65535 - 120)]
    [InlineData(2000)]
    [InlineData(100)]
    public void SegmentsAreWholeMultiplesOfTheSegmentSizeUpToTheLinksLimit(int maxTransmit)
    {
        Script script = Script.InEstablished(new TcpOptions { MaxTransmit = maxTransmit }, mss: 1000);
        script.Write(10_500);
        List<Script.Segment> all = script.TakeAll();
        Assert.Equal(10_500, all.Sum(s => s.Length));
        Assert.All(all, s => Assert.True(s.Length <= Math.Max(1000, maxTransmit)));
        Assert.All(all.SkipLast(1), s => Assert.Equal(0, s.Length % 1000));
    }

    [Fact]
    public void TheGuestsWindowIsNeverExceeded()
    {
        Script script = Script.InEstablished(window: 100, scale: 0);
        script.Write(5000);
        Assert.True(script.TakeAll().Sum(s => s.Length) <= 100);
        script.Ack(1, 101, window: 3000);
        Assert.True(script.TakeAll().Sum(s => s.Length) is > 0 and <= 3000);
    }

    [Fact]
    public void TheScaleOfTheGuestIsApplied() // RFC 7323, 2.2
    {
        Script script = Script.InEstablished(window: 20); // times 128
        script.Write(60_000);
        Assert.Equal(2560 / 1460 * 1460, script.TakeAll().Sum(s => s.Length));
    }

    [Fact]
    public void AnOlderSegmentDoesNotSetTheWindow() // RFC 9293, 3.10.7.4: SND.WL1, SND.WL2
    {
        Script script = Script.InEstablished(window: 512);
        script.Write(1000);
        script.ExpectData(1, 1000);
        script.Ack(1, 1001, window: 512);
        script.Ack(1, 1, window: 0); // overtaken
        script.Write(1000);
        script.ExpectData(1001, 1000);
    }

    // ---- Retransmission -------------------------------------------------------------------------------------------

    [Fact]
    public void TheTimeoutDoublesAndIsGivenUpAfterTheStatedNumber() // RFC 6298, 5.5; RFC 9293, 3.8.3
    {
        Script script = Script.InEstablished(new TcpOptions { MaxRetransmits = 4, MinRto = 200_000 });
        script.Write(100);
        script.ExpectData(1, 100);
        long start = script.Now;
        var times = new List<long>();
        while (script.Connection.NextDeadline != long.MaxValue)
        {
            script.Now = script.Connection.NextDeadline;
            script.Connection.Poll(script.Now);
            if (script.State != TcpState.Closed)
            {
                script.ExpectData(1, 100);
                times.Add((script.Now - start) / 1000);
            }
        }
        Assert.Equal([200, 600, 1400, 3000], times);
        Assert.Equal(4, script.Connection.Retransmits);
        script.Expect(TcpFlags.Rst | TcpFlags.Ack, 101);
        script.ExpectEvents("closed RetransmissionTimeout");
        Assert.Equal(0, script.Pool.Rented);
    }

    [Fact]
    public void NoRoundTripIsTakenOfWhatWasSentTwice() // Karn: RFC 6298, 3
    {
        Script script = Script.InEstablished();
        script.Write(100);
        script.Now += 10_000;
        script.Ack(1, 101);
        long before = script.Connection.SmoothedRttMicros;
        script.Write(100);
        script.Wait(500_000);
        Assert.True(script.Connection.Retransmits > 0);
        script.Ack(1, 201);
        Assert.Equal(before, script.Connection.SmoothedRttMicros);
    }

    [Fact]
    public void AnEchoTimesAlsoWhatWasSentTwice() // RFC 7323, 4.1
    {
        Script script = Script.InEstablished(timestamp: 5);
        script.Write(100);
        Script.Segment sent = script.ExpectData(1, 100);
        script.Now += 30_000;
        script.Send(TcpFlags.Ack, 1, 101, options: new TcpHeaderOptions { HasTimestamps = true, TimestampValue = 6, TimestampEcho = sent.Options.TimestampValue });
        Assert.InRange(script.Connection.SmoothedRttMicros, 1_000, 31_000);
        Assert.Equal(5u, sent.Options.TimestampEcho);
    }

    [Fact]
    public void AnAcknowledgementRestartsTheTimer() // RFC 6298, 5.3
    {
        Script script = Script.InEstablished();
        script.Write(1000);
        script.Write(1000);
        script.Now += 150_000;
        script.Ack(1, 1001);
        Assert.Equal(script.Now + 200_000, script.Connection.NextDeadline, 400_000d);
        Assert.True(script.Connection.NextDeadline >= script.Now + 200_000);
        script.Ack(1, 2001);
        Assert.Equal(long.MaxValue, script.Connection.NextDeadline); // 5.2
    }

    [Fact]
    public void AfterATimeoutTheWindowIsOneSegmentAndGrowsAgain() // RFC 5681, 3.1
    {
        Script script = Script.InEstablished();
        script.Write(60_000);
        script.TakeAll();
        script.Wait(200_000);
        Assert.Equal(1460, script.TakeAll().Sum(s => s.Length));
        script.Ack(1, 1461);
        Assert.Equal(2920, script.TakeAll().Sum(s => s.Length));
    }

    [Fact]
    public void ADuplicateAcknowledgementAfterATimeoutStartsNoRecovery() // RFC 6582, 3.2; RFC 6675, 5.1
    {
        Script script = Script.InEstablished(sack: false);
        script.Write(60_000);
        script.TakeAll();
        script.Wait(200_000);
        Assert.Equal(1460, script.TakeAll().Sum(s => s.Length));
        for (int i = 0; i < 5; i++)
            script.Ack(1, 1);
        script.ExpectNothing();
    }

    [Fact]
    public void TheThirdDuplicateAcknowledgementResendsAtOnce() // RFC 5681, 3.2
    {
        Script script = Script.InEstablished(sack: false);
        script.Write(14_600);
        script.TakeAll();
        script.Ack(1, 1);
        script.Ack(1, 1);
        script.ExpectNothing();
        script.Ack(1, 1);
        script.ExpectData(1, 1460);
        script.ExpectNothing();
        script.Ack(1, 1461); // partial: RFC 6582, 3.2
        script.ExpectData(1461, 1460);
        script.Ack(1, 14_601);
        script.ExpectNothing();
        Assert.Equal(2, script.Connection.Retransmits);
    }

    [Fact]
    public void AChangedWindowIsNoDuplicate() // RFC 5681, 2
    {
        Script script = Script.InEstablished(sack: false);
        script.Write(14_600);
        script.TakeAll();
        for (int i = 0; i < 5; i++)
            script.Ack(1, 1, window: 400 + i);
        script.ExpectNothing();
        Assert.Equal(0, script.Connection.Retransmits);
    }

    [Fact]
    public void SelectiveAcknowledgementsShowTheHolesAndOnlyTheyAreSentAgain() // RFC 6675
    {
        Script script = Script.InEstablished(mss: 1000);
        script.Write(20_000);
        Assert.Equal(20_000, script.TakeAll().Sum(s => s.Length));
        script.Ack(1, 1, 512, (1001, 3001));
        script.Ack(1, 1, 512, (5001, 14_001), (1001, 3001));
        List<Script.Segment> again = script.TakeAll();
        Assert.Equal([(1, 1000), (3001, 2000)], again.Select(s => (s.Sequence, s.Length)));
        script.Ack(1, 14_001); // all holes filled
        Assert.InRange(script.TakeAll().Count, 0, 1); // NextSeg (4): the tail may be lost as well, and is asked for once
        script.Ack(1, 20_001);
        script.ExpectNothing();
    }

    [Fact]
    public void APartialAcknowledgementWithSackResendsTheTailOnceAtMost() // RFC 6675, 4, NextSeg (4)
    {
        Script script = Script.InEstablished(mss: 1000);
        script.Write(30_000);
        script.TakeAll();
        script.Ack(1, 1, 512, (1001, 8001));
        script.ExpectData(1, 1000);
        for (int at = 8001; at < 30_001; at += 2000)
            script.Ack(1, at);
        Assert.InRange(script.TakeAll().Count, 0, 1);
    }

    [Fact]
    public void BlocksThatCannotBeAreIgnored()
    {
        Script script = Script.InEstablished(mss: 1000);
        script.Write(5000);
        script.TakeAll();
        script.Ack(1, 1, 512, (4001, 9001), (3000, 2000), (-500, 1));
        script.Ack(1, 1, 512, (int.MaxValue / 2, int.MinValue / 2));
        script.ExpectNothing();
    }

    [Fact]
    public void SelectiveAcknowledgementsBeforeATimeoutAreForgottenByIt() // RFC 2018, 8
    {
        Script script = Script.InEstablished(mss: 1000);
        script.Write(5000);
        script.TakeAll();
        script.Ack(1, 1, 512, (1001, 2001));
        script.Wait(250_000);
        script.ExpectData(1, 1000);
        script.Ack(1, 1001);
        Assert.Equal(1001, script.TakeAll()[0].Sequence);
    }

    [Fact]
    public void AfterATimeoutWhatTheGuestShowsItHasIsSkipped()
    {
        Script script = Script.InEstablished(mss: 1000);
        script.Write(10_000);
        script.TakeAll();
        script.Wait(250_000);
        script.ExpectData(1, 1000);
        script.Ack(1, 1001, 512, (2001, 9001));
        int[] starts = [.. script.TakeAll().Select(s => s.Sequence)];
        Assert.Equal([1001, 9001], starts);
    }

    [Fact]
    public void AcknowledgementsOfWhatWasNeverSentAreChallengedAndLimited() // RFC 5961, 5 and 7
    {
        Script script = Script.InEstablished();
        for (int i = 0; i < 100; i++)
            script.Ack(1, 50_000 + i);
        Assert.Equal(script.Options.MaxChallengesPerSecond, script.TakeAll().Count);
        script.Now += 1_000_000;
        script.Ack(1, 50_000);
        script.ExpectAck(1, 1);
        script.Ack(1, -3_000_000); // far too old
        script.ExpectAck(1, 1);
    }

    [Fact]
    public void ADeadGuestsSegmentCarriesTheHighestNumberAlsoAfterATimeout()
    {
        Script script = Script.InEstablished();
        script.Write(5000);
        script.TakeAll();
        script.Wait(200_000);
        script.TakeAll();
        script.Data(1, 3000);
        Assert.Contains(script.TakeAll(), s => s is { Length: 0, Sequence: 5001, Acknowledgment: 3001 });
        script.Connection.Abort(script.Now);
        script.Expect(TcpFlags.Rst | TcpFlags.Ack, 5001);
    }

    // ---- Closed and small windows -----------------------------------------------------------------------------------

    [Fact]
    public void AClosedWindowIsProbedWithBackoffForAsLongAsTheGuestAnswers() // RFC 9293, 3.8.6.1
    {
        Script script = Script.InEstablished(window: 0);
        script.Write(1000);
        script.ExpectNothing();
        long start = script.Now;
        var times = new List<long>();
        while (script.Now - start < 3_600_000_000)
        {
            Assert.NotEqual(long.MaxValue, script.Connection.NextDeadline);
            script.Now = script.Connection.NextDeadline;
            script.Connection.Poll(script.Now);
            Script.Segment probe = script.TakeAll().Single();
            Assert.True(probe.Sequence <= 0 || probe.Length > 0);
            times.Add(script.Now - start);
            script.Ack(1, 1, window: 0);
        }
        Assert.Equal(TcpState.Established, script.State);
        Assert.True(times[2] - times[1] >= 2 * (times[1] - times[0]) * 9 / 10, "probes back off");
        Assert.InRange(times.Count, 60, 80); // one a minute in the end
        script.Ack(1, 1, window: 512);
        script.ExpectData(1, 1000);
    }

    [Fact]
    public void UnansweredProbesAreGivenUp()
    {
        Script script = Script.InEstablished(new TcpOptions { MaxRetransmits = 4 }, window: 0);
        script.Write(1000);
        script.Wait(60_000_000);
        Assert.Equal(4, script.TakeAll().Count(s => !s.Flags.HasFlag(TcpFlags.Rst)));
        script.ExpectEvents("closed RetransmissionTimeout");
    }

    [Fact]
    public void AFinBehindAClosedWindowIsProbedToo()
    {
        Script script = Script.InEstablished(window: 0);
        script.Shutdown();
        script.Wait(1_000_000);
        Assert.NotEmpty(script.TakeAll());
        script.Ack(1, 1, window: 10);
        script.Expect(FinAck, 1, 1, 0);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public void AWindowThatClosesOverDataUnderWayNeverSilencesTheSender(int window) // RFC 9293, 3.8.6: shrinking
    {
        Script script = Script.InEstablished(window: 65535, scale: 0);
        script.Write(60_000);
        script.TakeAll();
        script.Ack(1, 1461, window: window); // and all behind it was dropped
        int at = 1461;
        for (int i = 0; i < 20; i++)
        {
            Assert.NotEqual(long.MaxValue, script.Connection.NextDeadline);
            script.Now = script.Connection.NextDeadline;
            script.Connection.Poll(script.Now);
            List<Script.Segment> sent = script.TakeAll();
            if (sent.Count == 0)
                continue; // a time-out that may send nothing: the probes begin
            at += Math.Clamp(sent.Max(s => s.Sequence + s.Length) - at, 0, window);
            script.Ack(1, at, window: window);
        }
        Assert.Equal(1461 + (10 * window), at, 10d * window); // what the window lets through goes through
        script.TakeAll();
        script.Ack(1, at, window: 65535);
        Assert.Contains(script.TakeAll(), s => s.Sequence == at && s.Length > 0);
    }

    [Fact]
    public void ASmallWindowIsNotFilledInCrumbs() // RFC 9293, 3.8.6.2.1
    {
        Script script = Script.InEstablished(window: 65535, scale: 0);
        script.Write(14_600);
        script.TakeAll();
        script.Ack(1, 14_601, window: 65535);
        script.Ack(1, 14_601, window: 100);
        script.Write(5000);
        script.ExpectNothing();
        script.Wait(1_000_000); // but not for ever
        script.ExpectData(14_601, 100);
    }

    // ---- Room and blocked links -------------------------------------------------------------------------------------

    [Fact]
    public void ABufferThatWasFullTellsWhenThereIsRoom()
    {
        Script script = Script.InEstablished(new TcpOptions { SendBuffer = 65536 });
        script.Write(65536);
        Assert.Equal(0, script.Connection.SendFree);
        Assert.True(script.Connection.SendSpace().IsEmpty);
        script.Ack(1, 1461);
        script.ExpectEvents();
        script.Ack(1, 40_001);
        script.ExpectEvents("space");
        script.Ack(1, 50_001);
        script.ExpectEvents();
    }

    [Fact]
    public void MoreThanTheRoomCannotBeSent()
    {
        Script script = Script.InEstablished(new TcpOptions { SendBuffer = 65536 });
        Assert.Throws<ArgumentOutOfRangeException>(() => script.Connection.Sent(65537));
        Assert.Throws<ArgumentOutOfRangeException>(() => script.Connection.Sent(-1));
        script.Connection.Sent(0);
    }

    [Fact]
    public void NothingIsLostWhenTheLinkHasNoRoom()
    {
        Script script = Script.InEstablished();
        script.HasRoom = false;
        script.Write(1000);
        script.Shutdown();
        script.Data(1, 5000);
        Assert.True(script.Connection.IsBlocked);
        script.HasRoom = true;
        script.Connection.Poll(script.Now);
        script.Expect(FinAck, 1, 5001, 1000);
        Assert.False(script.Connection.IsBlocked);
    }

    [Fact]
    public void ABlockedLinkLeavesNoDeadlineInThePast()
    {
        Script script = Script.InEstablished();
        script.Data(1, 100);
        script.HasRoom = false;
        script.Wait(script.Options.DelayedAck);
        Assert.True(script.Connection.IsBlocked);
        Assert.True(script.Connection.NextDeadline > script.Now);
        script.HasRoom = true;
        script.Connection.Poll(script.Now);
        script.ExpectAck(1, 101);
    }

    [Fact]
    public void AnIdleConnectionHoldsNoBuffers()
    {
        Script script = Script.InEstablished();
        script.Write(1000);
        Assert.Equal(1, script.Pool.Rented);
        script.Ack(1, 1001);
        Assert.Equal(0, script.Pool.Rented);
        script.Connection.SendSpace(); // the socket had nothing after all
        script.Connection.Poll(script.Now);
        Assert.Equal(0, script.Pool.Rented);
        script.Data(1, 5000, 1001);
        Assert.Equal(0, script.Pool.Rented);
    }

    [Fact]
    public void CountersCountEachOctetOnce()
    {
        Script script = Script.InEstablished();
        script.Write(100_000);
        script.TakeAll();
        script.Wait(700_000);
        for (int at = 1461; script.Connection.SendQueued > 0; at = Math.Min(at * 2, 100_001))
            script.Ack(1, at);
        Assert.Equal(100_000, script.Connection.BytesSent);
        Assert.True(script.Connection.Retransmits > 0);
    }
}
