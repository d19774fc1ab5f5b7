using VNetMesh.Benchmarks.Load;
using VNetMesh.Benchmarks.Running;

namespace VNetMesh.Benchmarks.Tests;

/// <summary>What the tools print, and what becomes of it.</summary>
public sealed class LoadTests
{
    [Fact]
    public void Iperf_tells_what_the_receiver_got_and_counts_the_bytes_of_omitted_seconds_too()
    {
        IperfResult result = Iperf.Parse("""
            {
                "start": { "version": "iperf 3.12" },
                "intervals": [
                    { "sum": { "bytes": 1000000000, "omitted": true } },
                    { "sum": { "bytes": 2000000000, "omitted": false } }
                ],
                "end": {
                    "sum_sent": { "bytes": 2000000000, "bits_per_second": 16000000000.0 },
                    "sum_received": { "bytes": 1990000000, "bits_per_second": 15920000000.0 }
                }
            }
            """);
        Assert.Equal(15.92, result.GigabitsPerSecond, 6);
        Assert.Equal(3e9, result.Bytes);
    }

    [Fact]
    public void Iperf_adds_both_directions()
    {
        IperfResult result = Iperf.Parse("""
            {
                "intervals": [ { "sum": { "bytes": 100 }, "sum_bidir_reverse": { "bytes": 50 } } ],
                "end": { "sum_received": { "bits_per_second": 4e9 }, "sum_received_bidir_reverse": { "bits_per_second": 2e9 } }
            }
            """);
        Assert.Equal(6, result.GigabitsPerSecond, 6);
        Assert.Equal(150, result.Bytes);
    }

    [Theory]
    [InlineData("""{ "start": {}, "error": "unable to connect to server: Connection refused" }""", "Connection refused")]
    [InlineData("""{ "start": {}, "end": {} }""", "no result")]
    [InlineData("""{ "intervals": [], "end": { "sum_received": { "bits_per_second": 0 } } }""", "nothing arrived")]
    [InlineData("iperf3: command not found", "JSON")]
    public void Iperf_without_a_result_is_a_failure_that_says_why(string json, string why) =>
        Assert.Contains(why, Assert.Throws<BenchmarkException>(() => Iperf.Parse(json)).Message, StringComparison.Ordinal);

    [Fact]
    public void Wrk_tells_rate_latencies_and_errors()
    {
        WrkResult result = Wrk.Parse("""
            Running 2s test @ http://198.51.100.1:8080/
              2 threads and 32 connections
              Thread Stats   Avg      Stdev     Max   +/- Stdev
                Latency   512.10us    1.20ms  31.00ms   95.20%
                Req/Sec    31.60k     2.10k   36.50k    70.00%
              Latency Distribution
                 50%  366.00us
                 75%  520.00us
                 90%    0.91ms
                 99%   60.60ms
              126000 requests in 2.00s, 19.80MB read
              Socket errors: connect 1, read 2, write 0, timeout 3
              Non-2xx or 3xx responses: 4
            Requests/sec:  62890.51
            Transfer/sec:      9.88MB
            """);
        Assert.Equal(62890.51, result.RequestsPerSecond);
        Assert.Equal(0.366, result.P50, 6);
        Assert.Equal(60.6, result.P99, 6);
        Assert.Equal(10, result.Errors);
    }

    [Theory]
    [InlineData("1.50s", 1500)]
    [InlineData("2.00m", 120_000)]
    [InlineData("12.30us", 0.0123)]
    public void Wrk_has_units_of_time(string time, double milliseconds) =>
        Assert.Equal(milliseconds, Wrk.Parse($"     50%  {time}\n     99%  {time}\nRequests/sec:  1.0\n").P99, 6);

    [Theory]
    [InlineData("unable to connect to 198.51.100.1:8080 Connection refused")]
    [InlineData("     50%  0.00us\n     99%  0.00us\nRequests/sec:      0.00\n")]
    public void Wrk_without_an_answer_is_a_failure(string text) => Assert.Throws<BenchmarkException>(() => Wrk.Parse(text));

    [Fact]
    public void Ping_gives_percentiles_and_fails_when_replies_are_missing()
    {
        string text = string.Concat(Enumerable.Range(1, 100).Select(number => $"64 bytes from 10.99.0.2: icmp_seq={number} ttl=64 time=0.{number:000} ms\n"));
        PingResult result = Ping.Parse(text, 100);
        Assert.Equal((0.050, 0.099), (result.P50, result.P99));
        Assert.Throws<BenchmarkException>(() => Ping.Parse(text, 102));
    }

    [Fact]
    public void The_receiver_of_datagrams_ends_with_its_count()
    {
        UdpResult result = Udp.Parse("ready\n250000 350000000 2.000000\n");
        Assert.Equal((125_000, 1.4), (result.DatagramsPerSecond, result.GigabitsPerSecond));
        Assert.Throws<BenchmarkException>(() => Udp.Parse("ready\n"));
    }
}
