using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace VNetMesh.Packets;

/// <summary>An IPv4 address, held as a number in host order: 192.0.2.1 is 0xC0000201.</summary>
public readonly record struct Ipv4Address(uint Value) : IComparable<Ipv4Address>
{
    /// <summary>Octets of an address.</summary>
    public const int Length = 4;

    public static readonly Ipv4Address Any;
    public static readonly Ipv4Address Broadcast = new(0xFFFF_FFFF);

    /// <summary>127.0.0.0/8 (RFC 1122, 3.2.1.3).</summary>
    public bool IsLoopback => Value >> 24 == 127;

    /// <summary>224.0.0.0/4 (RFC 5771).</summary>
    public bool IsMulticast => Value >> 28 == 0xE;

    public bool IsBroadcast => Value == 0xFFFF_FFFF;

    public bool IsAny => Value == 0;

    /// <summary>169.254.0.0/16 (RFC 3927).</summary>
    public bool IsLinkLocal => Value >> 16 == 0xA9FE;

    /// <summary>0.0.0.0/8 and 240.0.0.0/4 (RFC 1122, RFC 1112): never the source or destination of unicast.</summary>
    public bool IsReserved => Value >> 24 == 0 || Value >> 28 == 0xF;

    public static Ipv4Address Read(ReadOnlySpan<byte> octets) => new(BinaryPrimitives.ReadUInt32BigEndian(octets));

    public void Write(Span<byte> octets) => BinaryPrimitives.WriteUInt32BigEndian(octets, Value);

    public Ipv4Address Add(int offset) => new(unchecked(Value + (uint)offset));

    /// <summary>Reads dotted decimal with exactly four parts and no leading zeros.</summary>
    public static bool TryParse(ReadOnlySpan<char> text, out Ipv4Address address)
    {
        address = default;
        uint value = 0;
        int parts = 0;
        foreach (Range range in text.Split('.'))
        {
            ReadOnlySpan<char> part = text[range];
            if (++parts > 4 || part.Length is 0 or > 3 || (part.Length > 1 && part[0] == '0')
                || !byte.TryParse(part, NumberStyles.None, CultureInfo.InvariantCulture, out byte octet))
                return false;
            value = (value << 8) | octet;
        }
        address = new Ipv4Address(value);
        return parts == 4;
    }

    public static bool TryParse([NotNullWhen(true)] string? text, out Ipv4Address address) => TryParse(text.AsSpan(), out address);

    /// <exception cref="FormatException">Not an IPv4 address.</exception>
    public static Ipv4Address Parse(string text) =>
        TryParse(text, out Ipv4Address address) ? address : throw new FormatException($"'{text}' is not an IPv4 address such as 192.0.2.1");

    public static Ipv4Address From(IPAddress address)
    {
        if (address.AddressFamily != AddressFamily.InterNetwork)
            throw new ArgumentException("not an IPv4 address", nameof(address));
        Span<byte> octets = stackalloc byte[4];
        address.TryWriteBytes(octets, out _);
        return Read(octets);
    }

    public IPAddress ToIPAddress()
    {
        Span<byte> octets = stackalloc byte[4];
        Write(octets);
        return new IPAddress(octets);
    }

    public override string ToString() => string.Create(CultureInfo.InvariantCulture,
        $"{Value >> 24}.{(Value >> 16) & 0xFF}.{(Value >> 8) & 0xFF}.{Value & 0xFF}");

    public int CompareTo(Ipv4Address other) => Value.CompareTo(other.Value);

    public static bool operator <(Ipv4Address left, Ipv4Address right) => left.Value < right.Value;
    public static bool operator >(Ipv4Address left, Ipv4Address right) => left.Value > right.Value;
    public static bool operator <=(Ipv4Address left, Ipv4Address right) => left.Value <= right.Value;
    public static bool operator >=(Ipv4Address left, Ipv4Address right) => left.Value >= right.Value;
}

/// <summary>An IPv4 prefix: network address (host bits zero) and prefix length, 0 to 32.</summary>
public readonly record struct Ipv4Subnet
{
    public Ipv4Subnet(Ipv4Address network, int prefixLength)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(prefixLength);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(prefixLength, 32);
        PrefixLength = prefixLength;
        Network = new Ipv4Address(network.Value & MaskOf(prefixLength));
    }

    public Ipv4Address Network { get; }

    public int PrefixLength { get; }

    public Ipv4Address Mask => new(MaskOf(PrefixLength));

    /// <summary>The directed broadcast address: all host bits one.</summary>
    public Ipv4Address Broadcast => new(Network.Value | ~MaskOf(PrefixLength));

    /// <summary>Addresses in the prefix, network and broadcast included.</summary>
    public long Size => 1L << (32 - PrefixLength);

    public bool Contains(Ipv4Address address) => (address.Value & MaskOf(PrefixLength)) == Network.Value;

    /// <summary>Inside, and neither the network's nor the broadcast address.</summary>
    public bool ContainsHost(Ipv4Address address) => Contains(address) && address != Network && address != Broadcast;

    public bool Overlaps(Ipv4Subnet other) => Contains(other.Network) || other.Contains(Network);

    /// <summary>Reads "192.0.2.0/24"; host bits must be zero.</summary>
    public static bool TryParse([NotNullWhen(true)] string? text, out Ipv4Subnet subnet)
    {
        subnet = default;
        int slash = text?.IndexOf('/') ?? -1;
        if (slash < 0 || !Ipv4Address.TryParse(text.AsSpan(0, slash), out Ipv4Address network)
            || !int.TryParse(text.AsSpan(slash + 1), NumberStyles.None, CultureInfo.InvariantCulture, out int length) || length > 32)
            return false;
        subnet = new Ipv4Subnet(network, length);
        return subnet.Network == network;
    }

    /// <exception cref="FormatException">Not a prefix with host bits zero.</exception>
    public static Ipv4Subnet Parse(string text) =>
        TryParse(text, out Ipv4Subnet subnet) ? subnet : throw new FormatException($"'{text}' is not an IPv4 subnet such as 192.0.2.0/24");

    public override string ToString() => $"{Network}/{PrefixLength}";

    private static uint MaskOf(int length) => length == 0 ? 0 : uint.MaxValue << (32 - length);
}
