using VNetMesh.Links;
using VNetMesh.Packets;
using VNetMesh.Switch.Capturing;
using VNetMesh.Switch.Forwarding;
using VNetMesh.Switch.Registry;
using VNetMesh.Switch.Tests.Support;

namespace VNetMesh.Switch.Tests.Capturing;

/// <summary>What a capture sees of the data path.</summary>
public sealed class CaptureTests : ILinkObserver
{
    private const string Network = "networks/test";
    private static readonly ForwardingSettings Settings = new(Mtu: 1500, MacAgeing: 300_000_000, MaxMacs: 64, MaxMacsPerPort: 2, IsolatePorts: false);

    private readonly NetworkForwarder _forwarder;
    private long _connection;

    public CaptureTests() => _forwarder = new NetworkForwarder(Network, Settings, loop: null, this);

    void ILinkObserver.OnLinkLost(ForwardingPort port, long connection, string reason)
    {
    }

    [Fact]
    public void AFrameIsShownOnceWithWhereItWent()
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        (ForwardingPort b, FakeLink linkB) = Plug("b");
        Plug("c");
        CaptureSession session = Capture();
        Send(b, linkB, Frames.Record(Frames.A, Frames.B));
        Send(a, linkA, Frames.Record(Frames.B, Frames.A, 100));

        (CaptureEntry flooded, byte[] first) = Next(session);
        Assert.Equal((b, false, 2, true, 0), (flooded.Port, flooded.IsOut, flooded.Verdict.Sent, flooded.Verdict.IsFlooded, flooded.Verdict.Dropped));
        Assert.Equal(Frames.Record(Frames.A, Frames.B)[VirtioNetHeader.Length..], first);
        (CaptureEntry forwarded, byte[] second) = Next(session);
        Assert.Equal((a, b, 1, false), (forwarded.Port, forwarded.Verdict.SentTo, forwarded.Verdict.Sent, forwarded.Verdict.IsFlooded));
        Assert.Equal((114, 114), (forwarded.OriginalLength, second.Length));
        Assert.InRange(DateTime.UnixEpoch.AddTicks(forwarded.Time / 100), DateTime.UtcNow.AddMinutes(-1), DateTime.UtcNow);
        Assert.False(session.TryTake(out _, out _));
        Assert.Equal((2L, 2L, 0L), (session.Seen, session.Matched, session.Missed));
    }

    [Fact]
    public void APortShowsWhatComesFromItAndWhatGoesToIt()
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        (ForwardingPort b, FakeLink linkB) = Plug("b");
        (ForwardingPort c, FakeLink linkC) = Plug("c");
        CaptureSession session = Capture(port: b.Name, directions: CaptureDirections.Both);
        Send(a, linkA, Frames.Record(MacAddress.Broadcast, Frames.A));
        Send(b, linkB, Frames.Record(Frames.A, Frames.B));
        Send(c, linkC, Frames.Record(Frames.A, Frames.C));
        Assert.Equal((b, true, 1, b), Summary(Next(session)));
        Assert.Equal((b, false, 1, a), Summary(Next(session)));
        Assert.False(session.TryTake(out _, out _));

        static (ForwardingPort, bool, int, ForwardingPort?) Summary((CaptureEntry Entry, byte[]) taken) =>
            (taken.Entry.Port, taken.Entry.IsOut, taken.Entry.Verdict.Sent, taken.Entry.Verdict.SentTo);
    }

    [Fact]
    public void DropsBearTheirCauseAndTheirPlace()
    {
        _forwarder.Apply(Settings with { IsolatePorts = true }, 0);
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        (ForwardingPort b, FakeLink linkB) = Plug("b");
        (ForwardingPort host, FakeLink hostLink) = Plug("host", PortRole.Host);
        Send(b, linkB, Frames.Record(MacAddress.Broadcast, Frames.B));
        Send(host, hostLink, Frames.Record(MacAddress.Broadcast, Frames.C));
        CaptureSession drops = Capture(dropsOnly: true), all = Capture(directions: CaptureDirections.Both);
        hostLink.Sending = SendStatus.Full;

        Send(a, linkA, Frames.Record(Frames.B, Frames.A), Frames.Record(Frames.C, Frames.A), new byte[20], Frames.Record(Frames.Station(1), Frames.A));
        Assert.Equal((a, DropCause.Isolated, 1), Summary(Next(drops)));
        Assert.Equal((host, DropCause.QueueFull, 1), Summary(Next(drops)));
        (CaptureEntry tooShort, byte[] octets) = Next(drops);
        Assert.Equal((DropCause.FrameTooShort, 8, 8), (tooShort.Verdict.Cause, tooShort.OriginalLength, octets.Length));
        Assert.Equal((host, DropCause.QueueFull, 1), Summary(Next(drops)));
        Assert.False(drops.TryTake(out _, out _));

        // The same with all that goes by: each frame as it came in, then as it did not go out.
        Assert.Equal([(false, a), (false, a), (true, host), (false, a), (false, a), (true, host)], Rest(all).Select(entry => (entry.IsOut, entry.Port)));

        static (ForwardingPort?, DropCause, int) Summary((CaptureEntry Entry, byte[]) taken) =>
            (taken.Entry.Verdict.DroppedAt, taken.Entry.Verdict.Cause, taken.Entry.Verdict.Dropped);
    }

    [Fact]
    public void AFloodTellsWhomItDidNotReach()
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        (ForwardingPort b, FakeLink linkB) = Plug("b");
        Plug("c");
        linkB.Sending = SendStatus.Refused;
        CaptureSession session = Capture(directions: CaptureDirections.Both);
        Send(a, linkA, Frames.Record(MacAddress.Broadcast, Frames.A));
        List<CaptureEntry> entries = Rest(session);
        Assert.Equal((1, 1, DropCause.DeviceDown, b), (entries[0].Verdict.Sent, entries[0].Verdict.Dropped, entries[0].Verdict.Cause, entries[0].Verdict.DroppedAt));
        Assert.Equal([(1, 0), (0, 1)], entries[1..].Select(entry => (entry.Verdict.Sent, entry.Verdict.Dropped)).OrderDescending());
    }

    [Fact]
    public void AFrameThatIsForwardedButNotLearnedIsNoDrop()
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        Plug("b");
        CaptureSession session = Capture();
        for (int i = 0; i < 3; i++)
            Send(a, linkA, Frames.Record(MacAddress.Broadcast, Frames.Station(i)));
        Assert.Equal([false, false, true], Rest(session).Select(entry => entry.Verdict.IsNotLearned));
        Assert.Equal(1, a.Drops(DropCause.MacTableFull));
    }

    [Fact]
    public void TheFilterIsAskedBeforeAnythingIsCopied()
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        // ldh [12]; jeq #0x88b5; ret #0; ret #1 and the other way round.
        CaptureSession none = Capture(filter: Program(0x88B5, 1, 0)), all = Capture(filter: Program(0x88B5, 0, 1));
        for (int i = 0; i < CaptureSession.MaxFrames + 10; i++)
            Send(a, linkA, Frames.Record(Frames.B, Frames.A));
        Assert.Equal((CaptureSession.MaxFrames + 10L, 0L, 0L), (none.Seen, none.Matched, none.Missed));
        Assert.Equal(CaptureSession.MaxFrames + 10L, all.Matched);

        static BpfProgram Program(uint type, uint otherwise, uint then) =>
            BpfProgram.TryCreate([new(0x28, 0, 0, 12), new(0x15, 1, 0, type), new(0x06, 0, 0, otherwise), new(0x06, 0, 0, then)], out _)!;
    }

    [Fact]
    public void AReaderThatIsTooSlowMissesFramesAndLearnsHowMany()
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        (ForwardingPort b, FakeLink linkB) = Plug("b");
        Send(b, linkB, Frames.Record(MacAddress.Broadcast, Frames.B));
        CaptureSession slow = Capture(), tiny = Capture(snapLength: 64);
        const int Sent = CaptureSession.MaxFrames + 1000, Length = 1414;
        for (int i = 0; i < Sent; i++)
            Send(a, linkA, Frames.Record(Frames.B, Frames.A, Length - 14));
        Assert.Equal(Sent, linkB.Sent.Count);
        Assert.Equal(0, b.Drops(DropCause.QueueFull));
        // One is bounded by octets, the other by frames.
        int fits = CaptureSession.MaxBytes / Length;
        Assert.Equal((Sent, Sent - fits), (slow.Matched, slow.Missed));
        Assert.Equal((Sent, 1000), (tiny.Matched, tiny.Missed));
        Assert.Equal(fits, Rest(slow).Count);
        Assert.Equal(CaptureSession.MaxFrames, Rest(tiny).Count);
        // And there is room again.
        Send(a, linkA, Frames.Record(Frames.B, Frames.A, 77));
        (CaptureEntry last, byte[] octets) = Next(slow);
        Assert.Equal((91, 91), (last.OriginalLength, octets.Length));
        (last, octets) = Next(tiny);
        Assert.Equal((91, 64), (last.OriginalLength, octets.Length));
    }

    [Fact]
    public void ACaptureThatEndsLeavesNothingBehind()
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        CaptureSession one = Capture(), two = Capture();
        _forwarder.RemoveCapture(one);
        Send(a, linkA, Frames.Record(Frames.B, Frames.A));
        Assert.Equal((CaptureEnd.Stopped, 0L), (one.Ended, one.Seen));
        Assert.Equal((CaptureEnd.NotYet, 1L), (two.Ended, two.Seen));
        _forwarder.Close();
        Assert.Equal(CaptureEnd.NetworkRemoved, two.Ended);
        _forwarder.RemoveCapture(two);
        Assert.Equal(CaptureEnd.NetworkRemoved, two.Ended);
        Assert.Equal(CaptureEnd.NetworkRemoved, Capture().Ended);
    }

    [Fact]
    public void CapturingAllocatesNothingOnTheForwardingThread()
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        CaptureSession session = Capture(directions: CaptureDirections.Both);
        byte[] record = Frames.Record(Frames.B, Frames.A, 1400);
        // The link of the test allocates; what is counted is the difference that a capture makes.
        long with = Allocated(), missed = session.Missed;
        _forwarder.RemoveCapture(session);
        Assert.Equal(Allocated(), with);
        Assert.Equal(0, missed);

        long Allocated()
        {
            for (int i = 0; i < 100; i++)
                linkA.Inbox.Enqueue(record);
            _forwarder.Serve(a, 1);
            _forwarder.OnTurn(1);
            for (int i = 0; i < 50; i++)
                linkA.Inbox.Enqueue(record);
            long before = GC.GetAllocatedBytesForCurrentThread();
            _forwarder.Serve(a, 1);
            return GC.GetAllocatedBytesForCurrentThread() - before;
        }
    }

    private CaptureSession Capture(string? port = null, CaptureDirections directions = CaptureDirections.In, BpfProgram? filter = null, int snapLength = FrameRecord.MaxFrameLength, bool dropsOnly = false)
    {
        var session = new CaptureSession("captures/1", new CaptureOptions(Network, port, directions, filter, "", snapLength, false, dropsOnly), DateTimeOffset.UnixEpoch);
        _forwarder.AddCapture(session);
        return session;
    }

    private static (CaptureEntry Entry, byte[] Octets) Next(CaptureSession session)
    {
        Assert.True(session.TryTake(out CaptureEntry entry, out Span<byte> octets));
        return (entry, octets.ToArray());
    }

    private static List<CaptureEntry> Rest(CaptureSession session)
    {
        var entries = new List<CaptureEntry>();
        while (session.TryTake(out CaptureEntry entry, out _))
            entries.Add(entry);
        return entries;
    }

    private (ForwardingPort Port, FakeLink Link) Plug(string id, PortRole role = PortRole.Guest)
    {
        ForwardingPort port = _forwarder.CreatePort($"{Network}/ports/{id}", role);
        _forwarder.AddPort(port);
        var link = new FakeLink();
        _forwarder.Connect(port, link, ++_connection, null);
        return (port, link);
    }

    private void Send(ForwardingPort port, FakeLink link, params byte[][] records)
    {
        foreach (byte[] record in records)
            link.Inbox.Enqueue(record);
        _forwarder.Serve(port, 1);
    }
}
