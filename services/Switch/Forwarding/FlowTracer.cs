using System.Buffers.Binary;
using System.Diagnostics;
using VNetMesh.Links;
using VNetMesh.Packets;
using VNetMesh.Switch.Observability;

namespace VNetMesh.Switch.Forwarding;

/// <summary>
/// Begins the trace of a conversation at the first of its frames that goes to a service: the span "switch.first_frame" says
/// where it came in and what the switch decided, and its context travels with the frame, so that what nat or dhcp make of it
/// is the same trace. Frames after the first are counters. Only at work while traces are exported; on the loop's thread.
///
/// It is a trace of its own, but for the first DHCP message from a port that was registered within a trace lately, as by "vnet guest add".
///
/// What is first: a TCP SYN, an ICMP echo request or a UDP datagram of a conversation not seen for a minute, a DHCP client's
/// message of a transaction not seen so long. What was seen is a table of hashes: two conversations in one place only cost
/// a span too many.
/// </summary>
internal sealed class FlowTracer(string network)
{
    private const int TableSize = 4096;
    private const long Memory = 60_000_000;
    private const ushort DhcpServerPort = 67;
    private const byte EchoRequest = 8;

    private static readonly ulong Seed = (ulong)Random.Shared.NextInt64();

    private (ulong Hash, long Seen)[]? _seen;

    public static bool IsOn => SwitchTelemetry.Source.HasListeners();

    /// <param name="egress">Where the frame goes; null: to every port.</param>
    /// <returns>What is to travel with the frame; default for a frame that is not the first of anything.</returns>
    public TraceContext Begin(ForwardingPort ingress, ForwardingPort? egress, ReadOnlySpan<byte> frame, long now)
    {
        if (!EthernetView.TryParse(frame, out EthernetView ethernet) || ethernet.Type != EtherType.Ipv4 || !Ipv4View.TryParse(ethernet.Payload, out Ipv4View ip) || ip.FragmentOffset != 0)
            return default;
        if (!TryReadOpening(ip, out Opening opening) || IsKnown(opening.Hash, now))
            return default;
        Activity.Current = null;
        ActivityContext parent = opening.DestinationPort == DhcpServerPort ? TakeBirth(ingress, now) : default;
        using Activity? span = SwitchTelemetry.Source.StartActivity("switch.first_frame", ActivityKind.Internal, parent);
        Activity.Current = null;
        if (span is null)
            return default;
        if (span.IsAllDataRequested)
            Describe(span, ingress, egress, ethernet, ip, opening);
        return TraceContext.Of(span);
    }

    private void Describe(Activity span, ForwardingPort ingress, ForwardingPort? egress, in EthernetView ethernet, in Ipv4View ip, in Opening opening)
    {
        span.SetTag("vnetmesh.network", IdOf(network));
        span.SetTag("vnetmesh.port", IdOf(ingress.Name));
        span.SetTag("vnetmesh.verdict", egress is null ? "flooded" : "forwarded");
        if (egress is not null)
            span.SetTag("vnetmesh.port.egress", IdOf(egress.Name));
        span.SetTag("vnetmesh.mac.source", ethernet.Source.ToString());
        span.SetTag("vnetmesh.mac.destination", ethernet.Destination.ToString());
        span.SetTag("network.transport", ip.Protocol switch { IpProtocol.Tcp => "tcp", IpProtocol.Udp => "udp", _ => "icmp" });
        span.SetTag("client.address", ip.Source.ToString());
        span.SetTag("server.address", ip.Destination.ToString());
        if (ip.Protocol == IpProtocol.Icmp)
            return;
        span.SetTag("client.port", (int)opening.SourcePort);
        span.SetTag("server.port", (int)opening.DestinationPort);
    }

    // A guest's first DHCP exchange is the end of how the guest was made; those that renew its lease are traces of their own.
    private static ActivityContext TakeBirth(ForwardingPort port, long now)
    {
        if (port.Birth is not var (trace, registered))
            return default;
        port.Birth = null;
        return now - registered < Memory ? trace.ToParent() : default;
    }

    private static bool TryReadOpening(in Ipv4View ip, out Opening opening)
    {
        opening = default;
        switch (ip.Protocol)
        {
            case IpProtocol.Tcp when TcpView.TryParse(ip.Payload, out TcpView segment) && (segment.Flags & (TcpFlags.Syn | TcpFlags.Ack | TcpFlags.Rst)) == TcpFlags.Syn:
                // A new initial sequence number is a new connection; the same one is the same SYN, sent again.
                opening = new Opening(segment.SourcePort, segment.DestinationPort, Hash(ip, segment.SourcePort, segment.DestinationPort, segment.Sequence.Value));
                return true;
            case IpProtocol.Udp when UdpView.TryParse(ip.Payload, out UdpView datagram):
                // Clients without an address all look alike but for the transaction.
                uint transaction = datagram.DestinationPort == DhcpServerPort && datagram.Payload.Length >= 8 ? BinaryPrimitives.ReadUInt32BigEndian(datagram.Payload[4..]) : 0;
                opening = new Opening(datagram.SourcePort, datagram.DestinationPort, Hash(ip, datagram.SourcePort, datagram.DestinationPort, transaction));
                return true;
            case IpProtocol.Icmp when ip.Payload.Length >= 8 && ip.Payload[0] == EchoRequest:
                ushort identifier = BinaryPrimitives.ReadUInt16BigEndian(ip.Payload[4..]);
                opening = new Opening(identifier, 0, Hash(ip, identifier, 0, 0));
                return true;
            default:
                return false;
        }
    }

    private bool IsKnown(ulong hash, long now)
    {
        _seen ??= new (ulong, long)[TableSize];
        ref (ulong Hash, long Seen) slot = ref _seen[hash % TableSize];
        bool known = slot.Hash == hash && now - slot.Seen < Memory;
        slot = (hash, now);
        return known;
    }

    private static ulong Hash(in Ipv4View ip, ushort source, ushort destination, uint more)
    {
        ulong hash = Mix(Seed ^ (((ulong)ip.Source.Value << 32) | ip.Destination.Value));
        return Mix(hash ^ (((ulong)source << 48) | ((ulong)destination << 32) | more) ^ ip.Protocol);
    }

    // The finalizer of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    private static ulong Mix(ulong value)
    {
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9;
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB;
        return value ^ (value >> 31);
    }

    private static string IdOf(string name) => name[(name.LastIndexOf('/') + 1)..];

    private readonly record struct Opening(ushort SourcePort, ushort DestinationPort, ulong Hash);
}
