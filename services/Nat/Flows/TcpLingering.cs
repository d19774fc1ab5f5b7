using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Tcp;
using VNetMesh.Nat.Timing;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Flows;

/// <summary>
/// Connections in TIME-WAIT (RFC 9293, 3.10.7.4): the flow is over and its socket closed, but the guest may not have heard the
/// last acknowledgement. Some sixty octets each instead of a flow, so that short connections by the thousand are bounded by nothing
/// else than their rate; at most <see cref="Capacity"/>, and the oldest gives way. On the loop's thread.
/// </summary>
internal sealed class TcpLingering : ITimerOwner
{
    public const int Capacity = 16384;

    /// <summary>2 MSL. Short: no segment lives for minutes on a link inside one host.</summary>
    public const long Life = 2_000_000;

    private const long SweepInterval = 250_000;

    private readonly GatewayContext _gateway;
    private readonly LoopTimer _timer;
    private readonly Dictionary<TcpFlowKey, Entry> _entries = [];
    private readonly Queue<(TcpFlowKey Key, long Until)> _order = new();

    public TcpLingering(GatewayContext gateway)
    {
        _gateway = gateway;
        _timer = new LoopTimer(this);
    }

    public void Add(in TcpFlowKey key, in TcpRemains remains, long now)
    {
        if (_order.Count == Capacity)
            _entries.Remove(_order.Dequeue().Key);
        if (_order.Count == 0)
            _gateway.Timers.Set(_timer, now + Life);
        _entries[key] = new Entry(remains, now + Life);
        _order.Enqueue((key, now + Life));
    }

    /// <summary>A segment that no flow takes. True: it belonged to what lingers, and was answered as TIME-WAIT asks.</summary>
    public bool Take(in GuestPacket packet, in TcpFlowKey key, in TcpSegmentIn segment)
    {
        if (_entries.Count == 0 || !_entries.TryGetValue(key, out Entry entry))
            return false;
        // A new connection from the same port takes its place (RFC 6191), a reset ends it.
        if (entry.Remains.MayBeReplacedBy(segment))
        {
            _entries.Remove(key);
            return false;
        }
        if (segment.Has(TcpFlags.Rst))
        {
            if (segment.Sequence == entry.Remains.Expected)
                _entries.Remove(key);
            return true;
        }
        if (segment.SequenceLength == 0)
            return true;
        // A FIN sent again: the acknowledgement was lost.
        if (segment.Has(TcpFlags.Fin))
            _entries[key] = entry with { Until = packet.Now + Life };
        if (!TcpFrames.Send(_gateway.Sender, packet.Guest.Mac, key, entry.Remains.Acknowledge(packet.Now), default, default))
            _gateway.Sender.CountUnsent();
        return true;
    }

    public void OnTimer(long now)
    {
        while (_order.TryPeek(out (TcpFlowKey Key, long Until) oldest) && oldest.Until <= now)
        {
            _order.Dequeue();
            if (!_entries.TryGetValue(oldest.Key, out Entry entry))
                continue;
            if (entry.Until <= now)
                _entries.Remove(oldest.Key);
            else if (entry.Until > oldest.Until)
                _order.Enqueue((oldest.Key, entry.Until));
        }
        if (_order.Count > 0)
            _gateway.Timers.Set(_timer, now + SweepInterval);
    }

    private readonly record struct Entry(TcpRemains Remains, long Until);
}
