using VNetMesh.Packets;

namespace VNetMesh.Links;

/// <summary>What an attempt to take a record from a link gave.</summary>
public enum ReceiveStatus
{
    /// <summary>A record.</summary>
    Received,

    /// <summary>Nothing is there now.</summary>
    Empty,

    /// <summary>The far side broke the link's rules; the link says how. Nothing more will come.</summary>
    Broken,

    /// <summary>The far side, or the device, is gone.</summary>
    Closed,
}

/// <summary>What became of a record that was to be sent.</summary>
public enum SendStatus
{
    Sent,

    /// <summary>No room now; nothing was sent.</summary>
    Full,

    /// <summary>The device is there but down, or refused this frame; it is lost.</summary>
    Refused,

    /// <summary>The far side, or the device, is gone.</summary>
    Closed,
}

/// <summary>
/// Anything that carries frames. A record is a <see cref="VirtioNetHeader"/> of 12 octets and an Ethernet
/// frame. One thread at a time receives and sends; nothing blocks and nothing allocates.
/// </summary>
public interface IFrameLink : IDisposable
{
    /// <summary>Readable when there may be something to receive (or, after <see cref="SendStatus.Full"/>, room to send).</summary>
    int Descriptor { get; }

    /// <summary>What the far side accepts in records sent to it.</summary>
    LinkOffloads Offloads { get; }

    /// <summary>Which rule the far side broke; null while it has broken none.</summary>
    string? Fault => null;

    /// <summary>How full the link's own queues are; null for one that has none, or when it is closed.</summary>
    LinkOccupancy? Occupancy => null;

    /// <summary>Takes the next record. It stays valid until the next call of this method.</summary>
    ReceiveStatus TryReceive(out ReadOnlySpan<byte> record, out TraceContext trace);

    /// <summary>Sends a record whole, or not at all.</summary>
    SendStatus TrySend(ReadOnlySpan<byte> record, in TraceContext trace);

    /// <summary>
    /// Room for a record of up to that many octets, to be filled in place and sent by <see cref="Commit"/>;
    /// empty when there is none now. A reservation that is not committed is as if it had not been made.
    /// </summary>
    Span<byte> Reserve(int length);

    /// <summary>Sends the first octets of what was reserved.</summary>
    SendStatus Commit(int length, in TraceContext trace);

    /// <summary>Wakes the far side if it sleeps and something was sent since. Call after each batch.</summary>
    void Flush();

    /// <summary>
    /// Call before sleeping on <see cref="Descriptor"/>. False: something has come meanwhile, or there is room again after
    /// <see cref="SendStatus.Full"/>; receive and send again. Once a link has said that it is broken or closed, it is quiet.
    /// </summary>
    bool PrepareToSleep();
}

/// <summary>What share of a link's queues is in use, 0 to 1.</summary>
/// <param name="Incoming">What waits to be received.</param>
/// <param name="Outgoing">What the far side has not taken yet.</param>
public readonly record struct LinkOccupancy(double Incoming, double Outgoing);

/// <summary>Offloads of a link, in the sense of virtio 1.2, 5.1.3.</summary>
[Flags]
public enum LinkOffloads
{
    None = 0,

    /// <summary>Checksums may be partial.</summary>
    Checksum = 1,
    Tso4 = 2,
    Tso6 = 4,

    /// <summary>UDP datagrams of several segments, over IPv4 and IPv6 (VIRTIO_NET_HDR_GSO_UDP_L4).</summary>
    Uso = 8,

    /// <summary>All that a TAP with TUN_F_CSUM, TUN_F_TSO4 and TUN_F_TSO6 has.</summary>
    Tcp = Checksum | Tso4 | Tso6,

    /// <summary>And TUN_F_USO4 and TUN_F_USO6 (Linux 6.2).</summary>
    All = Tcp | Uso,
}

/// <summary>Limits of a record.</summary>
public static class FrameRecord
{
    /// <summary>The largest frame: 64 KiB of IP packet, and an Ethernet header with one VLAN tag.</summary>
    public const int MaxFrameLength = 65535 + 18;

    /// <summary>The largest record.</summary>
    public const int MaxLength = MaxFrameLength + VirtioNetHeader.Length;

    /// <summary>The smallest record: a header and an Ethernet header.</summary>
    public const int MinLength = VirtioNetHeader.Length + EthernetView.HeaderLength;
}
