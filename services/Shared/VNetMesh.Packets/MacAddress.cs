using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;

namespace VNetMesh.Packets;

/// <summary>An IEEE 802 MAC address (EUI-48), held in the low 48 bits of a number, first octet highest.</summary>
public readonly record struct MacAddress(ulong Value) : IComparable<MacAddress>
{
    /// <summary>Octets of an address.</summary>
    public const int Length = 6;

    public static readonly MacAddress Broadcast = new(0xFFFF_FFFF_FFFF);

    /// <summary>The group bit (IEEE 802-2014, 8.2.2): multicast, or broadcast.</summary>
    public bool IsMulticast => (Value & 0x0100_0000_0000) != 0;

    public bool IsBroadcast => Value == 0xFFFF_FFFF_FFFF;

    /// <summary>The U/L bit: assigned by software rather than by a maker.</summary>
    public bool IsLocallyAdministered => (Value & 0x0200_0000_0000) != 0;

    public bool IsZero => Value == 0;

    /// <summary>Reads the first six octets; the caller has checked that they are there.</summary>
    public static MacAddress Read(ReadOnlySpan<byte> octets) =>
        new(((ulong)BinaryPrimitives.ReadUInt16BigEndian(octets) << 32) | BinaryPrimitives.ReadUInt32BigEndian(octets[2..]));

    public void Write(Span<byte> octets)
    {
        BinaryPrimitives.WriteUInt16BigEndian(octets, (ushort)(Value >> 32));
        BinaryPrimitives.WriteUInt32BigEndian(octets[2..], (uint)Value);
    }

    /// <summary>Reads "02:00:5e:10:00:01" or "02-00-5e-10-00-01", in either case.</summary>
    public static bool TryParse([NotNullWhen(true)] string? text, out MacAddress address)
    {
        address = default;
        if (text is null || text.Length != 17)
            return false;
        ulong value = 0;
        for (int i = 0; i < 6; i++)
        {
            if (i < 5 && text[(i * 3) + 2] is not (':' or '-'))
                return false;
            if (!char.IsAsciiHexDigit(text[i * 3]) || !char.IsAsciiHexDigit(text[(i * 3) + 1]))
                return false;
            value = (value << 8) | byte.Parse(text.AsSpan(i * 3, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture);
        }
        address = new MacAddress(value);
        return true;
    }

    /// <exception cref="FormatException">Not a MAC address.</exception>
    public static MacAddress Parse(string text) =>
        TryParse(text, out MacAddress address) ? address : throw new FormatException($"'{text}' is not a MAC address such as 02:00:5e:10:00:01");

    public override string ToString() => string.Create(17, Value, static (text, value) =>
    {
        for (int i = 0; i < 6; i++)
        {
            int octet = (int)(value >> (40 - (i * 8))) & 0xFF;
            text[i * 3] = "0123456789abcdef"[octet >> 4];
            text[(i * 3) + 1] = "0123456789abcdef"[octet & 15];
            if (i < 5)
                text[(i * 3) + 2] = ':';
        }
    });

    public int CompareTo(MacAddress other) => Value.CompareTo(other.Value);

    public static bool operator <(MacAddress left, MacAddress right) => left.Value < right.Value;
    public static bool operator >(MacAddress left, MacAddress right) => left.Value > right.Value;
    public static bool operator <=(MacAddress left, MacAddress right) => left.Value <= right.Value;
    public static bool operator >=(MacAddress left, MacAddress right) => left.Value >= right.Value;
}
