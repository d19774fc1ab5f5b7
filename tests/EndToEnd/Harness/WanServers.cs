using System.Buffers.Binary;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;

namespace VNetMesh.EndToEnd.Tests.Harness;

/// <summary>Servers in the wan namespace, on threads of the test process; their sockets were made inside the namespace.</summary>
public sealed class WanServers : IAsyncDisposable
{
    public const int HttpPort = 80;
    public const int EchoPort = 7;
    public const int LateAnswerPort = 4000;

    /// <summary>Octets that the late answer is made of.</summary>
    public const int LateAnswerLength = 1_000_000;

    /// <summary>How long the late answer comes after the end of the question.</summary>
    public static readonly TimeSpan LateAnswerDelay = TimeSpan.FromMilliseconds(700);

    private readonly NetworkNamespace _namespace;
    private readonly CancellationTokenSource _stop = new();
    private readonly List<Socket> _sockets = [];
    private TaskCompletionSource? _together;
    private int _waiting;
    private int _accepted;

    public WanServers(NetworkNamespace wan)
    {
        _namespace = wan;
        Listen(HttpPort, ServeHttpAsync);
        Listen(EchoPort, ServeEchoAsync);
        Listen(LateAnswerPort, ServeLateAnswerAsync);
        EchoDatagrams(EchoPort);
    }

    /// <summary>TCP connections accepted so far, by all servers.</summary>
    public int Accepted => Volatile.Read(ref _accepted);

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        foreach (Socket socket in _sockets)
            socket.Dispose();
        _stop.Dispose();
    }

    /// <summary>Bytes that differ everywhere, the same for the same offset: a hash sees loss, doubling and exchange.</summary>
    public static void Fill(Span<byte> buffer, long offset)
    {
        ulong counter = (ulong)offset / 8;
        for (int at = 0; at + 8 <= buffer.Length; at += 8)
        {
            // The finalizer of SplitMix64.
            ulong value = ++counter * 0x9E37_79B9_7F4A_7C15;
            value = (value ^ (value >> 30)) * 0xBF58_476D_1CE4_E5B9;
            value = (value ^ (value >> 27)) * 0x94D0_49BB_1331_11EB;
            BinaryPrimitives.WriteUInt64LittleEndian(buffer[at..], value ^ (value >> 31));
        }
    }

    private void Listen(int port, Func<NetworkStream, CancellationToken, Task> serve)
    {
        Socket listener = _namespace.Enter(() =>
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.ReuseAddress, true);
            socket.Bind(new IPEndPoint(IPAddress.Any, port));
            socket.Listen(512);
            return socket;
        });
        _sockets.Add(listener);
        _ = Task.Run(async () =>
        {
            while (!_stop.IsCancellationRequested)
            {
                Socket connection = await listener.AcceptAsync(_stop.Token);
                Interlocked.Increment(ref _accepted);
                _ = Task.Run(async () =>
                {
                    using var stream = new NetworkStream(connection, ownsSocket: true);
                    try
                    {
                        await serve(stream, _stop.Token);
                    }
                    catch (Exception exception) when (exception is IOException or SocketException or OperationCanceledException or InvalidDataException)
                    {
                        // The client went away; the client's side of the test says whether that was right.
                    }
                });
            }
        });
    }

    private void EchoDatagrams(int port)
    {
        Socket socket = _namespace.Enter(() =>
        {
            var made = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
            made.Bind(new IPEndPoint(IPAddress.Any, port));
            return made;
        });
        _sockets.Add(socket);
        _ = Task.Run(async () =>
        {
            byte[] buffer = new byte[65536];
            while (!_stop.IsCancellationRequested)
            {
                SocketReceiveFromResult received = await socket.ReceiveFromAsync(buffer, SocketFlags.None, new IPEndPoint(IPAddress.Any, 0), _stop.Token);
                await socket.SendToAsync(buffer.AsMemory(0, received.ReceivedBytes), SocketFlags.None, received.RemoteEndPoint, _stop.Token);
            }
        });
    }

    private static async Task ServeEchoAsync(NetworkStream stream, CancellationToken stop) => await stream.CopyToAsync(stream, stop);

    /// <summary>Reads until the client's FIN, waits, then says how much it read and sends a long answer.</summary>
    private static async Task ServeLateAnswerAsync(NetworkStream stream, CancellationToken stop)
    {
        byte[] buffer = new byte[65536];
        long count = 0;
        int read;
        while ((read = await stream.ReadAsync(buffer, stop)) > 0)
            count += read;
        await Task.Delay(LateAnswerDelay, stop);
        byte[] answer = new byte[LateAnswerLength];
        answer.AsSpan().Fill((byte)'x');
        Encoding.ASCII.GetBytes($"read {count.ToString(CultureInfo.InvariantCulture)}\n").CopyTo(answer, 0);
        await stream.WriteAsync(answer, stop);
    }

    /// <summary>
    /// GET /bytes/N gives N bytes; GET /together/N answers when N requests wait, so all N are there at once; PUT /hash reads a body
    /// and answers with its length and SHA-256; anything else says hello.
    /// </summary>
    private async Task ServeHttpAsync(NetworkStream stream, CancellationToken stop)
    {
        (string requestLine, Dictionary<string, string> headers, byte[] rest) = await ReadHeadAsync(stream, stop);
        string[] parts = requestLine.Split(' ');
        if (parts is ["GET", _, _] && parts[1].StartsWith("/bytes/", StringComparison.Ordinal))
        {
            long length = long.Parse(Path(parts[1])["/bytes/".Length..], CultureInfo.InvariantCulture);
            await SendHeadAsync(stream, length, stop);
            byte[] buffer = new byte[256 * 1024];
            for (long sent = 0; sent < length;)
            {
                int size = (int)Math.Min(buffer.Length, length - sent);
                Fill(buffer, sent);
                await stream.WriteAsync(buffer.AsMemory(0, size), stop);
                sent += size;
            }
            return;
        }
        string answer = "hello from the wan\n";
        if (parts is ["GET", _, _] && parts[1].StartsWith("/together/", StringComparison.Ordinal))
            answer = await WaitTogetherAsync(int.Parse(Path(parts[1])["/together/".Length..], CultureInfo.InvariantCulture), stop) ? "together\n" : "alone\n";
        if (parts is ["PUT", "/hash", _])
            answer = await HashBodyAsync(stream, long.Parse(headers["content-length"], CultureInfo.InvariantCulture), rest, stop);
        byte[] body = Encoding.ASCII.GetBytes(answer);
        await SendHeadAsync(stream, body.Length, stop);
        await stream.WriteAsync(body, stop);
    }

    /// <summary>A request's target without its query.</summary>
    private static string Path(string target) => target.Split('?')[0];

    /// <summary>True when as many as said wait at the same time; false after 15 s.</summary>
    private async Task<bool> WaitTogetherAsync(int count, CancellationToken stop)
    {
        TaskCompletionSource complete;
        lock (_sockets)
        {
            _together ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            complete = _together;
            if (++_waiting == count)
            {
                complete.SetResult();
                (_together, _waiting) = (null, 0);
            }
        }
        return await Task.WhenAny(complete.Task, Task.Delay(TimeSpan.FromSeconds(15), stop)) == complete.Task;
    }

    private static async Task<string> HashBodyAsync(NetworkStream stream, long length, byte[] first, CancellationToken stop)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData(first);
        long count = first.Length;
        byte[] buffer = new byte[256 * 1024];
        int read;
        while (count < length && (read = await stream.ReadAsync(buffer, stop)) > 0)
        {
            hash.AppendData(buffer, 0, read);
            count += read;
        }
        return $"{count.ToString(CultureInfo.InvariantCulture)} {Convert.ToHexStringLower(hash.GetHashAndReset())}\n";
    }

    private static Task SendHeadAsync(NetworkStream stream, long length, CancellationToken stop) =>
        stream.WriteAsync(Encoding.ASCII.GetBytes($"HTTP/1.1 200 OK\r\nContent-Length: {length.ToString(CultureInfo.InvariantCulture)}\r\nConnection: close\r\n\r\n"), stop).AsTask();

    internal static async Task<(string RequestLine, Dictionary<string, string> Headers, byte[] Excess)> ReadHeadAsync(NetworkStream stream, CancellationToken stop)
    {
        byte[] buffer = new byte[16384];
        int filled = 0;
        while (filled < buffer.Length)
        {
            int read = await stream.ReadAsync(buffer.AsMemory(filled), stop);
            if (read == 0)
                throw new InvalidDataException("the client went away in its head");
            filled += read;
            int end = buffer.AsSpan(0, filled).IndexOf("\r\n\r\n"u8);
            if (end < 0)
                continue;
            string[] lines = Encoding.ASCII.GetString(buffer, 0, end).Split("\r\n");
            var headers = lines.Skip(1).Select(line => line.Split(':', 2)).ToDictionary(pair => pair[0].Trim().ToLowerInvariant(), pair => pair[1].Trim());
            return (lines[0], headers, buffer[(end + 4)..filled]);
        }
        throw new InvalidDataException("the head is too long");
    }
}
