using System.Net.Sockets;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Links.Tests;

/// <summary>The link of a VM's datagram socket, with a real socket.</summary>
public sealed class DatagramSocketLinkTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("vn-dgram").FullName;
    private readonly Socket _near = New();
    private Socket _far = New();

    public DatagramSocketLinkTests()
    {
        _near.Bind(Near);
        _far.Bind(Far);
        _near.Connect(Far);
    }

    private UnixDomainSocketEndPoint Near => new(Path.Combine(_directory, "near"));

    private UnixDomainSocketEndPoint Far => new(Path.Combine(_directory, "far"));

    public void Dispose()
    {
        _far.Dispose();
        _near.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    [Fact]
    public void Each_frame_is_a_datagram()
    {
        using DatagramSocketLink link = Open();
        foreach (int length in (int[])[60, 1514, FrameRecord.MaxFrameLength])
        {
            _far.SendTo(Frame(length, 1), Near);
            Assert.Equal(ReceiveStatus.Received, link.TryReceive(out ReadOnlySpan<byte> record, out _));
            Assert.Equal((byte[])[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], record[..VirtioNetHeader.Length].ToArray());
            Assert.True(record[VirtioNetHeader.Length..].SequenceEqual(Frame(length, 1)));
            Assert.Equal(ReceiveStatus.Empty, link.TryReceive(out _, out _));

            Assert.Equal(SendStatus.Sent, link.TrySend(Record(Frame(length, 2)), default));
            Assert.Equal(Frame(length, 2), Read());
        }
    }

    [Fact]
    public void Nothing_and_too_much_are_records_that_no_frame_has()
    {
        using DatagramSocketLink link = Open();
        _far.SendTo(Array.Empty<byte>(), Near);
        _far.SendTo(new byte[FrameRecord.MaxFrameLength + 100], Near);
        Assert.Equal(ReceiveStatus.Received, link.TryReceive(out ReadOnlySpan<byte> record, out _));
        Assert.True(record.Length < FrameRecord.MinLength);
        Assert.Equal(ReceiveStatus.Received, link.TryReceive(out record, out _));
        Assert.True(record.Length > FrameRecord.MaxLength);
        Assert.Equal(ReceiveStatus.Empty, link.TryReceive(out _, out _));
    }

    [Fact]
    public void What_finds_no_room_waits_and_goes_out_in_order()
    {
        using DatagramSocketLink link = Open();
        int sent = 0;
        while (sent < 100 && link.TrySend(Record(Frame(1514, (byte)sent)), default) == SendStatus.Sent)
            sent++;
        Assert.Equal(100, sent);
        for (int i = 0; i < sent; i++)
        {
            Assert.Equal(Frame(1514, (byte)i), Read());
            // A loop is woken by the room, and asks for frames.
            Assert.Equal(ReceiveStatus.Empty, link.TryReceive(out _, out _));
        }
    }

    [Fact]
    public void A_far_side_that_does_not_read_loses_what_is_beyond_the_queue()
    {
        using DatagramSocketLink link = Open();
        int sent = 0;
        while (sent < 10_000 && link.TrySend(Record(Frame(1514, 0)), default) == SendStatus.Sent)
            sent++;
        Assert.InRange(sent, DatagramSocketLink.QueueCapacity / 1600, 9_999);
        Assert.Equal(SendStatus.Full, link.TrySend(Record(Frame(1514, 0)), default));
    }

    [Fact]
    public void A_far_side_that_goes_ends_nothing_and_another_takes_its_place()
    {
        using DatagramSocketLink link = Open();
        _far.Dispose();
        Assert.Equal(SendStatus.Refused, link.TrySend(Record(Frame(60, 1)), default));
        Assert.Equal(ReceiveStatus.Empty, link.TryReceive(out _, out _));
        File.Delete(Path.Combine(_directory, "far"));
        _far = New();
        _far.Bind(Far);
        // Whoever has a duplicate connects it.
        _near.Connect(Far);
        Assert.Equal(SendStatus.Sent, link.TrySend(Record(Frame(60, 2)), default));
        Assert.Equal(Frame(60, 2), Read());
    }

    [Fact]
    public void Only_a_datagram_socket_passes()
    {
        using FileDescriptor duplicate = Duplicate();
        Assert.True(DatagramSocketLink.Inspect(duplicate));
        using var stream = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        using var other = new FileDescriptor(Syscall.Check(Fcntl.fcntl((int)stream.SafeHandle.DangerousGetHandle(), Fcntl.F_DUPFD_CLOEXEC, 0), "fcntl"));
        Assert.False(DatagramSocketLink.Inspect(other));
    }

    private static Socket New() => new(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified) { ReceiveTimeout = 5000, SendBufferSize = 1024 * 1024 };

    private static byte[] Frame(int length, byte mark)
    {
        byte[] frame = new byte[length];
        frame.AsSpan().Fill(mark);
        return frame;
    }

    private static byte[] Record(byte[] frame) => [.. new byte[VirtioNetHeader.Length], .. frame];

    private byte[] Read()
    {
        byte[] buffer = new byte[FrameRecord.MaxFrameLength];
        return buffer[.._far.Receive(buffer)];
    }

    private DatagramSocketLink Open() => new(Duplicate());

    private FileDescriptor Duplicate() => new(Syscall.Check(Fcntl.fcntl((int)_near.SafeHandle.DangerousGetHandle(), Fcntl.F_DUPFD_CLOEXEC, 0), "fcntl"));
}
