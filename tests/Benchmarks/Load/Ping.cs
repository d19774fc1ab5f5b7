using System.Globalization;
using System.Text.RegularExpressions;
using VNetMesh.Benchmarks.Results;
using VNetMesh.Benchmarks.Running;

namespace VNetMesh.Benchmarks.Load;

/// <summary>Round trips, milliseconds.</summary>
public sealed record PingResult(double P50, double P99);

/// <summary>ping, 500 a second.</summary>
public static partial class Ping
{
    private const int PerSecond = 500;

    public static async Task<PingResult> RunAsync(NetworkNamespace from, string address, int seconds, CancellationToken cancellation)
    {
        int count = PerSecond * seconds;
        string said = await Shell.RunAsync(TimeSpan.FromSeconds(seconds * 4 + 15), from.Enter("ping", "-n", "-i", "0.002", "-c", count.ToString(CultureInfo.InvariantCulture), address), null, cancellation);
        return Parse(said, count);
    }

    /// <summary>Reads the times of the replies.</summary>
    /// <exception cref="BenchmarkException">Fewer than 99 in a hundred came.</exception>
    public static PingResult Parse(string text, int count)
    {
        double[] times = [.. Times().Matches(text).Select(match => double.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture))];
        if (times.Length < count * 0.99)
            throw new BenchmarkException($"ping: {times.Length} of {count} came back");
        return new PingResult(Statistics.Percentile(times, 50), Statistics.Percentile(times, 99));
    }

    [GeneratedRegex(@"time=([\d.]+) ms")]
    private static partial Regex Times();
}
