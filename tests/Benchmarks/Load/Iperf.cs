using System.Globalization;
using System.Text.Json;
using VNetMesh.Benchmarks.Running;

namespace VNetMesh.Benchmarks.Load;

/// <summary>What one run of iperf3 moved, counted at the receiver.</summary>
/// <param name="GigabitsPerSecond">Sum over the streams; of both directions when both were asked for.</param>
/// <param name="Bytes">Payload of the whole run, with the second that is left out.</param>
public sealed record IperfResult(double GigabitsPerSecond, double Bytes);

/// <summary>Which way the payload goes, seen from the client.</summary>
public enum Direction
{
    Out,
    In,
    Both,
}

/// <summary>iperf3 over TCP.</summary>
public static class Iperf
{
    private static int _port = 5300;

    /// <param name="client">Where the client runs; it connects in every direction.</param>
    /// <param name="server">Where the server runs.</param>
    /// <param name="address">Of the server.</param>
    /// <param name="streams">Connections at the same time.</param>
    /// <param name="direction">Of the payload.</param>
    /// <param name="seconds">How long to count, after one second that is left out.</param>
    /// <param name="cancellation">Ends it.</param>
    public static Task<IperfResult> TcpAsync(NetworkNamespace client, NetworkNamespace server, string address, int streams, Direction direction, int seconds, CancellationToken cancellation) =>
        TcpAsync(server, direction, seconds, (port, time, way) => Shell.RunAsync(TimeSpan.FromSeconds(seconds + 15),
            client.Enter(["iperf3", "--client", address, "--port", port, "--time", time, "--omit", "1", "--parallel", streams.ToString(CultureInfo.InvariantCulture), "--json", .. way.Split(' ', StringSplitOptions.RemoveEmptyEntries)]), null, cancellation), cancellation);

    /// <param name="server">Where the server runs.</param>
    /// <param name="direction">Of the payload.</param>
    /// <param name="seconds">How long to count.</param>
    /// <param name="client">Runs the client, wherever it is: with that port, time and option for the direction; gives its JSON.</param>
    /// <param name="cancellation">Ends it.</param>
    public static async Task<IperfResult> TcpAsync(NetworkNamespace server, Direction direction, int seconds, Func<string, string, string, Task<string>> client, CancellationToken cancellation)
    {
        // A port of its own for each run: the one before may still linger.
        int port = _port = _port >= 5999 ? 5300 : _port + 1;
        string Text(int number) => number.ToString(CultureInfo.InvariantCulture);
        await using BackgroundProgram listener = server.Start("iperf3 server", "iperf3", "--server", "--one-off", "--port", Text(port));
        await listener.UntilAsync("it listened", () => ProcessTimes.Listens(listener.ProcessId, port), cancellation);
        return Parse(await client(Text(port), Text(seconds), direction switch { Direction.In => "--reverse", Direction.Both => "--bidir", _ => "" }));
    }

    /// <summary>Reads iperf3's JSON.</summary>
    /// <exception cref="BenchmarkException">It tells an error, or nothing arrived.</exception>
    public static IperfResult Parse(string json)
    {
        using JsonDocument document = ParseDocument(json);
        if (document.RootElement.TryGetProperty("error", out JsonElement error))
            throw new BenchmarkException("iperf3: " + error.GetString());
        if (!document.RootElement.TryGetProperty("end", out JsonElement end) || !end.TryGetProperty("sum_received", out JsonElement received))
            throw new BenchmarkException("iperf3 told no result");
        double bits = received.GetProperty("bits_per_second").GetDouble();
        if (end.TryGetProperty("sum_received_bidir_reverse", out JsonElement reverse))
            bits += reverse.GetProperty("bits_per_second").GetDouble();
        return bits > 0 ? new IperfResult(bits / 1e9, AllBytes(document.RootElement)) : throw new BenchmarkException("iperf3: nothing arrived");
    }

    /// <summary>The end counts no omitted seconds; the intervals do.</summary>
    private static double AllBytes(JsonElement root)
    {
        double bytes = 0;
        foreach (JsonElement interval in root.GetProperty("intervals").EnumerateArray())
        {
            foreach (string sum in new[] { "sum", "sum_bidir_reverse" })
                bytes += interval.TryGetProperty(sum, out JsonElement part) ? part.GetProperty("bytes").GetDouble() : 0;
        }
        return bytes;
    }

    private static JsonDocument ParseDocument(string json)
    {
        try
        {
            return JsonDocument.Parse(json);
        }
        catch (JsonException exception)
        {
            throw new BenchmarkException("iperf3 did not answer in JSON: " + exception.Message, exception);
        }
    }
}
