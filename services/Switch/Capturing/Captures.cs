using VNetMesh.Links;
using VNetMesh.Switch.Forwarding;
using VNetMesh.Switch.Registry;

namespace VNetMesh.Switch.Capturing;

/// <summary>The captures that are under way: a bounded number, each with a bounded buffer.</summary>
public sealed partial class Captures(NetworkRegistry registry, PortDirectory ports, ForwardingPlane plane, TimeProvider time, ILogger<Captures> logger)
{
    public const string Prefix = "captures/";
    public const int MaxCaptures = 8;
    public const int MaxFilterText = 4096;

    private readonly Lock _lock = new();
    private readonly List<CaptureSession> _sessions = [];
    private long _last;

    /// <summary>Oldest first.</summary>
    public IReadOnlyList<CaptureSession> List()
    {
        lock (_lock)
            return [.. _sessions];
    }

    /// <summary>Begins a capture. Whoever asked must give it to <see cref="EndAsync"/> in the end.</summary>
    /// <exception cref="RegistryException">NETWORK_NOT_FOUND, PORT_NOT_FOUND, PORT_NETWORK_MISMATCH, DIRECTION_INVALID, TOO_MANY_CAPTURES.</exception>
    public async Task<CaptureSession> StartAsync(CaptureOptions options)
    {
        registry.Get(options.Network);
        if (options.Port is not null && ports.Get(options.Port).Info.Network != options.Network)
            throw Refuse.Invalid("PORT_NETWORK_MISMATCH", $"{options.Port} is not on {options.Network}", ("port", options.Port));
        if (options.Directions is < CaptureDirections.None or > CaptureDirections.Both)
            throw Refuse.Invalid("DIRECTION_INVALID", "the direction must be in, out or both", ("field", "direction"));
        CaptureSession session = Add(Complete(options));
        await plane.AddCaptureAsync(session).ConfigureAwait(false);
        LogStarted(session.Name, options.Port ?? options.Network, options.FilterText);
        return session;
    }

    /// <summary>Ends a capture in order; its reader takes what is there and is told.</summary>
    /// <exception cref="RegistryException">CAPTURE_NOT_FOUND.</exception>
    public Task StopAsync(string name)
    {
        lock (_lock)
        {
            CaptureSession session = _sessions.Find(one => one.Name == name)
                ?? throw new RegistryException(RefusalKind.NotFound, "CAPTURE_NOT_FOUND", $"there is no capture '{name}'; it may have ended already", ("capture", name));
            return plane.RemoveCaptureAsync(session);
        }
    }

    /// <summary>The reader is gone: nothing of the capture is left.</summary>
    public async Task EndAsync(CaptureSession session)
    {
        lock (_lock)
            _sessions.Remove(session);
        await plane.RemoveCaptureAsync(session).ConfigureAwait(false);
        LogEnded(session.Name, session.Matched, session.Missed);
    }

    /// <summary>Fills in what was left open.</summary>
    private static CaptureOptions Complete(CaptureOptions options) => options with
    {
        Directions = options.Directions != CaptureDirections.None ? options.Directions : options.Port is null ? CaptureDirections.In : CaptureDirections.Both,
        SnapLength = options.SnapLength == 0 ? FrameRecord.MaxFrameLength : Math.Clamp(options.SnapLength, Packets.EthernetView.HeaderLength, FrameRecord.MaxFrameLength),
    };

    private CaptureSession Add(CaptureOptions options)
    {
        lock (_lock)
        {
            if (_sessions.Count >= MaxCaptures)
                throw new RegistryException(RefusalKind.Exhausted, "TOO_MANY_CAPTURES", $"{MaxCaptures} captures are under way, which is the limit; end one first");
            var session = new CaptureSession($"{Prefix}{++_last}", options, time.GetUtcNow());
            _sessions.Add(session);
            return session;
        }
    }

    [LoggerMessage(LogLevel.Information, "{Capture} of {Place} began; filter '{Filter}'")]
    private partial void LogStarted(string capture, string place, string filter);

    [LoggerMessage(LogLevel.Information, "{Capture} ended: {Matched} frames, {Missed} of them missed")]
    private partial void LogEnded(string capture, long matched, long missed);
}
