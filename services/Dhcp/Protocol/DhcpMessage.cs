using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Protocol;

/// <summary>A message from a client, accepted: every field is of a kind that the server can act on.</summary>
public sealed record DhcpMessage
{
    /// <summary>Longer client identifiers are refused: they would be kept for every lease.</summary>
    public const int MaxClientIdentifierLength = 255;

    public required Dhcpv4MessageType Type { get; init; }
    public required uint TransactionId { get; init; }
    public required MacAddress Mac { get; init; }
    public required ClientKey Client { get; init; }

    /// <summary>The flags as they came.</summary>
    public ushort Flags { get; init; }
    public ushort Seconds { get; init; }

    /// <summary>ciaddr: the address that the client says it has and answers to.</summary>
    public Ipv4Address ClientAddress { get; init; }

    /// <summary>giaddr: the relay that passed the message on.</summary>
    public Ipv4Address RelayAddress { get; init; }

    /// <summary>The Ethernet source of the frame: the client's, or its relay's.</summary>
    public MacAddress From { get; init; }

    /// <summary>When the frame was taken from the link, in microseconds of the loop's clock.</summary>
    public long Arrived { get; init; }

    /// <summary>Option 61; null when the client sent none.</summary>
    public byte[]? ClientIdentifier { get; init; }

    /// <summary>Option 50.</summary>
    public Ipv4Address? RequestedAddress { get; init; }

    /// <summary>Option 54.</summary>
    public Ipv4Address? ServerIdentifier { get; init; }

    /// <summary>Option 51, in seconds; 0xffffffff is for ever.</summary>
    public uint? LeaseSeconds { get; init; }

    /// <summary>Option 55; null when the client sent none.</summary>
    public byte[]? ParameterRequests { get; init; }

    /// <summary>Option 57: the largest IP packet that the client takes, 576 at least.</summary>
    public int MaxMessageSize { get; init; } = Dhcpv4.MinPacketLength;

    /// <summary>Option 12, with what is not fit to print taken out; may be empty.</summary>
    public string HostName { get; init; } = "";

    /// <summary>Option 82, to be given back as it came (RFC 3046, 2.2).</summary>
    public byte[]? RelayAgentInformation { get; init; }

    public bool Broadcast => (Flags & Dhcpv4.FlagBroadcast) != 0;

    /// <summary>Reads the payload of a UDP datagram to port 67.</summary>
    /// <param name="cause">Why not, when false.</param>
    public static bool TryRead(ReadOnlySpan<byte> payload, [NotNullWhen(true)] out DhcpMessage? message, out DropCause cause)
    {
        message = null;
        cause = DropCause.Malformed;
        if (!Dhcpv4View.TryParse(payload, out Dhcpv4View view))
            return false;
        if (view.Operation != Dhcpv4.BootRequest || !TryReadType(view, out Dhcpv4MessageType type))
        {
            cause = DropCause.NotARequest;
            return false;
        }
        if (view.HardwareType != Dhcpv4.HardwareEthernet || view.HardwareAddress.Length != MacAddress.Length)
        {
            cause = DropCause.UnsupportedHardware;
            return false;
        }
        MacAddress mac = MacAddress.Read(view.HardwareAddress);
        byte[]? identifier = view.TryGetOption(Dhcpv4Option.ClientIdentifier, out ReadOnlySpan<byte> octets) ? octets.ToArray() : null;
        // RFC 2132, 9.14: two octets at least.
        if (mac.IsZero || mac.IsMulticast || identifier is { Length: < 2 or > MaxClientIdentifierLength }
            || !TryReadAddress(view, Dhcpv4Option.RequestedAddress, out Ipv4Address? requested)
            || !TryReadAddress(view, Dhcpv4Option.ServerIdentifier, out Ipv4Address? server)
            || !TryReadNumber(view, Dhcpv4Option.LeaseTime, 4, out uint? lease)
            || !TryReadNumber(view, Dhcpv4Option.MaxMessageSize, 2, out uint? size))
            return false;
        message = new DhcpMessage
        {
            Type = type,
            TransactionId = view.TransactionId,
            Mac = mac,
            Client = identifier is null ? ClientKey.FromHardware(view.HardwareType, view.HardwareAddress) : ClientKey.FromIdentifier(identifier),
            Flags = view.Flags,
            Seconds = view.Seconds,
            ClientAddress = view.ClientAddress,
            RelayAddress = view.RelayAddress,
            ClientIdentifier = identifier,
            RequestedAddress = requested,
            ServerIdentifier = server,
            LeaseSeconds = lease,
            ParameterRequests = view.TryGetOption(Dhcpv4Option.ParameterRequestList, out octets) ? octets.ToArray() : null,
            MaxMessageSize = Math.Max((int)(size ?? 0), Dhcpv4.MinPacketLength),
            HostName = view.TryGetOption(Dhcpv4Option.HostName, out octets) ? MakePrintable(octets) : "",
            RelayAgentInformation = view.TryGetOption(Dhcpv4Option.RelayAgentInformation, out octets) ? octets.ToArray() : null,
        };
        return true;
    }

    /// <summary>Letters, digits, "-", "_" and "." of the first 63 octets; all else is left out.</summary>
    public static string MakePrintable(ReadOnlySpan<byte> name)
    {
        Span<char> text = stackalloc char[63];
        int length = 0;
        foreach (byte octet in name[..Math.Min(name.Length, text.Length)])
        {
            if (char.IsAsciiLetterOrDigit((char)octet) || octet is (byte)'-' or (byte)'_' or (byte)'.')
                text[length++] = (char)octet;
        }
        return new string(text[..length]);
    }

    /// <summary>True for what clients send; false also for a BOOTP message, which has no option 53.</summary>
    private static bool TryReadType(in Dhcpv4View view, out Dhcpv4MessageType type)
    {
        type = view.TryGetOption(Dhcpv4Option.MessageType, out ReadOnlySpan<byte> value) && value.Length == 1 ? (Dhcpv4MessageType)value[0] : default;
        return type is Dhcpv4MessageType.Discover or Dhcpv4MessageType.Request or Dhcpv4MessageType.Decline or Dhcpv4MessageType.Release or Dhcpv4MessageType.Inform;
    }

    private static bool TryReadAddress(in Dhcpv4View view, byte code, out Ipv4Address? address)
    {
        bool sound = TryReadNumber(view, code, 4, out uint? value);
        address = value is { } number ? new Ipv4Address(number) : null;
        return sound;
    }

    /// <summary>False when the option is there and has another length.</summary>
    private static bool TryReadNumber(in Dhcpv4View view, byte code, int length, out uint? value)
    {
        value = null;
        if (!view.TryGetOption(code, out ReadOnlySpan<byte> octets))
            return true;
        if (octets.Length != length)
            return false;
        value = length == 4 ? BinaryPrimitives.ReadUInt32BigEndian(octets) : BinaryPrimitives.ReadUInt16BigEndian(octets);
        return true;
    }
}
