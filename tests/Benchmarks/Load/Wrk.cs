using System.Globalization;
using System.Text.RegularExpressions;
using VNetMesh.Benchmarks.Running;

namespace VNetMesh.Benchmarks.Load;

/// <summary>What one run of wrk told.</summary>
/// <param name="RequestsPerSecond">Answered requests.</param>
/// <param name="P50">Median latency, milliseconds.</param>
/// <param name="P99">99th percentile, milliseconds.</param>
/// <param name="Errors">Sockets that failed (connect, read, write, timeout) and answers that were not 2xx or 3xx.</param>
public sealed record WrkResult(double RequestsPerSecond, double P50, double P99, long Errors);

/// <summary>wrk, 32 connections on two threads.</summary>
public static partial class Wrk
{
    public const int Connections = 32;

    /// <exception cref="BenchmarkException">More than one request in a hundred failed.</exception>
    public static async Task<WrkResult> RunAsync(NetworkNamespace client, string url, bool close, int seconds, CancellationToken cancellation)
    {
        string[] header = close ? ["-H", "Connection: close"] : [];
        string said = await Shell.RunAsync(TimeSpan.FromSeconds(seconds + 15),
            client.Enter(["wrk", "-t2", "-c" + Connections.ToString(CultureInfo.InvariantCulture), "-d" + seconds.ToString(CultureInfo.InvariantCulture) + "s", "--latency", .. header, url]), null, cancellation);
        WrkResult result = Parse(said);
        return result.Errors <= result.RequestsPerSecond * seconds / 100 ? result : throw new BenchmarkException($"wrk: {result.Errors} failed beside {result.RequestsPerSecond:0}/s");
    }

    /// <summary>Reads what wrk prints.</summary>
    /// <exception cref="BenchmarkException">It has no requests a second, or no latencies.</exception>
    public static WrkResult Parse(string text)
    {
        Match rate = Rate().Match(text), p50 = Median().Match(text), p99 = High().Match(text);
        if (!rate.Success || !p50.Success || !p99.Success)
            throw new BenchmarkException("wrk told no result: " + text.ReplaceLineEndings(" / "));
        long errors = SocketErrors().Matches(text).Concat(StatusErrors().Matches(text)).Sum(match => match.Groups.Values.Skip(1).Sum(group => long.Parse(group.Value, CultureInfo.InvariantCulture)));
        double perSecond = double.Parse(rate.Groups[1].Value, CultureInfo.InvariantCulture);
        return perSecond > 0 ? new WrkResult(perSecond, Milliseconds(p50), Milliseconds(p99), errors) : throw new BenchmarkException("wrk: no request was answered");
    }

    private static double Milliseconds(Match match) => double.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture) * match.Groups[2].Value switch
    {
        "us" => 0.001,
        "ms" => 1,
        "s" => 1000,
        _ => 60_000,
    };

    [GeneratedRegex(@"^Requests/sec:\s+([\d.]+)", RegexOptions.Multiline)]
    private static partial Regex Rate();

    [GeneratedRegex(@"^\s+50%\s+([\d.]+)(us|ms|s|m)\b", RegexOptions.Multiline)]
    private static partial Regex Median();

    [GeneratedRegex(@"^\s+99%\s+([\d.]+)(us|ms|s|m)\b", RegexOptions.Multiline)]
    private static partial Regex High();

    [GeneratedRegex(@"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")]
    private static partial Regex SocketErrors();

    [GeneratedRegex(@"Non-2xx or 3xx responses: (\d+)")]
    private static partial Regex StatusErrors();
}
