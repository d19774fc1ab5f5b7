using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace VNetMesh.Packets;

/// <summary>An IPv6 address (RFC 4291), held as a number, first octet highest.</summary>
public readonly record struct Ipv6Address(UInt128 Value)
{
    /// <summary>Octets of an address.</summary>
    public const int Length = 16;

    public static readonly Ipv6Address Unspecified;

    /// <summary>ff02::1 (RFC 4291, 2.7.1).</summary>
    public static readonly Ipv6Address AllNodes = new((UInt128)0xFF02 << 112 | 1);

    /// <summary>ff02::2.</summary>
    public static readonly Ipv6Address AllRouters = new((UInt128)0xFF02 << 112 | 2);

    public bool IsUnspecified => Value == 0;

    /// <summary>ff00::/8.</summary>
    public bool IsMulticast => Value >> 120 == 0xFF;

    /// <summary>fe80::/10.</summary>
    public bool IsLinkLocal => Value >> 118 == 0x3FA;

    public static Ipv6Address Read(ReadOnlySpan<byte> octets) => new(BinaryPrimitives.ReadUInt128BigEndian(octets));

    public void Write(Span<byte> octets) => BinaryPrimitives.WriteUInt128BigEndian(octets, Value);

    /// <summary>fe80::/64 with the modified EUI-64 of a MAC address (RFC 4291, appendix A).</summary>
    public static Ipv6Address LinkLocalOf(MacAddress mac)
    {
        ulong high = (mac.Value >> 24) ^ 0x02_0000, low = mac.Value & 0xFF_FFFF;
        return new(((UInt128)0xFE80 << 112) | (high << 40) | (0xFFFEul << 24) | low);
    }

    /// <summary>The MAC address to which a group's packets are sent: 33:33 and the last four octets (RFC 2464, 7).</summary>
    public MacAddress GroupMac => new(0x3333_0000_0000ul | (uint)Value);

    /// <summary>Reads the forms of RFC 4291, 2.2, without a zone.</summary>
    public static bool TryParse([NotNullWhen(true)] string? text, out Ipv6Address address)
    {
        address = default;
        // IPAddress takes zones, brackets and ports as well.
        if (text is null || text.AsSpan().ContainsAny("%[]/") || !IPAddress.TryParse(text, out IPAddress? parsed) || parsed.AddressFamily != AddressFamily.InterNetworkV6)
            return false;
        Span<byte> octets = stackalloc byte[Length];
        parsed.TryWriteBytes(octets, out _);
        address = Read(octets);
        return true;
    }

    /// <exception cref="FormatException">Not an IPv6 address.</exception>
    public static Ipv6Address Parse(string text) =>
        TryParse(text, out Ipv6Address address) ? address : throw new FormatException($"'{text}' is not an IPv6 address such as 2001:db8::1");

    public IPAddress ToIPAddress()
    {
        Span<byte> octets = stackalloc byte[Length];
        Write(octets);
        return new IPAddress(octets);
    }

    /// <summary>In the form of RFC 5952.</summary>
    public override string ToString() => ToIPAddress().ToString();
}

/// <summary>An IPv6 prefix: network address (the other bits zero) and length, 0 to 128.</summary>
public readonly record struct Ipv6Prefix
{
    public Ipv6Prefix(Ipv6Address network, int length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, 128);
        Length = length;
        Network = new Ipv6Address(network.Value & MaskOf(length));
    }

    public Ipv6Address Network { get; }

    /// <summary>Bits.</summary>
    public int Length { get; }

    public bool Contains(Ipv6Address address) => (address.Value & MaskOf(Length)) == Network.Value;

    /// <summary>The address with that interface identifier.</summary>
    public Ipv6Address Host(ulong identifier) => new(Network.Value | identifier);

    /// <summary>Reads "fd12:3456:789a:1::/64"; the bits behind the prefix must be zero.</summary>
    public static bool TryParse([NotNullWhen(true)] string? text, out Ipv6Prefix prefix)
    {
        prefix = default;
        int slash = text?.IndexOf('/') ?? -1;
        if (slash < 0 || !Ipv6Address.TryParse(text![..slash], out Ipv6Address network)
            || !int.TryParse(text.AsSpan(slash + 1), NumberStyles.None, CultureInfo.InvariantCulture, out int length) || length > 128)
            return false;
        prefix = new Ipv6Prefix(network, length);
        return prefix.Network == network;
    }

    /// <exception cref="FormatException">Not a prefix with the other bits zero.</exception>
    public static Ipv6Prefix Parse(string text) =>
        TryParse(text, out Ipv6Prefix prefix) ? prefix : throw new FormatException($"'{text}' is not an IPv6 prefix such as fd12:3456:789a:1::/64");

    public override string ToString() => $"{Network}/{Length}";

    private static UInt128 MaskOf(int length) => length == 0 ? 0 : UInt128.MaxValue << (128 - length);
}
