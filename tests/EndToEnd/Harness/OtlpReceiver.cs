using System.Globalization;
using System.IO.Compression;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Google.Protobuf;

namespace VNetMesh.EndToEnd.Tests.Harness;

/// <summary>A span as it was exported. Ids are lower-case hex; the parent of a root is empty.</summary>
public sealed record ReceivedSpan(string Service, string Name, string TraceId, string SpanId, string ParentId, TimeSpan Duration, IReadOnlyDictionary<string, string> Attributes, IReadOnlyList<string> Events);

/// <summary>
/// Receives OTLP traces over HTTP (protobuf) in a namespace, and decodes what the tests look at. Field numbers are those of
/// opentelemetry/proto/trace/v1/trace.proto.
/// </summary>
public sealed class OtlpReceiver : IDisposable
{
    public const int Port = 4318;

    private readonly Socket _listener;
    private readonly CancellationTokenSource _stop = new();
    private readonly List<ReceivedSpan> _spans = [];

    public OtlpReceiver(NetworkNamespace within)
    {
        _listener = within.Enter(() =>
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            socket.Bind(new IPEndPoint(IPAddress.Loopback, Port));
            socket.Listen();
            return socket;
        });
        _ = Task.Run(AcceptAsync);
    }

    /// <summary>What makes the services export here, and soon.</summary>
    public static IReadOnlyDictionary<string, string> Environment { get; } = new Dictionary<string, string>
    {
        ["OTEL_EXPORTER_OTLP_ENDPOINT"] = $"http://127.0.0.1:{Port.ToString(CultureInfo.InvariantCulture)}",
        ["OTEL_EXPORTER_OTLP_PROTOCOL"] = "http/protobuf",
        ["OTEL_BSP_SCHEDULE_DELAY"] = "300",
        ["OTEL_METRIC_EXPORT_INTERVAL"] = "1000",
    };

    public IReadOnlyList<ReceivedSpan> Spans { get { lock (_spans) return [.. _spans]; } }

    /// <summary>Paths to which something was posted.</summary>
    public HashSet<string> Signals { get; } = [];

    public void Dispose()
    {
        _stop.Cancel();
        _listener.Dispose();
        _stop.Dispose();
    }

    /// <summary>A trace as an indented tree, for messages.</summary>
    public string Describe()
    {
        var text = new StringBuilder();
        IReadOnlyList<ReceivedSpan> spans = Spans;
        void Write(ReceivedSpan span, int depth)
        {
            text.AppendLine(CultureInfo.InvariantCulture, $"{new string(' ', depth * 2)}{span.Service}: {span.Name} ({span.Duration.TotalMilliseconds:0.0} ms) {string.Join(' ', span.Attributes.Select(pair => $"{pair.Key}={pair.Value}"))} {string.Join(',', span.Events)}");
            foreach (ReceivedSpan child in spans.Where(child => child.ParentId == span.SpanId))
                Write(child, depth + 1);
        }
        foreach (ReceivedSpan root in spans.Where(span => spans.All(other => other.SpanId != span.ParentId)))
            Write(root, 0);
        return text.ToString();
    }

    private async Task AcceptAsync()
    {
        while (!_stop.IsCancellationRequested)
        {
            Socket connection = await _listener.AcceptAsync(_stop.Token);
            _ = Task.Run(() => ServeAsync(connection));
        }
    }

    private async Task ServeAsync(Socket connection)
    {
        using var stream = new NetworkStream(connection, ownsSocket: true);
        try
        {
            while (true)
            {
                (string requestLine, Dictionary<string, string> headers, byte[] first) = await WanServers.ReadHeadAsync(stream, _stop.Token);
                byte[] body = await ReadBodyAsync(stream, headers, first);
                lock (_spans)
                {
                    Signals.Add(requestLine.Split(' ')[1]);
                    if (requestLine.Contains("/v1/traces", StringComparison.Ordinal))
                        _spans.AddRange(DecodeTraces(body));
                }
                await stream.WriteAsync("HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"u8.ToArray(), _stop.Token);
            }
        }
        catch (Exception exception) when (exception is IOException or OperationCanceledException or InvalidDataException)
        {
            // The exporter closed the connection, or the test is over.
        }
    }

    private async Task<byte[]> ReadBodyAsync(NetworkStream stream, Dictionary<string, string> headers, byte[] first)
    {
        Stream whole = new ConcatenatedStream(first, stream);
        using var body = new MemoryStream();
        if (headers.TryGetValue("content-length", out string? length))
        {
            byte[] bytes = new byte[int.Parse(length, CultureInfo.InvariantCulture)];
            await whole.ReadExactlyAsync(bytes, _stop.Token);
            body.Write(bytes);
        }
        else
        {
            while (await ReadChunkAsync(whole) is { Length: > 0 } chunk)
                body.Write(chunk);
        }
        if (!headers.TryGetValue("content-encoding", out string? encoding) || encoding != "gzip")
            return body.ToArray();
        body.Position = 0;
        using var unzipped = new MemoryStream();
        await new GZipStream(body, CompressionMode.Decompress).CopyToAsync(unzipped, _stop.Token);
        return unzipped.ToArray();
    }

    /// <summary>A chunk (RFC 9112, section 7.1); empty at the end.</summary>
    private async Task<byte[]> ReadChunkAsync(Stream stream)
    {
        var line = new StringBuilder();
        byte[] one = new byte[1];
        while (!line.ToString().EndsWith("\r\n", StringComparison.Ordinal))
        {
            await stream.ReadExactlyAsync(one, _stop.Token);
            line.Append((char)one[0]);
        }
        byte[] chunk = new byte[int.Parse(line.ToString().Trim(), NumberStyles.HexNumber, CultureInfo.InvariantCulture) + 2];
        await stream.ReadExactlyAsync(chunk, _stop.Token);
        return chunk[..^2];
    }

    private static IEnumerable<ReceivedSpan> DecodeTraces(byte[] request)
    {
        foreach (byte[] resourceSpans in Fields(request, 1))
        {
            string service = Fields(resourceSpans, 1).SelectMany(resource => Attributes(resource, 1)).FirstOrDefault(pair => pair.Key == "service.name").Value ?? "";
            foreach (byte[] span in Fields(resourceSpans, 2).SelectMany(scope => Fields(scope, 2)))
                yield return DecodeSpan(service, span);
        }
    }

    private static ReceivedSpan DecodeSpan(string service, byte[] span)
    {
        string Hex(int number) => Convert.ToHexStringLower(Fields(span, number).FirstOrDefault() ?? []);
        ulong start = Fixed(span, 7), end = Fixed(span, 8);
        return new ReceivedSpan(service, Text(span, 5), Hex(1), Hex(2), Hex(4), TimeSpan.FromMilliseconds((end - start) / 1e6),
            Attributes(span, 9).ToDictionary(pair => pair.Key, pair => pair.Value), [.. Fields(span, 11).Select(happened => Text(happened, 2))]);
    }

    private static IEnumerable<KeyValuePair<string, string>> Attributes(byte[] message, int number) =>
        Fields(message, number).Select(pair => KeyValuePair.Create(Text(pair, 1), Value(Fields(pair, 2).FirstOrDefault() ?? [])));

    /// <summary>AnyValue as text.</summary>
    private static string Value(byte[] value)
    {
        var input = new CodedInputStream(value);
        uint tag = input.ReadTag();
        return WireFormat.GetTagFieldNumber(tag) switch
        {
            1 => input.ReadString(),
            2 => input.ReadBool() ? "true" : "false",
            3 => input.ReadInt64().ToString(CultureInfo.InvariantCulture),
            4 => input.ReadDouble().ToString(CultureInfo.InvariantCulture),
            _ => "",
        };
    }

    private static string Text(byte[] message, int number) => Encoding.UTF8.GetString(Fields(message, number).FirstOrDefault() ?? []);

    private static List<byte[]> Fields(byte[] message, int number)
    {
        var found = new List<byte[]>();
        var input = new CodedInputStream(message);
        uint tag;
        while ((tag = input.ReadTag()) != 0)
        {
            if (WireFormat.GetTagFieldNumber(tag) == number && WireFormat.GetTagWireType(tag) == WireFormat.WireType.LengthDelimited)
                found.Add(input.ReadBytes().ToByteArray());
            else
                input.SkipLastField();
        }
        return found;
    }

    private static ulong Fixed(byte[] message, int number)
    {
        var input = new CodedInputStream(message);
        uint tag;
        while ((tag = input.ReadTag()) != 0)
        {
            if (WireFormat.GetTagFieldNumber(tag) == number)
                return input.ReadFixed64();
            input.SkipLastField();
        }
        return 0;
    }

    /// <summary>Bytes that were read too far, then the rest.</summary>
    private sealed class ConcatenatedStream(byte[] first, Stream rest) : Stream
    {
        private int _taken;

        public override bool CanRead => true;
        public override bool CanSeek => false;
        public override bool CanWrite => false;
        public override long Length => throw new NotSupportedException();
        public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

        public override int Read(byte[] buffer, int offset, int count)
        {
            if (_taken == first.Length)
                return rest.Read(buffer, offset, count);
            int size = Math.Min(count, first.Length - _taken);
            first.AsSpan(_taken, size).CopyTo(buffer.AsSpan(offset));
            _taken += size;
            return size;
        }

        public override void Flush() { }
        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();
        public override void SetLength(long value) => throw new NotSupportedException();
        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();
    }
}
