using VNetMesh.Benchmarks.Results;
using VNetMesh.Benchmarks.Systems;

namespace VNetMesh.Benchmarks.Rows;

/// <summary>Settings of a run that rows read.</summary>
/// <param name="Seconds">How long one measurement counts.</param>
public sealed record RunSettings(int Seconds);

/// <summary>Work that is given to each system in turn.</summary>
/// <param name="Name">For <c>--row</c>.</param>
/// <param name="Systems">Who gets it, in this order.</param>
/// <param name="Metrics">What comes out, in the order of the values.</param>
/// <param name="MeasureAsync">Does it once and gives one value for each metric, null where the system has none. Throws BenchmarkException when it cannot.</param>
public sealed record Row(string Name, IReadOnlyList<string> Systems, IReadOnlyList<Metric> Metrics, Func<Lab, string, RunSettings, CancellationToken, Task<double?[]>> MeasureAsync);
