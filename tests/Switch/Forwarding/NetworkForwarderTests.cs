using VNetMesh.Links;
using VNetMesh.Packets;
using VNetMesh.Switch.Forwarding;
using VNetMesh.Switch.Registry;
using VNetMesh.Switch.Tests.Support;

namespace VNetMesh.Switch.Tests.Forwarding;

public sealed class NetworkForwarderTests : ILinkObserver
{
    private const long Second = 1_000_000;
    private static readonly ForwardingSettings Settings = new(Mtu: 1500, MacAgeing: 300 * Second, MaxMacs: 64, MaxMacsPerPort: 8, IsolatePorts: false);

    private readonly List<(string Port, long Connection, string Reason)> _lost = [];
    private readonly NetworkForwarder _forwarder;
    private long _now = Second;
    private long _connection;

    public NetworkForwarderTests() => _forwarder = new NetworkForwarder("networks/test", Settings, loop: null, this);

    void ILinkObserver.OnLinkLost(ForwardingPort port, long connection, string reason) => _lost.Add((port.Name, connection, reason));

    [Fact]
    public void UnknownUnicastGoesToEveryOtherPortAndLearnedUnicastToOne()
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        (ForwardingPort b, FakeLink linkB) = Plug("b");
        (_, FakeLink linkC) = Plug("c");

        Send(a, linkA, Frames.Record(Frames.B, Frames.A));
        Assert.Equal((0, 1, 1), (linkA.Sent.Count, linkB.Sent.Count, linkC.Sent.Count));
        Send(b, linkB, Frames.Record(Frames.A, Frames.B));
        Assert.Equal((1, 1, 1), (linkA.Sent.Count, linkB.Sent.Count, linkC.Sent.Count));
        Send(a, linkA, Frames.Record(Frames.B, Frames.A));
        Assert.Equal((1, 2, 1), (linkA.Sent.Count, linkB.Sent.Count, linkC.Sent.Count));
        Assert.Equal(Frames.Record(Frames.B, Frames.A), linkB.Sent[1]);
        Assert.Equal(2, _forwarder.MacCount);
    }

    [Theory]
    [InlineData("ff:ff:ff:ff:ff:ff")]
    [InlineData("01:00:5e:00:00:fb")]
    [InlineData("33:33:00:00:00:01")]
    public void GroupsGoToEveryOtherPort(string destination)
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        (_, FakeLink linkB) = Plug("b");
        (_, FakeLink linkC) = Plug("c");
        Send(a, linkA, Frames.Record(MacAddress.Parse(destination), Frames.A));
        Assert.Equal((0, 1, 1), (linkA.Sent.Count, linkB.Sent.Count, linkC.Sent.Count));
    }

    [Fact]
    public void AnAddressIsForgottenAfterItsTimeAndKeptByFrames()
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        (ForwardingPort b, FakeLink linkB) = Plug("b");
        (_, FakeLink linkC) = Plug("c");
        Send(b, linkB, Frames.Record(MacAddress.Broadcast, Frames.B));
        linkC.Sent.Clear();

        _now += 299 * Second;
        Send(a, linkA, Frames.Record(Frames.B, Frames.A));
        Assert.Empty(linkC.Sent);
        Send(b, linkB, Frames.Record(Frames.A, Frames.B));
        _now += 300 * Second;
        Send(a, linkA, Frames.Record(Frames.B, Frames.A));
        Assert.Empty(linkC.Sent);
        _now += 1;
        Send(a, linkA, Frames.Record(Frames.B, Frames.A));
        Assert.Single(linkC.Sent);
    }

    [Fact]
    public void TheSweepFreesTheTable()
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        Send(a, linkA, Frames.Record(MacAddress.Broadcast, Frames.A));
        Assert.Equal(1, _forwarder.MacCount);
        long next = _forwarder.OnTurn(_now);
        Assert.InRange(next, _now + Second, _now + (300 * Second));
        for (_now += 301 * Second; next < long.MaxValue; _now = Math.Max(_now, next))
            next = _forwarder.OnTurn(_now);
        Assert.Equal(0, _forwarder.MacCount);
    }

    [Fact]
    public void AnAddressMovesToThePortItWasSeenOnLast()
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        (ForwardingPort b, FakeLink linkB) = Plug("b");
        (ForwardingPort c, FakeLink linkC) = Plug("c");
        Send(a, linkA, Frames.Record(MacAddress.Broadcast, Frames.A));
        Send(b, linkB, Frames.Record(MacAddress.Broadcast, Frames.A));
        linkA.Sent.Clear();
        linkB.Sent.Clear();
        Send(c, linkC, Frames.Record(Frames.A, Frames.C));
        Assert.Empty(linkA.Sent);
        Assert.Single(linkB.Sent);
        Assert.Single(_forwarder.ListMacs(_now), entry => entry.Address == Frames.A && entry.Port == b.Name);
    }

    [Fact]
    public void BoundsOnAddressesHoldForGuestsAndForTheNetwork()
    {
        (ForwardingPort guest, FakeLink guestLink) = Plug("guest");
        (ForwardingPort host, FakeLink hostLink) = Plug("host", PortRole.Host);
        for (int i = 0; i < 20; i++)
            Send(guest, guestLink, Frames.Record(MacAddress.Broadcast, Frames.Station(i)));
        Assert.Equal(8, _forwarder.MacCount);
        Assert.Equal(12, guest.Drops(DropCause.MacTableFull));
        Assert.Equal(20, hostLink.Sent.Count);
        for (int i = 100; i < 200; i++)
            Send(host, hostLink, Frames.Record(MacAddress.Broadcast, Frames.Station(i)));
        Assert.Equal(64, _forwarder.MacCount);
        Assert.Equal(100 - 56, host.Drops(DropCause.MacTableFull));
    }

    [Fact]
    public void GuestsAreKeptApartWhereTheNetworkSaysSo()
    {
        _forwarder.Apply(Settings with { IsolatePorts = true }, _now);
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        (ForwardingPort b, FakeLink linkB) = Plug("b");
        (ForwardingPort host, FakeLink hostLink) = Plug("host", PortRole.Host);
        Send(b, linkB, Frames.Record(MacAddress.Broadcast, Frames.B));
        Assert.Empty(linkA.Sent);
        Assert.Single(hostLink.Sent);
        Send(a, linkA, Frames.Record(Frames.B, Frames.A));
        Assert.Empty(linkB.Sent);
        Assert.Equal(1, a.Drops(DropCause.Isolated));
        Send(host, hostLink, Frames.Record(Frames.B, Frames.C));
        Assert.Single(linkB.Sent);
    }

    [Fact]
    public void NothingGoesBackOutOfItsPort()
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        Plug("b");
        Send(a, linkA, Frames.Record(MacAddress.Broadcast, Frames.A), Frames.Record(MacAddress.Broadcast, Frames.C));
        Send(a, linkA, Frames.Record(Frames.C, Frames.A));
        Assert.Empty(linkA.Sent);
        Assert.Equal(1, a.Drops(DropCause.Hairpin));
    }

    public static TheoryData<string, byte[]> Malformed() => new()
    {
        { "frame_too_short", [] },
        { "frame_too_short", new byte[25] },
        { "frame_too_long", Frames.Record(Frames.B, Frames.A, 1505) },
        { "source_multicast", Frames.Record(Frames.B, MacAddress.Broadcast) },
        { "source_zero", Frames.Record(Frames.B, default) },
        { "link_local_multicast", Frames.Record(MacAddress.Parse("01:80:c2:00:00:0e"), Frames.A) },
        { "header_inconsistent", Frames.Record(Frames.B, Frames.A, 46, new VirtioNetHeader { Flags = VirtioNetHeader.FlagNeedsChecksum, ChecksumStart = 54, ChecksumOffset = 16 }) },
        { "header_inconsistent", Frames.Record(Frames.B, Frames.A, 46, new VirtioNetHeader { GsoType = 77 }) },
        { "header_inconsistent", Frames.Record(Frames.B, Frames.A, 46, new VirtioNetHeader { GsoType = VirtioNetHeader.GsoTcpv4 }) },
        { "segment_too_long", Frames.Record(Frames.B, Frames.A, 3000, Tso(1461)) },
    };

    [Theory]
    [MemberData(nameof(Malformed))]
    public void AMalformedFrameIsDroppedUnderItsCause(string cause, byte[] record)
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        (_, FakeLink linkB) = Plug("b");
        Send(a, linkA, record);
        Assert.Empty(linkB.Sent);
        Assert.Equal(cause, Assert.Single(CausesOf(a)));
        Assert.Equal(1, a.Counters.RxFrames);
        Assert.Equal(0, _forwarder.MacCount);
        Assert.Equal(1, DropCauses.All.ToArray().Sum(_forwarder.Counters.Drops));
    }

    [Fact]
    public void TheLargestFramesPass()
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        (_, FakeLink linkB) = Plug("b");
        Send(a, linkA, Frames.Record(Frames.B, Frames.A, 1504), Frames.Record(Frames.B, Frames.A, 65535, Tso(1460)));
        Assert.Equal(2, linkB.Sent.Count);
    }

    [Theory]
    [InlineData(SendStatus.Full, "queue_full", false)]
    [InlineData(SendStatus.Refused, "device_down", false)]
    [InlineData(SendStatus.Closed, "link_closed", true)]
    public void WhatCannotBeSentCountsWhereItShouldHaveGone(SendStatus status, string cause, bool isLost)
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        (ForwardingPort b, FakeLink linkB) = Plug("b");
        Send(b, linkB, Frames.Record(MacAddress.Broadcast, Frames.B));
        linkB.Sending = status;
        Send(a, linkA, Frames.Record(Frames.B, Frames.A));
        Assert.Equal(cause, Assert.Single(CausesOf(b)));
        Assert.Empty(CausesOf(a));
        Assert.Equal(isLost, linkB.IsDisposed);
        Assert.Equal(isLost ? 1 : 0, _lost.Count);
    }

    [Theory]
    [InlineData(ReceiveStatus.Closed)]
    [InlineData(ReceiveStatus.Broken)]
    public void ALinkThatEndsIsLetGoAndItsAddressesForgotten(ReceiveStatus status)
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        (ForwardingPort b, FakeLink linkB) = Plug("b");
        Send(b, linkB, Frames.Record(MacAddress.Broadcast, Frames.B));
        linkB.WhenEmpty = status;
        _forwarder.Serve(b, _now);
        Assert.True(linkB.IsDisposed);
        Assert.Equal(b.Name, Assert.Single(_lost).Port);
        Assert.Equal(0, _forwarder.MacCount);
        Assert.Equal(status == ReceiveStatus.Broken ? 1 : 0, b.Drops(DropCause.RingFault));
        Send(a, linkA, Frames.Record(Frames.B, Frames.A));
    }

    [Fact]
    public void ANewLinkReplacesTheOldWithoutALoss()
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        (ForwardingPort b, FakeLink oldLink) = Plug("b");
        var newLink = new FakeLink();
        string? released = null;
        _forwarder.Connect(b, newLink, ++_connection, reason => released = reason);
        Assert.True(oldLink.IsDisposed);
        Assert.Empty(_lost);
        Send(a, linkA, Frames.Record(Frames.B, Frames.A));
        Assert.Single(newLink.Sent);
        // The end of the old connection, heard of late, does not touch the new one.
        _forwarder.Disconnect(b, _connection - 1, "late");
        Assert.False(newLink.IsDisposed);
        _forwarder.Disconnect(b, _connection, "now");
        Assert.True(newLink.IsDisposed);
        Assert.Equal("now", released);
    }

    [Fact]
    public void ABusyPortLeavesTheOthersTheirTurn()
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        (_, FakeLink linkB) = Plug("b");
        for (int i = 0; i < 100; i++)
            linkA.Inbox.Enqueue(Frames.Record(Frames.B, Frames.A));
        int flushes = linkB.Flushes;
        _forwarder.OnTurn(_now);
        Assert.Equal(64, linkB.Sent.Count);
        Assert.False(_forwarder.PrepareToSleep());
        _forwarder.OnTurn(_now);
        Assert.Equal(100, linkB.Sent.Count);
        Assert.True(_forwarder.PrepareToSleep());
        // Once after each batch, not after each frame; and once for its own turn.
        Assert.Equal(3, linkB.Flushes - flushes);
        Assert.Equal(a.Counters.RxBytes, linkB.Sent.Sum(record => record.Length - VirtioNetHeader.Length));
    }

    [Fact]
    public void TheTraceOfARecordGoesWithIt()
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        (_, FakeLink linkB) = Plug("b");
        linkA.NextTrace = new TraceContext(1, 2, 3, true);
        Send(a, linkA, Frames.Record(Frames.B, Frames.A));
        Assert.Equal(new TraceContext(1, 2, 3, true), Assert.Single(linkB.Traces));
    }

    [Fact]
    public void APartialChecksumIsCompletedForALinkThatTakesNone()
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        (_, FakeLink linkB) = Plug("b", offloads: LinkOffloads.None);
        byte[] record = Frames.Record(Frames.B, Frames.A, 46, new VirtioNetHeader { Flags = VirtioNetHeader.FlagNeedsChecksum, ChecksumStart = 34, ChecksumOffset = 6 });
        for (int i = VirtioNetHeader.Length + 34; i < record.Length; i++)
            record[i] = (byte)i;
        Send(a, linkA, record);
        byte[] sent = Assert.Single(linkB.Sent);
        Assert.False(VirtioNetHeader.Read(sent).NeedsChecksum);
        // Summed with what the field held before, the whole is all ones.
        Assert.Equal(Checksum.Compute(record.AsSpan(VirtioNetHeader.Length + 34)), System.Buffers.Binary.BinaryPrimitives.ReadUInt16BigEndian(sent.AsSpan(VirtioNetHeader.Length + 40)));
    }

    [Fact]
    public void SettingsKeepWhatWasLearned()
    {
        (ForwardingPort a, FakeLink linkA) = Plug("a", PortRole.Host);
        for (int i = 0; i < 10; i++)
            Send(a, linkA, Frames.Record(MacAddress.Broadcast, Frames.Station(i)));
        _forwarder.Apply(Settings with { MaxMacs = 4 }, _now);
        Assert.Equal(4, _forwarder.MacCount);
        _forwarder.Apply(Settings with { MaxMacs = 1000 }, _now);
        Assert.Equal(4, _forwarder.MacCount);
    }

    [Fact]
    public void ForwardingAllocatesNothing()
    {
        ForwardingPort a = Add("a", PortRole.Guest), b = Add("b", PortRole.Guest), c = Add("c", PortRole.Guest);
        var source = new EndlessLink(Frames.Record(Frames.B, Frames.A, 1400));
        var broadcaster = new EndlessLink(Frames.Record(MacAddress.Broadcast, Frames.C));
        _forwarder.Connect(a, source, 1, null);
        _forwarder.Connect(b, new EndlessLink(Frames.Record(Frames.A, Frames.B)), 2, null);
        _forwarder.Connect(c, broadcaster, 3, null);
        for (int i = 0; i < 100; i++)
            Turn();
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < 200; i++)
            Turn();
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
        Assert.True(_forwarder.Counters.RxFrames > 200 * 3 * 60);

        void Turn()
        {
            _now += 1000;
            _forwarder.OnTurn(_now);
            _forwarder.PrepareToSleep();
        }
    }

    [Fact]
    public void ABroadcasterToManyPortsLeavesTheOthersTheirTurns()
    {
        for (int i = 0; i < 500; i++)
            Plug("idle" + i);
        ForwardingPort loud = Add("loud", PortRole.Guest);
        _forwarder.Connect(loud, new EndlessLink(Frames.Record(MacAddress.Broadcast, Frames.C)), 1, null);
        (ForwardingPort a, FakeLink linkA) = Plug("a");
        (ForwardingPort b, FakeLink linkB) = Plug("b");
        Send(b, linkB, Frames.Record(Frames.A, Frames.B));
        Turn();
        long before = loud.Counters.RxFrames;
        for (int i = 0; i < 10; i++)
            linkA.Inbox.Enqueue(Frames.Record(Frames.B, Frames.A));
        _forwarder.Serve(a, _now);
        Turn();
        Assert.True(a.Counters.RxFrames >= 10 && b.Counters.TxFrames >= 10);
        // One broadcast is 500 frames: more than one of them was not to be had in a turn.
        Assert.Equal(1, loud.Counters.RxFrames - before);

        void Turn()
        {
            _now += 1000;
            _forwarder.OnTurn(_now);
            _forwarder.PrepareToSleep();
        }
    }

    private static VirtioNetHeader Tso(ushort size) => new()
    {
        Flags = VirtioNetHeader.FlagNeedsChecksum,
        ChecksumStart = 34,
        ChecksumOffset = 16,
        GsoType = VirtioNetHeader.GsoTcpv4,
        GsoSize = size,
        HeaderLength = 54,
    };

    private ForwardingPort Add(string id, PortRole role)
    {
        ForwardingPort port = _forwarder.CreatePort("networks/test/ports/" + id, role);
        _forwarder.AddPort(port);
        return port;
    }

    private (ForwardingPort Port, FakeLink Link) Plug(string id, PortRole role = PortRole.Guest, LinkOffloads offloads = LinkOffloads.All)
    {
        ForwardingPort port = Add(id, role);
        var link = new FakeLink(offloads);
        _forwarder.Connect(port, link, ++_connection, null);
        return (port, link);
    }

    private void Send(ForwardingPort port, FakeLink link, params byte[][] records)
    {
        foreach (byte[] record in records)
            link.Inbox.Enqueue(record);
        _forwarder.Serve(port, _now);
    }

    private static List<string> CausesOf(ForwardingPort port) => [.. DropCauses.All.ToArray().Where(cause => port.Drops(cause) > 0).Select(DropCauses.NameOf)];

    /// <summary>Gives the same record for ever, and swallows what is sent.</summary>
    private sealed class EndlessLink(byte[] record) : IFrameLink
    {
        public int Descriptor => -1;

        public LinkOffloads Offloads => LinkOffloads.All;

        public ReceiveStatus TryReceive(out ReadOnlySpan<byte> next, out TraceContext trace)
        {
            next = record;
            trace = default;
            return ReceiveStatus.Received;
        }

        public SendStatus TrySend(ReadOnlySpan<byte> sent, in TraceContext trace) => SendStatus.Sent;

        public Span<byte> Reserve(int length) => default;

        public SendStatus Commit(int length, in TraceContext trace) => SendStatus.Sent;

        public void Flush()
        {
        }

        public bool PrepareToSleep() => true;

        public void Dispose()
        {
        }
    }
}
