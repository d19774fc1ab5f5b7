using System.Text;
using CsCheck;
using VNetMesh.Native;

namespace VNetMesh.Links.Tests;

[Collection(CountsDescriptors.Name)]
public sealed class HandoffTests
{
    private static readonly byte[] Token = [.. Enumerable.Range(1, 16).Select(i => (byte)i)];

    [Fact]
    public void The_request_has_the_octets_that_are_documented()
    {
        byte[] bytes = new byte[HandoffRequest.Length];
        new HandoffRequest(HandoffKind.Ring, new UInt128(0x0102030405060708, 0x090A0B0C0D0E0F10), 0x0010_0000, LinkOffloads.All).Write(bytes);
        Assert.Equal(
            "564E484F" + // magic "VNHO"
            "0001" + // version
            "0002" + // kind: ring
            "0102030405060708090A0B0C0D0E0F10" + // token
            "00100000" + // capacity
            "0000000F", // offloads: checksum, TSO4, TSO6, USO
            Convert.ToHexString(bytes));
    }

    [Fact]
    public void The_response_has_the_octets_that_are_documented()
    {
        byte[] bytes = new byte[HandoffResponse.MaxLength];
        int length = new HandoffResponse(HandoffStatus.TokenUnknown, 0x0010_0000, LinkOffloads.Checksum, "no").Write(bytes);
        Assert.Equal(
            "564E484F" + // magic "VNHO"
            "0001" + // version
            "0002" + // status: token unknown
            "00100000" + // capacity
            "00000001" + // offloads
            "6E6F", // reason
            Convert.ToHexString(bytes, 0, length));
    }

    [Fact]
    public void Requests_survive_the_round_trip() =>
        Gen.Select(Gen.Bool, Gen.ULong, Gen.ULong, Gen.Int, Gen.Int[0, 7]).Sample((isTap, high, low, capacity, offloads) =>
        {
            var request = new HandoffRequest(isTap ? HandoffKind.Tap : HandoffKind.Ring, new UInt128(high, low), capacity, (LinkOffloads)offloads);
            byte[] bytes = new byte[HandoffRequest.Length];
            request.Write(bytes);
            return HandoffRequest.TryParse(bytes, out HandoffRequest read) && read == request
                && !HandoffRequest.TryParse(bytes.AsSpan(1), out _) && !HandoffRequest.TryParse([.. bytes, 0], out _);
        });

    [Fact]
    public void Responses_survive_the_round_trip_and_long_reasons_are_cut_between_characters() =>
        Gen.Select(Gen.UShort[0, 9], Gen.Int, Gen.String[0, 700]).Sample((status, capacity, reason) =>
        {
            byte[] bytes = new byte[HandoffResponse.MaxLength];
            int length = new HandoffResponse((HandoffStatus)status, capacity, LinkOffloads.None, reason).Write(bytes);
            string clean = Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(reason));
            return HandoffResponse.TryParse(bytes.AsSpan(0, length), out HandoffResponse read)
                && read.Status == (HandoffStatus)status && read.RingCapacity == capacity && clean.StartsWith(read.Reason, StringComparison.Ordinal)
                && (length > HandoffResponse.MaxLength - 4 || read.Reason == clean);
        });

    [Fact]
    public void Any_octets_are_read_without_a_throw() => Gen.Byte.Array[0, 64].Sample(bytes =>
    {
        if (bytes.Length > 6 && bytes[0] % 2 == 0)
            new byte[] { 0x56, 0x4E, 0x48, 0x4F, 0, 1 }.CopyTo(bytes, 0);
        _ = HandoffRequest.TryParse(bytes, out _);
        _ = HandoffResponse.TryParse(bytes, out _);
    });

    [Fact]
    public void A_ring_is_asked_for_given_and_used()
    {
        using var server = new HandoffServerStub();
        using var farEnd = new FarEnd();
        server.Answer = request =>
        {
            Assert.Equal(HandoffKind.Ring, request.Kind);
            Assert.Equal(Token, BigEndian(request.Token));
            return farEnd.Make(request.RingCapacity);
        };
        (RingLink link, FileDescriptor life) = HandoffClient.AskForRing(server.Path, Token, 512 * 1024, LinkOffloads.All);
        using (link)
        using (life)
        {
            Assert.Equal(SendStatus.Sent, link.TrySend("to the switch"u8, default));
            Assert.Equal(ReceiveStatus.Received, farEnd.Link!.TryReceive(out ReadOnlySpan<byte> record, out _));
            Assert.True(record.SequenceEqual("to the switch"u8));
            Assert.True(farEnd.Link.PrepareToSleep());
            link.TrySend([1], default);
            link.Flush();
            Assert.False(farEnd.Link.PrepareToSleep());
        }
    }

    [Fact]
    public void A_descriptor_is_handed_over()
    {
        using var server = new HandoffServerStub();
        using FileDescriptor descriptor = SysEpoll.CreateEvent();
        server.Answer = request => (new HandoffResponse(request.Kind == HandoffKind.Tap ? HandoffStatus.Ok : HandoffStatus.Mismatch, 0, LinkOffloads.None, "not a TAP"), []);
        HandoffClient.HandOverTap(server.Path, Token, descriptor, LinkOffloads.All);
        FileDescriptor received = Assert.Single(server.Received);
        Assert.NotEqual(descriptor.Number, received.Number);
        SysEpoll.Signal(received.Number);
        Assert.Equal(1UL, Read(descriptor));
    }

    [Theory]
    [InlineData("refused", HandoffStatus.TokenUnknown)]
    [InlineData("garbage", HandoffStatus.Failed)]
    [InlineData("silence", HandoffStatus.Failed)]
    [InlineData("two descriptors", HandoffStatus.Failed)]
    [InlineData("capacity", HandoffStatus.Failed)]
    [InlineData("not memory", HandoffStatus.Failed)]
    public void An_answer_that_is_none_is_an_error_and_leaves_nothing_open(string answer, HandoffStatus expected)
    {
        using var server = new HandoffServerStub();
        using var farEnd = new FarEnd();
        server.Answer = request =>
        {
            (HandoffResponse response, FileDescriptor[] descriptors) = farEnd.Make(request.RingCapacity);
            return answer switch
            {
                "refused" => (new HandoffResponse(HandoffStatus.TokenUnknown, 0, LinkOffloads.None, "too old"), []),
                "two descriptors" => (response, descriptors[..2]),
                "capacity" => (response with { RingCapacity = 3 }, descriptors),
                "not memory" => (response, [descriptors[1], descriptors[1], descriptors[2]]),
                _ => (response, descriptors),
            };
        };
        server.Raw = answer switch { "garbage" => [1, 2, 3], "silence" => [], _ => null };
        Ask();
        int open = OpenDescriptors();
        for (int i = 0; i < 20; i++)
            Ask();
        // The stub keeps none either; finalizers have not run in so short a time.
        Assert.InRange(OpenDescriptors() - open, -5, 5);

        void Ask()
        {
            HandoffException exception = Assert.Throws<HandoffException>(() => HandoffClient.AskForRing(server.Path, Token, 256 * 1024, LinkOffloads.All));
            Assert.Equal(expected, exception.Status);
            farEnd.Release();
            server.CloseLives();
        }
    }

    [Fact]
    public void A_socket_that_is_not_there_is_named() =>
        Assert.Equal(NativeErrno.ENOENT, Assert.Throws<SyscallException>(() => HandoffClient.AskForRing("/nonexistent/handoff.sock", Token, 256 * 1024, LinkOffloads.All)).Errno);

    /// <summary>The kernel cuts a message that is too long, silently unless one looks; its descriptors would stay open.</summary>
    [Fact]
    public void A_message_larger_than_the_room_is_refused_with_its_descriptors_closed()
    {
        using SeqPacketPair pair = new();
        using FileDescriptor passed = SysEpoll.CreateEvent();
        var descriptors = new FileDescriptor[2];
        DescriptorMessage.Send(pair.Left.Number, new byte[33], [passed.Number]);
        int open = OpenDescriptors();
        Assert.Equal(NativeErrno.EMSGSIZE, Assert.Throws<SyscallException>(() => DescriptorMessage.Receive(pair.Right.Number, new byte[32], descriptors, out _)).Errno);
        Assert.Equal(open, OpenDescriptors());
        Assert.Null(descriptors[0]);
        // More descriptors than there is room for: those beyond it are closed.
        DescriptorMessage.Send(pair.Left.Number, new byte[4], [passed.Number, passed.Number, passed.Number]);
        Assert.Equal(4, DescriptorMessage.Receive(pair.Right.Number, new byte[32], descriptors, out int count));
        Assert.Equal((2, open + 2), (count, OpenDescriptors()));
        // More than anybody handles: the message is refused.
        DescriptorMessage.Send(pair.Left.Number, new byte[4], [.. Enumerable.Repeat(passed.Number, 8)]);
        Assert.Equal(4, DescriptorMessage.Receive(pair.Right.Number, new byte[32], descriptors, out count));
        Assert.Equal(2, count);
        pair.Left.Dispose();
        Assert.Equal(0, DescriptorMessage.Receive(pair.Right.Number, new byte[32], descriptors, out count));
        Assert.Equal(0, count);
    }

    private static int OpenDescriptors() => Directory.GetFileSystemEntries("/proc/self/fd").Length;

    private static byte[] BigEndian(UInt128 value)
    {
        byte[] bytes = new byte[16];
        System.Buffers.Binary.BinaryPrimitives.WriteUInt128BigEndian(bytes, value);
        return bytes;
    }

    private static unsafe ulong Read(FileDescriptor descriptor)
    {
        ulong count = 0;
        return Unistd.read(descriptor.Number, &count, 8) == 8 ? count : 0;
    }

    /// <summary>The switch's end of a ring.</summary>
    private sealed class FarEnd : IDisposable
    {
        private FileDescriptor[] _sent = [];

        public RingLink? Link { get; private set; }

        public (HandoffResponse Response, FileDescriptor[] Descriptors) Make(int capacity)
        {
            Release();
            RingMemory memory = RingMemory.Create(capacity);
            FileDescriptor own = SysEpoll.CreateEvent(), far = SysEpoll.CreateEvent();
            _sent = [memory.Descriptor.Duplicate(), far.Duplicate(), own.Duplicate()];
            Link = new RingLink(memory, isMaker: true, own, far, LinkOffloads.All);
            return (new HandoffResponse(HandoffStatus.Ok, capacity, LinkOffloads.All, ""), _sent);
        }

        public void Release()
        {
            Link?.Dispose();
            Array.ForEach(_sent, descriptor => descriptor.Dispose());
            _sent = [];
        }

        public void Dispose() => Release();
    }
}
