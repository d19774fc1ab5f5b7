using VNetMesh.Nat.Tcp;

namespace VNetMesh.Nat.Tests.Tcp;

/// <summary>Whole transfers over a link that misbehaves, in virtual time.</summary>
public sealed class TransferTests
{
    public static TheoryData<double, double, double, long, int> Matrix()
    {
        var data = new TheoryData<double, double, double, long, int>();
        foreach (double loss in (double[])[0, 0.01, 0.1, 0.25])
        {
            foreach (double reorder in (double[])[0, 0.2])
            {
                foreach (long delay in (long[])[50, 5_000])
                {
                    foreach (int buffer in (int[])[16 * 1024, 512 * 1024])
                        data.Add(loss, reorder == 0 ? 0 : 0.05, reorder, delay, buffer);
                }
            }
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Matrix))]
    public void BothWaysArriveWholeAndInOrder(double loss, double duplicate, double reorder, long delay, int buffer)
    {
        var options = new TcpOptions { ReceiveBuffer = buffer, SendBuffer = buffer, MaxRetransmits = 30, TimeWait = 1_200_000_000, HandshakeTimeout = 600_000_000 };
        var link = new SimulatedLink(42, new LinkBehaviour(loss, duplicate, reorder, delay), options, options);
        link.Connect();
        byte[] up = Bytes(1, 300_000), down = Bytes(2, 700_000);
        link.Guest.Queue(up, thenShutdown: true);
        link.Gateway.Queue(down, thenShutdown: true);
        link.Run(3_600_000_000, () => link.Guest.Closed is not null && link.Gateway.Closed is not null);
        Assert.Equal(TcpCloseReason.Normal, link.Guest.Closed);
        Assert.Equal(TcpCloseReason.Normal, link.Gateway.Closed);
        AssertSame(up, link.Gateway.Received.ToArray(), "guest to gateway");
        AssertSame(down, link.Guest.Received.ToArray(), "gateway to guest");
        Assert.Equal(0, link.Guest.Pool.Rented);
        Assert.Equal(0, link.Gateway.Pool.Rented);
    }

    public static TheoryData<string, int> Guests()
    {
        var data = new TheoryData<string, int>();
        foreach (string kind in (string[])["plain", "no sack", "no timestamps", "no scale", "nothing", "mtu 576", "mtu 65535", "no cutting", "bursts", "full link", "small windows", "few buffers"])
        {
            for (int seed = 1; seed <= 4; seed++)
                data.Add(kind, seed);
        }
        return data;
    }

    [Theory]
    [MemberData(nameof(Guests))]
    public void EveryKindOfGuestIsServedWhole(string kind, int seed)
    {
        var options = new TcpOptions { MaxRetransmits = 30, TimeWait = 1_200_000_000, HandshakeTimeout = 600_000_000 };
        TcpOptions guest = kind switch
        {
            "mtu 576" => options with { Mtu = 576 },
            "mtu 65535" => options with { Mtu = 65535 },
            "no cutting" => options with { MaxTransmit = 0 },
            "small windows" => options with { ReceiveBuffer = 2048, SendBuffer = 2048 },
            _ => options,
        };
        var behaviour = new LinkBehaviour(Loss: 0.03, Duplicate: 0.02, Reorder: 0.05, Delay: 200);
        behaviour = kind switch
        {
            "no sack" => behaviour with { Sack = false },
            "no timestamps" => behaviour with { Timestamps = false },
            "no scale" => behaviour with { Scale = false },
            "nothing" => behaviour with { Sack = false, Timestamps = false, Scale = false },
            "bursts" => behaviour with { Loss = 0.005, Burst = 30 },
            "full link" => behaviour with { QueueLimit = 8 },
            "few buffers" => behaviour with { Buffers = 32 * 1024 },
            _ => behaviour,
        };
        var link = new SimulatedLink(seed, behaviour, guest, kind == "no cutting" ? guest : options);
        link.Connect();
        byte[] up = Bytes(seed, 250_000), down = Bytes(seed + 100, 400_000);
        link.Guest.Queue(up, thenShutdown: true);
        link.Gateway.Queue(down, thenShutdown: true);
        link.Run(3_600_000_000, () => link.Guest.Closed is not null && link.Gateway.Closed is not null);
        Assert.Equal((TcpCloseReason.Normal, TcpCloseReason.Normal), (link.Guest.Closed, link.Gateway.Closed));
        AssertSame(up, link.Gateway.Received.ToArray(), "guest to gateway");
        AssertSame(down, link.Guest.Received.ToArray(), "gateway to guest");
        Assert.Equal((250_000, 400_000), (link.Guest.Connection.BytesSent, link.Gateway.Connection.BytesSent));
        Assert.Equal((400_000, 250_000), (link.Guest.Connection.BytesDelivered, link.Gateway.Connection.BytesDelivered));
        Assert.Equal(0, link.Guest.Pool.Rented + link.Gateway.Pool.Rented);
    }

    [Fact]
    public void ALostSegmentNowAndThenCostsNoTimeout()
    {
        // A round trip of 1 ms: recovery by acknowledgements takes a few of them, each time-out 200.
        var link = new SimulatedLink(9, new LinkBehaviour(Loss: 0.0005, Delay: 500));
        link.Connect();
        long start = link.Now;
        byte[] down = Bytes(1, 20_000_000);
        link.Gateway.Queue(down, thenShutdown: true);
        link.Run(600_000_000, () => link.Guest.PeerEnded);
        AssertSame(down, link.Guest.Received.ToArray(), "gateway to guest");
        Assert.InRange(link.Gateway.Connection.Retransmits, 1, 40); // some 14,000 segments
        Assert.InRange(link.Now - start, 1, 1_000_000);
    }

    [Fact]
    public void ALosslessLinkNeedsNoRetransmission()
    {
        var link = new SimulatedLink(1, new LinkBehaviour());
        link.Connect();
        link.Guest.Queue(Bytes(1, 5_000_000), thenShutdown: true);
        link.Gateway.Queue(Bytes(2, 5_000_000), thenShutdown: true);
        link.Run(600_000_000, () => link.Guest.PeerEnded && link.Gateway.PeerEnded);
        Assert.True(link.Guest.PeerEnded && link.Gateway.PeerEnded);
        Assert.Equal(0, link.Guest.Connection.Retransmits + link.Gateway.Connection.Retransmits);
    }

    [Fact]
    public void AfterHalfCloseTheOtherHalfGoesOn()
    {
        var link = new SimulatedLink(3, new LinkBehaviour(Loss: 0.05));
        link.Connect();
        byte[] question = Bytes(1, 1000), answer = Bytes(2, 400_000);
        link.Guest.Queue(question, thenShutdown: true);
        link.Run(60_000_000, () => link.Gateway.PeerEnded);
        Assert.Equal(TcpState.CloseWait, link.Gateway.Connection.State);
        link.Gateway.Queue(answer, thenShutdown: true);
        link.Run(600_000_000, () => link.Guest.PeerEnded);
        Assert.True(answer.AsSpan().SequenceEqual(link.Guest.Received.ToArray()));
        link.Run(600_000_000, () => link.Guest.Closed is not null && link.Gateway.Closed is not null);
        Assert.Equal(TcpCloseReason.Normal, link.Gateway.Closed);
    }

    [Fact]
    public void AStalledReaderStopsTheSenderAtTheWindowsAndLosesNothing()
    {
        var options = new TcpOptions { ReceiveBuffer = 65536, SendBuffer = 65536 };
        var link = new SimulatedLink(4, new LinkBehaviour(), options, options);
        link.Connect();
        byte[] data = Bytes(1, 1_000_000);
        link.Gateway.Appetite = 0;
        link.Guest.Queue(data, thenShutdown: true);
        link.Run(300_000_000, () => false);
        Assert.InRange(link.Gateway.Connection.ReceiveBuffered, 60_000, 65536);
        Assert.InRange(link.Guest.Connection.SendQueued, 60_000, 65536);
        Assert.Null(link.Guest.Closed); // probes were answered: five minutes of a closed window end nothing
        link.Gateway.Appetite = 5000;
        link.Run(600_000_000, () => link.Gateway.PeerEnded);
        Assert.True(data.AsSpan().SequenceEqual(link.Gateway.Received.ToArray()));
    }

    [Fact]
    public void AGuestThatNeverAnswersIsGivenUp()
    {
        var link = new SimulatedLink(5, new LinkBehaviour());
        link.Connect();
        link.Cut = true;
        link.Gateway.Queue(Bytes(1, 1000), thenShutdown: false);
        link.Run(3_600_000_000, () => link.Gateway.Closed is not null);
        Assert.Equal(TcpCloseReason.RetransmissionTimeout, link.Gateway.Closed);
        Assert.Equal(0, link.Gateway.Pool.Rented);
    }

    [Fact]
    public void AnUnfinishedHandshakeEndsInFifteenSeconds()
    {
        var link = new SimulatedLink(6, new LinkBehaviour()) { Cut = true };
        long start = link.Now;
        link.Guest.Connection.Open(link.Now);
        link.Run(60_000_000, () => link.Guest.Closed is not null);
        Assert.Equal(TcpCloseReason.HandshakeTimeout, link.Guest.Closed);
        Assert.Equal(15_000_000, link.Now - start);
        Assert.Equal(3, link.Guest.Connection.Retransmits); // at 1, 3 and 7 s
    }

    private static void AssertSame(byte[] sent, byte[] received, string way) =>
        Assert.True(sent.AsSpan().SequenceEqual(received),
            $"{way}: {received.Length} of {sent.Length} octets, the first {sent.AsSpan().CommonPrefixLength(received)} of them right");

    private static byte[] Bytes(int seed, int length)
    {
        byte[] bytes = new byte[length];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }
}
