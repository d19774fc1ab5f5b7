using System.Buffers.Binary;

namespace VNetMesh.Packets;

/// <summary>What stands in the fixed part of a DHCPv4 message; sname, file and siaddr are left empty.</summary>
public readonly record struct Dhcpv4Header
{
    /// <summary>1: from a client; 2: from a server.</summary>
    public byte Operation { get; init; }
    public uint TransactionId { get; init; }
    public ushort Seconds { get; init; }
    public ushort Flags { get; init; }
    public Ipv4Address ClientAddress { get; init; }
    public Ipv4Address YourAddress { get; init; }
    public Ipv4Address RelayAddress { get; init; }
    public MacAddress HardwareAddress { get; init; }
}

/// <summary>
/// Writes a DHCPv4 message into a buffer. Options that do not fit behind the header go to file and sname (option 52), and a
/// value of more than 255 octets is cut in pieces (RFC 3396). Nothing is allocated.
/// </summary>
public ref struct Dhcpv4Writer
{
    /// <summary>Kept free behind the options: option 52 and the end.</summary>
    private const int TailLength = 4;

    private readonly Span<byte> _message;
    private int _options;
    private int _file;
    private int _serverName;

    /// <param name="message">The largest message that may be sent: 244 octets at least.</param>
    public Dhcpv4Writer(Span<byte> message, in Dhcpv4Header header)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(message.Length, Dhcpv4.HeaderLength + TailLength);
        _message = message;
        message.Clear();
        message[0] = header.Operation;
        message[1] = Dhcpv4.HardwareEthernet;
        message[2] = MacAddress.Length;
        BinaryPrimitives.WriteUInt32BigEndian(message[Dhcpv4View.TransactionOffset..], header.TransactionId);
        BinaryPrimitives.WriteUInt16BigEndian(message[Dhcpv4View.SecondsOffset..], header.Seconds);
        BinaryPrimitives.WriteUInt16BigEndian(message[Dhcpv4View.FlagsOffset..], header.Flags);
        header.ClientAddress.Write(message[Dhcpv4View.ClientAddressOffset..]);
        header.YourAddress.Write(message[Dhcpv4View.YourAddressOffset..]);
        header.RelayAddress.Write(message[Dhcpv4View.RelayAddressOffset..]);
        header.HardwareAddress.Write(message[Dhcpv4View.HardwareAddressOffset..]);
        BinaryPrimitives.WriteUInt32BigEndian(message[Dhcpv4View.CookieOffset..], Dhcpv4.MagicCookie);
    }

    /// <summary>Adds an option. False when there is no room for the whole of it; then nothing was added.</summary>
    public bool TryAdd(byte code, scoped ReadOnlySpan<byte> value)
    {
        int pieces = Math.Max(1, (value.Length + 254) / 255);
        int length = value.Length + (pieces * 2);
        Span<byte> options = _message[Dhcpv4.HeaderLength..^TailLength];
        if (TryPut(options, ref _options, code, value, length))
            return true;
        // One octet of either field is for its end.
        return TryPut(_message.Slice(Dhcpv4View.FileOffset, Dhcpv4View.FileLength - 1), ref _file, code, value, length)
            || TryPut(_message.Slice(Dhcpv4View.ServerNameOffset, Dhcpv4View.ServerNameLength - 1), ref _serverName, code, value, length);
    }

    public bool TryAdd(byte code, byte value) => TryAdd(code, [value]);

    public bool TryAdd(byte code, ushort value)
    {
        Span<byte> octets = stackalloc byte[2];
        BinaryPrimitives.WriteUInt16BigEndian(octets, value);
        return TryAdd(code, octets);
    }

    public bool TryAdd(byte code, uint value)
    {
        Span<byte> octets = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(octets, value);
        return TryAdd(code, octets);
    }

    public bool TryAdd(byte code, Ipv4Address value) => TryAdd(code, value.Value);

    /// <summary>Ends the options.</summary>
    /// <returns>Octets of the message: 300 at least, where the buffer has them.</returns>
    public int Finish()
    {
        int end = Dhcpv4.HeaderLength + _options;
        int overload = (_file > 0 ? Dhcpv4View.OverloadFile : 0) | (_serverName > 0 ? Dhcpv4View.OverloadServerName : 0);
        if (overload != 0)
        {
            _message[end++] = Dhcpv4Option.Overload;
            _message[end++] = 1;
            _message[end++] = (byte)overload;
        }
        if (_file > 0)
            _message[Dhcpv4View.FileOffset + _file] = Dhcpv4Option.End;
        if (_serverName > 0)
            _message[Dhcpv4View.ServerNameOffset + _serverName] = Dhcpv4Option.End;
        _message[end++] = Dhcpv4Option.End;
        return Math.Max(end, Math.Min(Dhcpv4.MinMessageLength, _message.Length));
    }

    private static bool TryPut(Span<byte> field, ref int used, byte code, scoped ReadOnlySpan<byte> value, int length)
    {
        if (field.Length - used < length)
            return false;
        do
        {
            ReadOnlySpan<byte> piece = value[..Math.Min(value.Length, 255)];
            field[used++] = code;
            field[used++] = (byte)piece.Length;
            piece.CopyTo(field[used..]);
            used += piece.Length;
            value = value[piece.Length..];
        }
        while (!value.IsEmpty);
        return true;
    }
}
