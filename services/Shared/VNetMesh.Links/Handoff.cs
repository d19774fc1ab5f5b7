using System.Buffers.Binary;
using System.Text;
using VNetMesh.Native;

namespace VNetMesh.Links;

/// <summary>What is handed over.</summary>
public enum HandoffKind : ushort
{
    /// <summary>A TAP descriptor, from the one who registered the port to the switch.</summary>
    Tap = 1,

    /// <summary>A pair of rings, made by the switch; the socket stays open as the sign of life of both.</summary>
    Ring = 2,

    /// <summary>A Unix socket that a VM sends its frames through; see <see cref="StreamSocketLink"/> and <see cref="DatagramSocketLink"/>.</summary>
    VmSocket = 3,
}

/// <summary>
/// The request on the hand-off socket (SOCK_SEQPACKET, one message each way).
/// <code>
///  0 magic u32 "VNHO" | 4 version u16 | 6 kind u16 | 8 token 16 | 24 ring capacity u32 | 28 offloads u32
/// </code>
/// With a TAP or a socket comes one descriptor.
/// </summary>
public readonly record struct HandoffRequest(HandoffKind Kind, UInt128 Token, int RingCapacity, LinkOffloads Offloads)
{
    public const int Length = 32;
    public const uint Magic = 0x564E_484F;
    public const ushort Version = 1;

    public static bool TryParse(ReadOnlySpan<byte> bytes, out HandoffRequest request)
    {
        request = default;
        if (bytes.Length != Length || BinaryPrimitives.ReadUInt32BigEndian(bytes) != Magic || BinaryPrimitives.ReadUInt16BigEndian(bytes[4..]) != Version)
            return false;
        request = new HandoffRequest((HandoffKind)BinaryPrimitives.ReadUInt16BigEndian(bytes[6..]), BinaryPrimitives.ReadUInt128BigEndian(bytes[8..]),
            BinaryPrimitives.ReadInt32BigEndian(bytes[24..]), (LinkOffloads)BinaryPrimitives.ReadUInt32BigEndian(bytes[28..]) & LinkOffloads.All);
        return request.Kind is HandoffKind.Tap or HandoffKind.Ring or HandoffKind.VmSocket;
    }

    public void Write(Span<byte> bytes)
    {
        BinaryPrimitives.WriteUInt32BigEndian(bytes, Magic);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[4..], Version);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[6..], (ushort)Kind);
        BinaryPrimitives.WriteUInt128BigEndian(bytes[8..], Token);
        BinaryPrimitives.WriteInt32BigEndian(bytes[24..], RingCapacity);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[28..], (uint)Offloads);
    }
}

/// <summary>
/// The answer: status 0 and, for a ring, three descriptors (memory, the asker's doorbell, the switch's
/// doorbell) and the ring's capacity; or a status and a reason in UTF-8.
/// <code>
///  0 magic u32 | 4 version u16 | 6 status u16 | 8 ring capacity u32 | 12 offloads u32 | 16 reason …
/// </code>
/// </summary>
public readonly record struct HandoffResponse(HandoffStatus Status, int RingCapacity, LinkOffloads Offloads, string Reason)
{
    public const int HeaderLength = 16;
    public const int MaxLength = 512;

    public static bool TryParse(ReadOnlySpan<byte> bytes, out HandoffResponse response)
    {
        response = default;
        if (bytes.Length < HeaderLength || BinaryPrimitives.ReadUInt32BigEndian(bytes) != HandoffRequest.Magic
            || BinaryPrimitives.ReadUInt16BigEndian(bytes[4..]) != HandoffRequest.Version)
            return false;
        response = new HandoffResponse((HandoffStatus)BinaryPrimitives.ReadUInt16BigEndian(bytes[6..]), BinaryPrimitives.ReadInt32BigEndian(bytes[8..]),
            (LinkOffloads)BinaryPrimitives.ReadUInt32BigEndian(bytes[12..]) & LinkOffloads.All, Encoding.UTF8.GetString(bytes[HeaderLength..]));
        return true;
    }

    /// <returns>Octets written; a reason that does not fit is cut.</returns>
    public int Write(Span<byte> bytes)
    {
        BinaryPrimitives.WriteUInt32BigEndian(bytes, HandoffRequest.Magic);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[4..], HandoffRequest.Version);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[6..], (ushort)Status);
        BinaryPrimitives.WriteInt32BigEndian(bytes[8..], RingCapacity);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[12..], (uint)Offloads);
        Encoding.UTF8.GetEncoder().Convert(Reason, bytes[HeaderLength..], flush: true, out _, out int written, out _);
        return HeaderLength + written;
    }
}

public enum HandoffStatus : ushort
{
    Ok = 0,

    /// <summary>The message could not be understood.</summary>
    Malformed = 1,

    /// <summary>The token is unknown, was used before, or is too old.</summary>
    TokenUnknown = 2,

    /// <summary>The port was registered for another kind, or the descriptor is not what it must be.</summary>
    Mismatch = 3,

    /// <summary>The switch could not set it up.</summary>
    Failed = 4,
}

/// <summary>The switch did not take a hand-off.</summary>
public sealed class HandoffException(HandoffStatus status, string reason) : IOException($"the switch refused the hand-off: {reason}")
{
    public HandoffStatus Status { get; } = status;
}

/// <summary>Hands a descriptor to the switch, or asks it for a pair of rings.</summary>
public static unsafe class HandoffClient
{
    /// <summary>Gives the switch a duplicate of a TAP descriptor for the port of that token. Blocks for at most 5 s.</summary>
    /// <exception cref="HandoffException">The switch refused.</exception>
    /// <exception cref="SyscallException">The socket cannot be reached.</exception>
    public static void HandOverTap(string socketPath, ReadOnlySpan<byte> token, FileDescriptor tap, LinkOffloads offloads)
    {
        using FileDescriptor socket = Connect(socketPath);
        Ask(socket, new HandoffRequest(HandoffKind.Tap, BinaryPrimitives.ReadUInt128BigEndian(token), 0, offloads), [tap.Number], []);
    }

    /// <summary>Gives the switch a duplicate of a VM's socket for the port of that token. Blocks for at most 5 s.</summary>
    /// <exception cref="HandoffException">The switch refused.</exception>
    /// <exception cref="SyscallException">The socket cannot be reached.</exception>
    public static void HandOverVmSocket(string socketPath, ReadOnlySpan<byte> token, FileDescriptor connection)
    {
        using FileDescriptor socket = Connect(socketPath);
        Ask(socket, new HandoffRequest(HandoffKind.VmSocket, BinaryPrimitives.ReadUInt128BigEndian(token), 0, LinkOffloads.None), [connection.Number], []);
    }

    /// <summary>
    /// Asks for the rings of the port of that token. Blocks for at most 5 s. The socket that is returned
    /// must stay open as long as the link is used; it becomes readable when the switch is gone.
    /// </summary>
    /// <exception cref="HandoffException">The switch refused, or what it gave is not what it must be.</exception>
    /// <exception cref="SyscallException">The socket cannot be reached.</exception>
    public static (RingLink Link, FileDescriptor Life) AskForRing(string socketPath, ReadOnlySpan<byte> token, int capacity, LinkOffloads accepted)
    {
        FileDescriptor socket = Connect(socketPath);
        var descriptors = new FileDescriptor[3];
        try
        {
            HandoffResponse response = Ask(socket, new HandoffRequest(HandoffKind.Ring, BinaryPrimitives.ReadUInt128BigEndian(token), capacity, accepted), [], descriptors);
            RingMemory memory = RingMemory.Map(descriptors[0], response.RingCapacity);
            return (new RingLink(memory, isMaker: false, descriptors[1], descriptors[2], response.Offloads), socket);
        }
        catch (Exception exception)
        {
            socket.Dispose();
            foreach (FileDescriptor? descriptor in descriptors)
                descriptor?.Dispose();
            if (exception is InvalidDataException)
                throw new HandoffException(HandoffStatus.Failed, exception.Message);
            throw;
        }
    }

    private static FileDescriptor Connect(string path)
    {
        uint length = SysSocket.WriteUnixAddress(path, out SysSocket.sockaddr_un address);
        var socket = new FileDescriptor(Syscall.Check(SysSocket.socket(SysSocket.AF_UNIX, SysSocket.SOCK_SEQPACKET | SysSocket.SOCK_CLOEXEC, 0), "socket(AF_UNIX)"));
        long* timeout = stackalloc long[2] { 5, 0 };
        const int SO_RCVTIMEO = 20, SO_SNDTIMEO = 21;
        _ = SysSocket.setsockopt(socket.Number, SysSocket.SOL_SOCKET, SO_RCVTIMEO, timeout, 16);
        _ = SysSocket.setsockopt(socket.Number, SysSocket.SOL_SOCKET, SO_SNDTIMEO, timeout, 16);
        if (SysSocket.connect(socket.Number, &address, length) < 0)
        {
            int errno = Syscall.Errno;
            socket.Dispose();
            throw new SyscallException($"connect({path})", errno);
        }
        return socket;
    }

    private static HandoffResponse Ask(FileDescriptor socket, HandoffRequest request, ReadOnlySpan<int> sent, FileDescriptor[] received)
    {
        Span<byte> bytes = stackalloc byte[HandoffRequest.Length];
        request.Write(bytes);
        DescriptorMessage.Send(socket.Number, bytes, sent);
        Span<byte> answer = stackalloc byte[HandoffResponse.MaxLength];
        int length = DescriptorMessage.Receive(socket.Number, answer, received, out int count);
        if (!HandoffResponse.TryParse(answer[..length], out HandoffResponse response))
            throw new HandoffException(HandoffStatus.Failed, length == 0 ? "it closed the hand-off socket without an answer" : "its answer cannot be understood");
        if (response.Status != HandoffStatus.Ok)
            throw new HandoffException(response.Status, response.Reason);
        if (count != received.Length)
            throw new HandoffException(HandoffStatus.Failed, "descriptors are missing in its answer");
        return response;
    }
}

/// <summary>Messages with descriptors (SCM_RIGHTS) on a Unix socket.</summary>
public static unsafe class DescriptorMessage
{
    private const int MaxDescriptors = 8;

    /// <exception cref="SyscallException">The far side is gone, or too slow for the socket's time limit.</exception>
    public static void Send(int socket, ReadOnlySpan<byte> bytes, ReadOnlySpan<int> descriptors)
    {
        byte* control = stackalloc byte[ControlLength(MaxDescriptors)];
        fixed (byte* data = bytes)
        {
            var vector = new SysSocket.iovec { iov_base = data, iov_len = (nuint)bytes.Length };
            var message = new SysSocket.msghdr { msg_iov = &vector, msg_iovlen = 1 };
            if (!descriptors.IsEmpty)
            {
                var header = (SysSocket.cmsghdr*)control;
                header->cmsg_len = (nuint)(sizeof(SysSocket.cmsghdr) + (descriptors.Length * sizeof(int)));
                header->cmsg_level = SysSocket.SOL_SOCKET;
                header->cmsg_type = SysSocket.SCM_RIGHTS;
                descriptors.CopyTo(new Span<int>(control + sizeof(SysSocket.cmsghdr), descriptors.Length));
                message.msg_control = control;
                message.msg_controllen = (nuint)ControlLength(descriptors.Length);
            }
            nint result;
            do
            {
                result = SysSocket.sendmsg(socket, &message, SysSocket.MSG_NOSIGNAL);
            }
            while (result < 0 && Syscall.Errno == NativeErrno.EINTR);
            Syscall.Check(result, "sendmsg");
        }
    }

    /// <summary>Receives one message; descriptors beyond the room given are closed.</summary>
    /// <returns>Octets received; 0 when the far side has closed.</returns>
    /// <exception cref="SyscallException">Nothing came in the socket's time limit, the socket failed, or (EMSGSIZE) the message was larger than the room.</exception>
    public static int Receive(int socket, Span<byte> bytes, Span<FileDescriptor> descriptors, out int count)
    {
        byte* control = stackalloc byte[ControlLength(MaxDescriptors)];
        count = 0;
        fixed (byte* data = bytes)
        {
            var vector = new SysSocket.iovec { iov_base = data, iov_len = (nuint)bytes.Length };
            var message = new SysSocket.msghdr { msg_iov = &vector, msg_iovlen = 1, msg_control = control, msg_controllen = (nuint)ControlLength(MaxDescriptors) };
            nint result;
            do
            {
                result = SysSocket.recvmsg(socket, &message, SysSocket.MSG_CMSG_CLOEXEC);
            }
            while (result < 0 && Syscall.Errno == NativeErrno.EINTR);
            Syscall.Check(result, "recvmsg");
            TakeDescriptors(control, message.msg_controllen, descriptors, out count);
            if ((message.msg_flags & (SysSocket.MSG_TRUNC | SysSocket.MSG_CTRUNC)) == 0)
                return (int)result;
            foreach (ref FileDescriptor descriptor in descriptors[..count])
            {
                descriptor.Dispose();
                descriptor = null!;
            }
            count = 0;
            throw new SyscallException("recvmsg", NativeErrno.EMSGSIZE);
        }
    }

    private static void TakeDescriptors(byte* control, nuint length, Span<FileDescriptor> descriptors, out int count)
    {
        count = 0;
        var header = (SysSocket.cmsghdr*)control;
        if (length < (nuint)sizeof(SysSocket.cmsghdr) || header->cmsg_level != SysSocket.SOL_SOCKET || header->cmsg_type != SysSocket.SCM_RIGHTS)
            return;
        var numbers = new ReadOnlySpan<int>(control + sizeof(SysSocket.cmsghdr), ((int)header->cmsg_len - sizeof(SysSocket.cmsghdr)) / sizeof(int));
        foreach (int number in numbers)
        {
            var descriptor = new FileDescriptor(number);
            if (count < descriptors.Length)
                descriptors[count++] = descriptor;
            else
                descriptor.Dispose();
        }
    }

    private static int ControlLength(int descriptors) => sizeof(SysSocket.cmsghdr) + (((descriptors * sizeof(int)) + 7) & ~7);
}
