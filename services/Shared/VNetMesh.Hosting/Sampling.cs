using OpenTelemetry.Trace;

namespace VNetMesh.Hosting;

/// <summary>
/// Which traces are recorded, unless OTEL_TRACES_SAMPLER says otherwise: what a recorded parent began; of the others
/// VNETMESH_TRACE_RATIO (0 to 1; 1), and of these at most <see cref="MaxPerSecond"/> a second, so that a flood of connections
/// is not a flood of spans; and always what bears <see cref="Reason"/>: failures, refusals, what was slow.
/// </summary>
public sealed class ServiceSampler : Sampler
{
    /// <summary>A tag that a span is begun with when it is to be recorded whatever the ratio: why.</summary>
    public const string Reason = "vnetmesh.sampling.reason";

    /// <summary>New traces a second, over a burst of as many.</summary>
    public const int MaxPerSecond = 50;

    private readonly TraceIdRatioBasedSampler _ratio;
    private readonly TimeProvider _time;
    private readonly Lock _gate = new();
    private double _tokens = MaxPerSecond;
    private long _filled;

    public ServiceSampler(double ratio, TimeProvider time)
    {
        _ratio = new TraceIdRatioBasedSampler(ratio);
        _time = time;
        _filled = time.GetTimestamp();
        Description = $"VNetMesh{{{ratio}}}";
    }

    /// <summary>By the environment; null where OTEL_TRACES_SAMPLER names one, which the SDK then takes.</summary>
    public static ServiceSampler? FromEnvironment()
    {
        if (Environment.GetEnvironmentVariable("OTEL_TRACES_SAMPLER") is { Length: > 0 })
            return null;
        bool given = double.TryParse(Environment.GetEnvironmentVariable("VNETMESH_TRACE_RATIO"), System.Globalization.CultureInfo.InvariantCulture, out double ratio);
        return new ServiceSampler(given && ratio is >= 0 and <= 1 ? ratio : 1, TimeProvider.System);
    }

    public override SamplingResult ShouldSample(in SamplingParameters samplingParameters)
    {
        if (HasReason(samplingParameters.Tags))
            return new SamplingResult(SamplingDecision.RecordAndSample);
        if (samplingParameters.ParentContext.TraceId != default)
            return new SamplingResult((samplingParameters.ParentContext.TraceFlags & System.Diagnostics.ActivityTraceFlags.Recorded) != 0);
        return new SamplingResult(_ratio.ShouldSample(samplingParameters).Decision == SamplingDecision.RecordAndSample && TryTake());
    }

    private static bool HasReason(IEnumerable<KeyValuePair<string, object?>>? tags)
    {
        if (tags is null)
            return false;
        foreach (KeyValuePair<string, object?> tag in tags)
        {
            if (tag.Key == Reason)
                return true;
        }
        return false;
    }

    private bool TryTake()
    {
        lock (_gate)
        {
            long now = _time.GetTimestamp();
            _tokens = Math.Min(MaxPerSecond, _tokens + (_time.GetElapsedTime(_filled, now).TotalSeconds * MaxPerSecond));
            _filled = now;
            if (_tokens < 1)
                return false;
            _tokens--;
            return true;
        }
    }
}
