using System.Buffers.Binary;

namespace VNetMesh.Packets;

/// <summary>Options of neighbour discovery (RFC 4861, 4.6; RFC 8106, 5.1).</summary>
public static class NdpOption
{
    public const byte SourceLinkLayerAddress = 1;
    public const byte PrefixInformation = 3;
    public const byte Mtu = 5;
    public const byte RecursiveDnsServers = 25;
}

/// <summary>One option: its whole octets, type and length included; the length is a multiple of 8 and not 0.</summary>
public readonly ref struct NdpOptionView(ReadOnlySpan<byte> bytes)
{
    public byte Type => Bytes[0];
    public ReadOnlySpan<byte> Bytes { get; } = bytes;
}

/// <summary>Walks options (RFC 4861, 4.6: type, length in units of 8 octets, value).</summary>
public ref struct NdpOptions(ReadOnlySpan<byte> bytes)
{
    private ReadOnlySpan<byte> _rest = bytes;

    /// <summary>The walk met an option of length 0, or one longer than what is left: the packet must be dropped.</summary>
    public bool IsMalformed { get; private set; }

    public bool TryNext(out NdpOptionView option)
    {
        option = default;
        if (_rest.IsEmpty || IsMalformed)
            return false;
        int length = _rest.Length < 2 ? 0 : _rest[1] * 8;
        if (length == 0 || length > _rest.Length)
        {
            IsMalformed = true;
            return false;
        }
        option = new NdpOptionView(_rest[..length]);
        _rest = _rest[length..];
        return true;
    }
}

/// <summary>
/// A router solicitation (RFC 4861, 4.1).
/// <code>
///  0      1      2          4          8
/// | 133  | code | checksum | reserved | options …
/// </code>
/// </summary>
public static class RouterSolicitation
{
    public const int MinLength = 8;

    /// <summary>RFC 4861, 6.1.1: what a router accepts. The checksum is for the caller, who knows whether it is partial.</summary>
    public static bool IsValid(in Ipv6View ip, in Icmpv6View icmp)
    {
        if (ip.HopLimit != 255 || icmp.Type != Icmpv6Type.RouterSolicitation || icmp.Code != 0 || icmp.Message.Length < MinLength)
            return false;
        var options = new NdpOptions(icmp.Message[MinLength..]);
        while (options.TryNext(out NdpOptionView option))
        {
            // A host without an address cannot say to which link-layer address one belongs.
            if (ip.Source.IsUnspecified && option.Type == NdpOption.SourceLinkLayerAddress)
                return false;
        }
        return !options.IsMalformed;
    }
}

/// <summary>A prefix as it is advertised (RFC 4861, 4.6.2): on link, and for addresses that guests make themselves.</summary>
/// <param name="ValidSeconds">How long addresses made from it may be used.</param>
/// <param name="PreferredSeconds">How long for new conversations; at most as long as valid.</param>
public readonly record struct AdvertisedPrefix(Ipv6Prefix Prefix, uint ValidSeconds, uint PreferredSeconds);

/// <summary>
/// What VNetMesh says in a router advertisement (RFC 4861, 4.2).
/// <code>
///  0      1      2          4           5     6                 8                12              16
/// | 134  | code | checksum | hop limit |flags| router lifetime | reachable time | retrans timer | options …
/// </code>
/// </summary>
public sealed record RouterAdvertisement
{
    public const int MinLength = 16;
    private const byte OnLink = 0x80;
    private const byte Autonomous = 0x40;

    /// <summary>For how many seconds the sender is a default router; zero: it is none.</summary>
    public ushort RouterLifetimeSeconds { get; init; }

    /// <summary>Zero: none is told.</summary>
    public uint Mtu { get; init; }

    /// <summary>Null: none is told, and guests ask for it by neighbour solicitation.</summary>
    public MacAddress? SourceLinkLayerAddress { get; init; }

    public IReadOnlyList<AdvertisedPrefix> Prefixes { get; init; } = [];

    public IReadOnlyList<Ipv6Address> DnsServers { get; init; } = [];

    public uint DnsLifetimeSeconds { get; init; }

    /// <summary>Octets of the ICMPv6 message.</summary>
    public int Length => MinLength + (SourceLinkLayerAddress is null ? 0 : 8) + (Mtu == 0 ? 0 : 8) + (Prefixes.Count * 32) + (DnsServers.Count == 0 ? 0 : 8 + (DnsServers.Count * Ipv6Address.Length));

    /// <summary>Writes the message with its checksum.</summary>
    public void Write(Span<byte> message, Ipv6Address source, Ipv6Address destination)
    {
        message = message[..Length];
        message.Clear();
        message[4] = 64; // hop limit for guests
        BinaryPrimitives.WriteUInt16BigEndian(message[6..], RouterLifetimeSeconds);
        Span<byte> rest = message[MinLength..];
        if (SourceLinkLayerAddress is { } mac)
        {
            mac.Write(Begin(ref rest, NdpOption.SourceLinkLayerAddress, 8)[2..]);
        }
        if (Mtu != 0)
            BinaryPrimitives.WriteUInt32BigEndian(Begin(ref rest, NdpOption.Mtu, 8)[4..], Mtu);
        foreach (AdvertisedPrefix prefix in Prefixes)
            WritePrefix(Begin(ref rest, NdpOption.PrefixInformation, 32), prefix);
        if (DnsServers.Count > 0)
        {
            Span<byte> option = Begin(ref rest, NdpOption.RecursiveDnsServers, 8 + (DnsServers.Count * Ipv6Address.Length));
            BinaryPrimitives.WriteUInt32BigEndian(option[4..], DnsLifetimeSeconds);
            for (int i = 0; i < DnsServers.Count; i++)
                DnsServers[i].Write(option[(8 + (i * Ipv6Address.Length))..]);
        }
        Icmpv6View.Write(message, Icmpv6Type.RouterAdvertisement, 0, source, destination);
    }

    private static void WritePrefix(Span<byte> option, in AdvertisedPrefix prefix)
    {
        option[2] = (byte)prefix.Prefix.Length;
        option[3] = OnLink | Autonomous;
        BinaryPrimitives.WriteUInt32BigEndian(option[4..], prefix.ValidSeconds);
        BinaryPrimitives.WriteUInt32BigEndian(option[8..], prefix.PreferredSeconds);
        prefix.Prefix.Network.Write(option[16..]);
    }

    private static Span<byte> Begin(ref Span<byte> rest, byte type, int length)
    {
        Span<byte> option = rest[..length];
        option[0] = type;
        option[1] = (byte)(length / 8);
        rest = rest[length..];
        return option;
    }
}
