using VNetMesh.Switch.Forwarding;

namespace VNetMesh.Switch.Capturing;

/// <summary>
/// The captures of one network, on its loop. It exists only while there are any. It hears what becomes of a frame while it is
/// forwarded, and offers it afterwards: first as it came in, then as it went out to each port.
/// </summary>
internal sealed class FrameTap
{
    private readonly List<(ForwardingPort Port, FrameVerdict Verdict)> _offered = [];
    private CaptureSession[] _sessions = [];
    private FrameVerdict _verdict;
    private bool _wasDropped;
    private DropCause _lastCause;

    public bool IsEmpty => _sessions.Length == 0;

    public void Add(CaptureSession session) => _sessions = [.. _sessions, session];

    public void Remove(CaptureSession session) => _sessions = [.. _sessions.Where(other => other != session)];

    /// <summary>The network goes away.</summary>
    public void Close()
    {
        foreach (CaptureSession session in _sessions)
            session.End(CaptureEnd.NetworkRemoved);
        _sessions = [];
    }

    /// <summary>A frame is about to be forwarded.</summary>
    public void Begin()
    {
        _verdict = default;
        _wasDropped = false;
        _offered.Clear();
    }

    public void OnFlooded() => _verdict.IsFlooded = true;

    public void OnDropped(ForwardingPort port, DropCause cause)
    {
        if (cause == DropCause.MacTableFull)
        {
            _verdict.IsNotLearned = true;
            return;
        }
        _wasDropped = true;
        _lastCause = cause;
        if (_verdict.Dropped++ > 0)
            return;
        _verdict.Cause = cause;
        _verdict.DroppedAt = port;
    }

    /// <summary>An attempt to send the frame has been made; a drop, if there was one, was told of just before.</summary>
    public void OnOffered(ForwardingPort egress)
    {
        var one = new FrameVerdict { IsFlooded = _verdict.IsFlooded };
        if (_wasDropped)
        {
            one.Dropped = 1;
            one.Cause = _lastCause;
            one.DroppedAt = egress;
        }
        else
        {
            one.Sent = 1;
            one.SentTo = egress;
            _verdict.Sent++;
            _verdict.SentTo ??= egress;
        }
        _wasDropped = false;
        _offered.Add((egress, one));
    }

    /// <summary>The frame has been forwarded, or not.</summary>
    public void End(ForwardingPort ingress, ReadOnlySpan<byte> record)
    {
        long time = 0;
        foreach (CaptureSession session in _sessions)
            session.Offer(ingress, isOut: false, record, _verdict, ref time);
        foreach ((ForwardingPort egress, FrameVerdict verdict) in _offered)
        {
            foreach (CaptureSession session in _sessions)
                session.Offer(egress, isOut: true, record, verdict, ref time);
        }
    }
}
