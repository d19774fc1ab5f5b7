using System.Buffers.Binary;
using System.Net.Sockets;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Links.Tests;

/// <summary>The link of a VM's socket, with a real socket and a far side that speaks the framing by hand.</summary>
public sealed class StreamSocketLinkTests : IDisposable
{
    private readonly Socket _far;
    private readonly Socket _near;

    public StreamSocketLinkTests()
    {
        string path = Path.Combine(Path.GetTempPath(), $"vnml-{Guid.NewGuid():N}");
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(path));
        listener.Listen(1);
        _far = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = 5000 };
        _far.Connect(new UnixDomainSocketEndPoint(path));
        _near = listener.Accept();
        File.Delete(path);
    }

    public void Dispose()
    {
        _far.Dispose();
        _near.Dispose();
    }

    [Fact]
    public void Frames_go_both_ways_with_their_lengths_in_front()
    {
        using StreamSocketLink link = Open();
        Assert.Null(StreamSocketLink.Inspect(Duplicate()));
        _far.Send([.. Framed(Frame(60, 1)), .. Framed(Frame(1514, 2)), .. Framed(Frame(FrameRecord.MaxFrameLength, 3))]);
        foreach ((int length, byte mark) in new[] { (60, (byte)1), (1514, (byte)2), (FrameRecord.MaxFrameLength, (byte)3) })
        {
            Assert.Equal(ReceiveStatus.Received, link.TryReceive(out ReadOnlySpan<byte> record, out _));
            // An empty virtio_net_hdr, whose num_buffers says one.
            Assert.Equal((byte[])[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], record[..VirtioNetHeader.Length].ToArray());
            Assert.True(record[VirtioNetHeader.Length..].SequenceEqual(Frame(length, mark)));
        }
        Assert.Equal(ReceiveStatus.Empty, link.TryReceive(out _, out _));

        Assert.Equal(SendStatus.Sent, link.TrySend(Record(Frame(60, 4)), default));
        Frame(1514, 5).CopyTo(link.Reserve(VirtioNetHeader.Length + 1514)[VirtioNetHeader.Length..]);
        Assert.Equal(SendStatus.Sent, link.Commit(VirtioNetHeader.Length + 1514, default));
        link.Flush();
        Assert.Equal(Frame(60, 4), ReadFrame());
        Assert.Equal(Frame(1514, 5), ReadFrame());
    }

    [Theory]
    [InlineData(0u)]
    [InlineData(FrameRecord.MaxFrameLength + 1u)]
    [InlineData(uint.MaxValue)]
    public void A_length_that_no_frame_has_ends_the_link_and_the_connection(uint length)
    {
        using (StreamSocketLink link = Open())
        {
            byte[] prefix = new byte[4];
            BinaryPrimitives.WriteUInt32BigEndian(prefix, length);
            _far.Send([.. Framed(Frame(60, 1)), .. prefix, .. Frame(60, 2)]);
            Assert.Equal(ReceiveStatus.Received, link.TryReceive(out _, out _));
            Assert.Equal(ReceiveStatus.Broken, link.TryReceive(out _, out _));
            Assert.Contains("length", link.Fault, StringComparison.Ordinal);
            Assert.True(link.PrepareToSleep());
        }
        // Also while a duplicate is held elsewhere, as the agent does.
        Assert.Equal(0, _far.Receive(new byte[1]));
    }

    [Fact]
    public void A_far_side_that_closes_ends_the_link()
    {
        using StreamSocketLink link = Open();
        _far.Send([.. Framed(Frame(60, 1)), 0, 0, 0, 60, 9]);
        _far.Close();
        Assert.Equal(ReceiveStatus.Received, link.TryReceive(out _, out _));
        // Half a frame is left in the socket: as a loop does it, the link is asked until it may sleep.
        ReceiveStatus status = ReceiveStatus.Empty;
        do
            status = link.TryReceive(out _, out _);
        while (status == ReceiveStatus.Empty && !link.PrepareToSleep());
        Assert.Equal(ReceiveStatus.Closed, status);
    }

    [Fact]
    public void Another_process_goes_on_where_one_was_killed()
    {
        using (StreamSocketLink killed = Open())
        {
            _far.Send([.. Framed(Frame(60, 1)), .. Framed(Frame(70, 2)), .. Framed(Frame(80, 3))[..30]]);
            Assert.Equal(ReceiveStatus.Received, killed.TryReceive(out _, out _));
            Assert.Equal(ReceiveStatus.Received, killed.TryReceive(out _, out _));
            // Its end does what a kill does: it closes descriptors, and touches the stream no more.
        }
        using StreamSocketLink heir = Open();
        _far.Send(Framed(Frame(80, 3))[30..]);
        var seen = new List<int>();
        while (heir.TryReceive(out ReadOnlySpan<byte> record, out _) == ReceiveStatus.Received)
            seen.Add(record.Length - VirtioNetHeader.Length);
        // What had been forwarded may come again; nothing is lost, and nothing is out of step.
        Assert.Equal((int[])[60, 70, 80], seen);
    }

    [Fact]
    public void What_is_written_ends_with_a_whole_frame_also_when_the_socket_is_full()
    {
        int sent = 0;
        using (StreamSocketLink killed = Open())
        {
            while (killed.TrySend(Record(Frame(1514, (byte)sent)), default) == SendStatus.Sent)
            {
                sent++;
                if (sent % 64 == 0)
                    killed.Flush();
            }
            Assert.InRange(sent, StreamSocketLink.QueueCapacity / 1600, 10_000);
        }
        using StreamSocketLink heir = Open();
        byte[] expected = Frame(60, 77);
        int arrived = 0;
        _far.ReceiveTimeout = 200;
        _far.Blocking = true;
        while (_far.Available > 0)
        {
            Assert.Equal(Frame(1514, (byte)arrived), ReadFrame());
            arrived++;
        }
        Assert.InRange(arrived, 1, sent);
        Assert.Equal(SendStatus.Sent, heir.TrySend(Record(expected), default));
        heir.Flush();
        Assert.Equal(expected, ReadFrame());
    }

    [Fact]
    public void A_frame_in_crumbs_arrives()
    {
        using StreamSocketLink link = Open();
        byte[] framed = Framed(Frame(1514, 6));
        int received = 0;
        foreach (byte crumb in framed)
        {
            _far.Send([crumb]);
            while (link.TryReceive(out ReadOnlySpan<byte> record, out _) == ReceiveStatus.Received)
            {
                Assert.True(record[VirtioNetHeader.Length..].SequenceEqual(Frame(1514, 6)));
                received++;
            }
        }
        _far.Send(Framed(Frame(60, 7)));
        Assert.Equal(ReceiveStatus.Received, link.TryReceive(out ReadOnlySpan<byte> next, out _));
        Assert.True(next[VirtioNetHeader.Length..].SequenceEqual(Frame(60, 7)));
        Assert.Equal(1, received);
    }

    [Fact]
    public void Half_a_frame_wakes_nobody_and_its_rest_does()
    {
        using StreamSocketLink link = Open();
        using var watch = new Watch(link.Descriptor);
        byte[] framed = Framed(Frame(60, 1));
        _far.Send(framed[..20]);
        Assert.True(watch.IsReady());
        Sleep(link);
        Assert.False(watch.IsReady());
        _far.Send(framed[20..]);
        Assert.True(watch.IsReady());
        Assert.Equal(ReceiveStatus.Received, link.TryReceive(out _, out _));
    }

    [Fact]
    public void Room_in_a_full_socket_wakes_the_sender_and_what_waited_is_sent()
    {
        using StreamSocketLink link = Open();
        using var watch = new Watch(link.Descriptor);
        int sent = 0;
        while (link.TrySend(Record(Frame(1514, (byte)sent)), default) == SendStatus.Sent)
            sent++;
        Sleep(link);
        Assert.False(watch.IsReady());
        int arrived = 0;
        while (arrived < sent)
        {
            Assert.Equal(Frame(1514, (byte)arrived++), ReadFrame());
            if (watch.IsReady(0))
                Sleep(link);
        }
        Assert.False(_far.Poll(1000, SelectMode.SelectRead));
    }

    [Fact]
    public void Nothing_is_allocated_for_a_frame()
    {
        using StreamSocketLink link = Open();
        byte[] record = Record(Frame(1514, 1)), framed = Framed(Frame(1514, 2)), buffer = new byte[65536];
        for (int round = 0; round < 3; round++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            for (int i = 0; i < 32; i++)
            {
                link.TrySend(record, default);
                link.Flush();
                link.TryReceive(out _, out _);
                link.PrepareToSleep();
            }
            long allocated = GC.GetAllocatedBytesForCurrentThread() - before;
            for (int i = 0; i < 32; i++)
                _far.Send(framed);
            while (_far.Available > 0)
                _far.Receive(buffer);
            if (round == 2)
                Assert.Equal(0, allocated);
        }
    }

    private static void Sleep(StreamSocketLink link)
    {
        do
            while (link.TryReceive(out _, out _) == ReceiveStatus.Received);
        while (!link.PrepareToSleep());
    }

    private static byte[] Frame(int length, byte mark)
    {
        byte[] frame = new byte[length];
        frame.AsSpan().Fill(mark);
        return frame;
    }

    private static byte[] Framed(byte[] frame)
    {
        byte[] framed = new byte[4 + frame.Length];
        BinaryPrimitives.WriteInt32BigEndian(framed, frame.Length);
        frame.CopyTo(framed, 4);
        return framed;
    }

    private static byte[] Record(byte[] frame) => [.. new byte[VirtioNetHeader.Length], .. frame];

    private byte[] ReadFrame()
    {
        byte[] frame = new byte[BinaryPrimitives.ReadInt32BigEndian(Read(4))];
        Read(frame.Length).CopyTo(frame, 0);
        return frame;
    }

    private byte[] Read(int length)
    {
        byte[] buffer = new byte[length];
        for (int at = 0; at < length;)
        {
            int count = _far.Receive(buffer, at, length - at, SocketFlags.None);
            Assert.NotEqual(0, count);
            at += count;
        }
        return buffer;
    }

    private StreamSocketLink Open() => new(Duplicate());

    private FileDescriptor Duplicate() => new(Syscall.Check(Fcntl.fcntl((int)_near.SafeHandle.DangerousGetHandle(), Fcntl.F_DUPFD_CLOEXEC, 0), "fcntl"));

    /// <summary>What a loop sees of a link.</summary>
    private sealed unsafe class Watch : IDisposable
    {
        private readonly FileDescriptor _epoll = new(Syscall.Check(SysEpoll.epoll_create1(SysEpoll.EPOLL_CLOEXEC), "epoll_create1"));

        public Watch(int descriptor)
        {
            var wanted = new SysEpoll.epoll_event { events = SysEpoll.EPOLLIN };
            Syscall.Check(SysEpoll.epoll_ctl(_epoll.Number, SysEpoll.EPOLL_CTL_ADD, descriptor, &wanted), "epoll_ctl");
        }

        public bool IsReady(int milliseconds = 20)
        {
            SysEpoll.epoll_event ready;
            return SysEpoll.epoll_wait(_epoll.Number, &ready, 1, milliseconds) > 0;
        }

        public void Dispose() => _epoll.Dispose();
    }
}
