using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace VNetMesh.Benchmarks.Load;

/// <summary>
/// Sends and counts datagrams, 64 with each system call: iperf3 makes a call for each and would be what is measured. Runs as a process of its own
/// inside a namespace.
/// </summary>
internal static unsafe partial class UdpWorker
{
    private const int Batch = 64;
    private const int ReceiveBuffer = 4 << 20;

    /// <summary>What is left out at the beginning, so that addresses are known and queues are full.</summary>
    public static readonly TimeSpan WarmUp = TimeSpan.FromSeconds(0.5);

    /// <summary>How long a sender goes on beyond what the receiver counts.</summary>
    private static readonly TimeSpan Tail = TimeSpan.FromSeconds(0.5);

    private static readonly TimeSpan FirstLimit = TimeSpan.FromSeconds(10);

    /// <summary>Counts what comes to the port. Prints "datagrams octets seconds".</summary>
    public static int Count(int port, double seconds)
    {
        using Socket socket = NewSocket();
        socket.Bind(new IPEndPoint(IPAddress.Any, port));
        Console.WriteLine("ready");
        return CountFrom(socket, seconds);
    }

    /// <summary>Says hello to the sender until something comes, then counts as <see cref="Count"/> does.</summary>
    public static int Call(IPEndPoint sender, double seconds)
    {
        using Socket socket = NewSocket();
        socket.Connect(sender);
        Console.WriteLine("ready");
        for (int attempt = 0; attempt < 50; attempt++)
        {
            socket.Send("hello"u8);
            if (socket.Poll(TimeSpan.FromMilliseconds(200), SelectMode.SelectRead))
                break;
        }
        return CountFrom(socket, seconds);
    }

    /// <summary>Sends datagrams of the size, one batch after the other.</summary>
    public static int Send(IPEndPoint receiver, int size, double seconds)
    {
        using Socket socket = NewSocket();
        socket.Connect(receiver);
        Flood(socket, size, TimeSpan.FromSeconds(seconds) + WarmUp + Tail);
        return 0;
    }

    /// <summary>Waits for a hello and sends to where it came from, from the address that it came to.</summary>
    public static int Answer(IPEndPoint own, int size, double seconds)
    {
        using Socket socket = NewSocket();
        socket.Bind(own);
        Console.WriteLine("ready");
        socket.ReceiveTimeout = (int)FirstLimit.TotalMilliseconds;
        EndPoint from = new IPEndPoint(IPAddress.Any, 0);
        socket.ReceiveFrom(new byte[64], ref from);
        socket.Connect(from);
        Flood(socket, size, TimeSpan.FromSeconds(seconds) + WarmUp + Tail);
        return 0;
    }

    private static Socket NewSocket()
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp) { Blocking = true };
        socket.ReceiveBufferSize = ReceiveBuffer;
        return socket;
    }

    private static void Flood(Socket socket, int size, TimeSpan time)
    {
        using var messages = new Messages(size);
        int descriptor = (int)socket.SafeHandle.DangerousGetHandle();
        var watch = Stopwatch.StartNew();
        // A refusal or a full queue is the network's business: who receives, counts.
        while (watch.Elapsed < time)
            _ = sendmmsg(descriptor, messages.Vector, Batch, 0);
    }

    private static int CountFrom(Socket socket, double seconds)
    {
        using var messages = new Messages(2048);
        if (!socket.Poll(FirstLimit, SelectMode.SelectRead))
        {
            Console.Error.WriteLine("no datagram came");
            return 1;
        }
        _ = Receive(socket, messages, WarmUp);
        (long datagrams, long octets, double elapsed) = Receive(socket, messages, TimeSpan.FromSeconds(seconds));
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{datagrams} {octets} {elapsed:0.000000}"));
        return 0;
    }

    private static (long Datagrams, long Octets, double Seconds) Receive(Socket socket, Messages messages, TimeSpan time)
    {
        int descriptor = (int)socket.SafeHandle.DangerousGetHandle();
        long datagrams = 0, octets = 0;
        var watch = Stopwatch.StartNew();
        while (watch.Elapsed < time)
        {
            int got = recvmmsg(descriptor, messages.Vector, Batch, MSG_DONTWAIT, null);
            if (got <= 0)
            {
                // Nobody waits on the socket, so that the sender need not wake anybody: between virtual CPUs that would be the dearest thing it does.
                _ = usleep(PauseMicroseconds);
                continue;
            }
            for (int at = 0; at < got; at++)
                octets += messages.Vector[at].msg_len;
            datagrams += got;
        }
        return (datagrams, octets, watch.Elapsed.TotalSeconds);
    }

    private const int MSG_DONTWAIT = 0x40;
    private const uint PauseMicroseconds = 100;

    [StructLayout(LayoutKind.Sequential)]
    private struct IoVector
    {
        public void* iov_base;
        public nuint iov_len;
    }

    /// <summary>struct mmsghdr of a 64-bit libc.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct MessageHeader
    {
        public void* msg_name;
        public uint msg_namelen;
        public IoVector* msg_iov;
        public nuint msg_iovlen;
        public void* msg_control;
        public nuint msg_controllen;
        public ulong msg_flags; // an int and four octets up to the end of struct msghdr
        public uint msg_len;
    }

    [LibraryImport("libc", SetLastError = true)]
    private static partial int sendmmsg(int descriptor, MessageHeader* messages, uint count, int flags);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int recvmmsg(int descriptor, MessageHeader* messages, uint count, int flags, void* timeout);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int usleep(uint microseconds);

    /// <summary>A batch of messages with a buffer each.</summary>
    private sealed class Messages : IDisposable
    {
        private readonly byte* _buffers;
        private readonly IoVector* _vectors;

        public Messages(int size)
        {
            _buffers = (byte*)NativeMemory.AllocZeroed((nuint)(Batch * size));
            _vectors = (IoVector*)NativeMemory.AllocZeroed((nuint)(Batch * sizeof(IoVector)));
            Vector = (MessageHeader*)NativeMemory.AllocZeroed((nuint)(Batch * sizeof(MessageHeader)));
            for (int at = 0; at < Batch; at++)
            {
                _vectors[at] = new IoVector { iov_base = _buffers + at * size, iov_len = (nuint)size };
                Vector[at] = new MessageHeader { msg_iov = _vectors + at, msg_iovlen = 1 };
            }
        }

        public MessageHeader* Vector { get; }

        public void Dispose()
        {
            NativeMemory.Free(_buffers);
            NativeMemory.Free(_vectors);
            NativeMemory.Free(Vector);
        }
    }
}
