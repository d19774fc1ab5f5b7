using System.Buffers.Binary;

namespace VNetMesh.Packets;

/// <summary>
/// A DHCPv4 message (RFC 2131, figure 1), the payload of a UDP datagram.
/// <code>
///   0 op | 1 htype | 2 hlen | 3 hops
///   4 xid
///   8 secs          | 10 flags
///  12 ciaddr
///  16 yiaddr
///  20 siaddr
///  24 giaddr
///  28 chaddr (16)
///  44 sname (64)
/// 108 file (128)
/// 236 magic cookie
/// 240 options …
/// </code>
/// Options may go on in file and sname (option 52), and one that occurs more than once is one value in pieces (RFC 3396).
/// </summary>
public readonly ref struct Dhcpv4View
{
    internal const int TransactionOffset = 4;
    internal const int SecondsOffset = 8;
    internal const int FlagsOffset = 10;
    internal const int ClientAddressOffset = 12;
    internal const int YourAddressOffset = 16;
    internal const int ServerAddressOffset = 20;
    internal const int RelayAddressOffset = 24;
    internal const int HardwareAddressOffset = 28;
    internal const int ServerNameOffset = 44;
    internal const int ServerNameLength = 64;
    internal const int FileOffset = 108;
    internal const int FileLength = 128;
    internal const int CookieOffset = 236;
    internal const int MaxHardwareLength = 16;
    internal const byte OverloadFile = 1;
    internal const byte OverloadServerName = 2;

    private readonly ReadOnlySpan<byte> _message;
    private readonly byte _overload;

    private Dhcpv4View(ReadOnlySpan<byte> message, byte overload)
    {
        _message = message;
        _overload = overload;
    }

    public byte Operation => _message[0];
    public byte HardwareType => _message[1];
    public byte Hops => _message[3];
    public uint TransactionId => BinaryPrimitives.ReadUInt32BigEndian(_message[TransactionOffset..]);
    public ushort Seconds => BinaryPrimitives.ReadUInt16BigEndian(_message[SecondsOffset..]);
    public ushort Flags => BinaryPrimitives.ReadUInt16BigEndian(_message[FlagsOffset..]);
    public bool Broadcast => (Flags & Dhcpv4.FlagBroadcast) != 0;

    /// <summary>ciaddr.</summary>
    public Ipv4Address ClientAddress => Ipv4Address.Read(_message[ClientAddressOffset..]);

    /// <summary>yiaddr.</summary>
    public Ipv4Address YourAddress => Ipv4Address.Read(_message[YourAddressOffset..]);

    /// <summary>siaddr.</summary>
    public Ipv4Address ServerAddress => Ipv4Address.Read(_message[ServerAddressOffset..]);

    /// <summary>giaddr.</summary>
    public Ipv4Address RelayAddress => Ipv4Address.Read(_message[RelayAddressOffset..]);

    /// <summary>chaddr, as long as hlen says: 0 to 16 octets.</summary>
    public ReadOnlySpan<byte> HardwareAddress => _message.Slice(HardwareAddressOffset, _message[2]);

    /// <summary>
    /// False when the header or the cookie are not there, hlen is over 16, an option runs out of its field, or option 52 is
    /// not one of its three values. A field of options need not end in option 255.
    /// </summary>
    public static bool TryParse(ReadOnlySpan<byte> bytes, out Dhcpv4View view)
    {
        view = default;
        if (bytes.Length < Dhcpv4.HeaderLength || bytes[0] is not (Dhcpv4.BootRequest or Dhcpv4.BootReply) || bytes[2] > MaxHardwareLength
            || BinaryPrimitives.ReadUInt32BigEndian(bytes[CookieOffset..]) != Dhcpv4.MagicCookie)
            return false;
        byte overload = 0;
        var options = new Dhcpv4OptionEnumerator(bytes[Dhcpv4.HeaderLength..]);
        while (options.MoveNext())
        {
            if (options.Code != Dhcpv4Option.Overload)
                continue;
            if (options.Value.Length != 1 || options.Value[0] is 0 or > 3)
                return false;
            overload = options.Value[0];
        }
        if (options.IsTruncated
            || ((overload & OverloadFile) != 0 && !IsSound(bytes.Slice(FileOffset, FileLength)))
            || ((overload & OverloadServerName) != 0 && !IsSound(bytes.Slice(ServerNameOffset, ServerNameLength))))
            return false;
        view = new Dhcpv4View(bytes, overload);
        return true;
    }

    /// <summary>The value of an option; one in pieces is put together in a new array.</summary>
    public bool TryGetOption(byte code, out ReadOnlySpan<byte> value)
    {
        value = default;
        bool found = false;
        // RFC 3396, 5: options, then file, then sname.
        for (int field = 0; field < 3; field++)
        {
            Dhcpv4OptionEnumerator options = new(Field(field));
            while (options.MoveNext())
            {
                if (options.Code != code)
                    continue;
                value = found ? Join(value, options.Value) : options.Value;
                found = true;
            }
        }
        return found;
    }

    private ReadOnlySpan<byte> Field(int index) => index switch
    {
        0 => _message[Dhcpv4.HeaderLength..],
        1 when (_overload & OverloadFile) != 0 => _message.Slice(FileOffset, FileLength),
        2 when (_overload & OverloadServerName) != 0 => _message.Slice(ServerNameOffset, ServerNameLength),
        _ => default,
    };

    private static bool IsSound(ReadOnlySpan<byte> field)
    {
        var options = new Dhcpv4OptionEnumerator(field);
        while (options.MoveNext())
        {
        }
        return !options.IsTruncated;
    }

    private static ReadOnlySpan<byte> Join(ReadOnlySpan<byte> first, ReadOnlySpan<byte> second)
    {
        byte[] joined = new byte[first.Length + second.Length];
        first.CopyTo(joined);
        second.CopyTo(joined.AsSpan(first.Length));
        return joined;
    }
}

/// <summary>Goes through one field of options: code, length, value; code 0 is padding, code 255 the end.</summary>
public ref struct Dhcpv4OptionEnumerator(ReadOnlySpan<byte> field)
{
    private ReadOnlySpan<byte> _rest = field;

    public byte Code { get; private set; }

    public ReadOnlySpan<byte> Value { get; private set; }

    /// <summary>The field ended in the middle of an option.</summary>
    public bool IsTruncated { get; private set; }

    public bool MoveNext()
    {
        int padding = _rest.IndexOfAnyExcept(Dhcpv4Option.Pad);
        if (padding < 0 || _rest[padding] == Dhcpv4Option.End)
            return false;
        _rest = _rest[padding..];
        if (_rest.Length < 2 || _rest.Length < 2 + _rest[1])
        {
            IsTruncated = true;
            return false;
        }
        Code = _rest[0];
        Value = _rest.Slice(2, _rest[1]);
        _rest = _rest[(2 + Value.Length)..];
        return true;
    }
}
