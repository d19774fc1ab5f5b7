using System.Diagnostics.Metrics;

namespace VNetMesh.Links;

/// <summary>Bounds of histograms of times in seconds; without them the SDK's are for milliseconds, and everything is below the first.</summary>
public static class DurationBuckets
{
    /// <summary>0.1 ms to 2.5 s: answers, dials, writes to the disk.</summary>
    public static InstrumentAdvice<double> Short { get; } = new() { HistogramBucketBoundaries = [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5] };

    /// <summary>1 ms to 10 s: what waits for a host far away, or for several steps.</summary>
    public static InstrumentAdvice<double> Long { get; } = new() { HistogramBucketBoundaries = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30] };

    /// <summary>10 ms to an hour: how long connections last.</summary>
    public static InstrumentAdvice<double> Lifetime { get; } = new() { HistogramBucketBoundaries = [0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800, 3600] };

    /// <summary>1 µs to 100 ms: what happens within a turn of a thread.</summary>
    public static InstrumentAdvice<double> Tiny { get; } = new() { HistogramBucketBoundaries = [0.000001, 0.0000025, 0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.1] };
}
