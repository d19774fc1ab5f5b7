using VNetMesh.Links;
using VNetMesh.Nat.Dns;
using VNetMesh.Nat.Flows;
using VNetMesh.Nat.Observability;
using VNetMesh.Nat.Sockets;
using VNetMesh.Nat.Timing;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Gateways;

/// <summary>What all gateways of the process share. All of it is used on the loop's thread, but for the hub and the metrics.</summary>
public sealed record NatShared(EventLoop Loop, NatLimits Limits, DestinationPolicy Policy, FlowHub Hub, NatMetrics Metrics, ResolverList Resolvers, TimeProvider Time, ILogger Logger)
{
    /// <summary>Octets that the TCP buffers of all gateways may have, beside 32 KiB a flow.</summary>
    public const long TcpBufferLimit = 256L * 1024 * 1024;

    public DatagramBatch Batch { get; } = new();

    public Tcp.TcpBufferPool TcpBuffers { get; init; } = new(limit: TcpBufferLimit);
}

/// <summary>What the parts of one gateway share.</summary>
public sealed class GatewayContext
{
    public GatewayContext(GatewaySettings settings, NatShared shared)
    {
        Settings = settings;
        Shared = shared;
        Sender = new FrameSender(settings, Drops);
        Neighbours = new ArpTable(settings, Sender, Timers, Drops);
        Errors = new IcmpErrors(settings, Sender, Drops);
        Flows = new FlowRegistry(settings, shared.Limits, Drops, Names, shared.Hub, shared.Metrics);
    }

    public GatewaySettings Settings { get; }
    public NatShared Shared { get; }
    public EventLoop Loop => Shared.Loop;
    public DestinationPolicy Policy => Shared.Policy;
    public TimeProvider Time => Shared.Time;
    public DropCounters Drops { get; } = new();
    public TimerQueue Timers { get; } = new();
    public FrameSender Sender { get; }
    public ArpTable Neighbours { get; }
    public IcmpErrors Errors { get; }
    public FlowRegistry Flows { get; }
    internal DnsNames Names { get; } = new();

    /// <summary>Room for the datagrams of one call; used within one call only.</summary>
    public DatagramBatch Batch => Shared.Batch;

    /// <summary>Room for one datagram of a host socket's; used within one call only.</summary>
    public byte[] Datagram { get; } = new byte[65536];
}

/// <summary>A guest's packet that passed the checks of link, IP and source. Valid until the next record is taken.</summary>
public readonly ref struct GuestPacket
{
    public required Neighbour Guest { get; init; }
    public required Ipv4View Ip { get; init; }

    /// <summary>The transport checksum is partial, or was verified by the sender's device: there is nothing to verify.</summary>
    public bool ChecksumTrusted { get; init; }

    /// <summary>Of <see cref="VirtioNetHeader"/>; none for packets of one segment.</summary>
    public byte GsoKind { get; init; }
    public int GsoSize { get; init; }
    public TraceContext Trace { get; init; }

    /// <summary>Microseconds of the loop's clock.</summary>
    public long Now { get; init; }
}
