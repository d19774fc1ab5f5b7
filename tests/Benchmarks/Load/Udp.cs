using System.Globalization;
using VNetMesh.Benchmarks.Running;

namespace VNetMesh.Benchmarks.Load;

/// <summary>What arrived.</summary>
/// <param name="DatagramsPerSecond">At the receiver.</param>
/// <param name="GigabitsPerSecond">Of payload.</param>
public sealed record UdpResult(double DatagramsPerSecond, double GigabitsPerSecond);

/// <summary>A sender that sends as fast as it can, and a receiver that counts.</summary>
public static class Udp
{
    private const int Port = 7100;

    /// <summary>From the left to the right, which listens.</summary>
    public static async Task<UdpResult> PushAsync(NetworkNamespace sender, NetworkNamespace receiver, string address, int payload, int seconds, CancellationToken cancellation)
    {
        await using BackgroundProgram counter = receiver.Start("UDP receiver", Worker.Command("udp-count", Text(Port), Text(seconds)));
        await counter.UntilAsync("it was ready", () => counter.Output.Contains("ready", StringComparison.Ordinal), cancellation);
        await using BackgroundProgram flood = sender.Start("UDP sender", Worker.Command("udp-send", $"{address}:{Text(Port)}", Text(payload), Text(seconds)));
        return await ResultAsync(counter, seconds, cancellation);
    }

    /// <summary>From the server to the client that called it, as answers come through a NAT.</summary>
    public static async Task<UdpResult> PullAsync(NetworkNamespace client, NetworkNamespace server, string address, int payload, int seconds, CancellationToken cancellation)
    {
        await using BackgroundProgram flood = server.Start("UDP sender", Worker.Command("udp-answer", $"{address}:{Text(Port)}", Text(payload), Text(seconds)));
        await flood.UntilAsync("it was ready", () => flood.Output.Contains("ready", StringComparison.Ordinal), cancellation);
        await using BackgroundProgram counter = client.Start("UDP receiver", Worker.Command("udp-call", $"{address}:{Text(Port)}", Text(seconds)));
        return await ResultAsync(counter, seconds, cancellation);
    }

    /// <summary>Reads "datagrams octets seconds", the last line of what a receiver says.</summary>
    public static UdpResult Parse(string text)
    {
        string[] fields = (text.Split('\n', StringSplitOptions.RemoveEmptyEntries).LastOrDefault() ?? "").Split(' ');
        if (fields.Length != 3 || !long.TryParse(fields[0], CultureInfo.InvariantCulture, out long datagrams) || !long.TryParse(fields[1], CultureInfo.InvariantCulture, out long octets)
            || !double.TryParse(fields[2], CultureInfo.InvariantCulture, out double seconds) || seconds <= 0)
            throw new BenchmarkException("the UDP receiver told no result: " + text.ReplaceLineEndings(" / "));
        return new UdpResult(datagrams / seconds, octets * 8 / seconds / 1e9);
    }

    private static async Task<UdpResult> ResultAsync(BackgroundProgram counter, int seconds, CancellationToken cancellation)
    {
        UdpResult result = Parse(await counter.FinishAsync(TimeSpan.FromSeconds(seconds + 15), cancellation));
        return result.DatagramsPerSecond > 0 ? result : throw new BenchmarkException("UDP: nothing arrived");
    }

    private static string Text(int number) => number.ToString(CultureInfo.InvariantCulture);
}
