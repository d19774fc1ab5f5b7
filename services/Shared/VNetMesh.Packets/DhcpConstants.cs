namespace VNetMesh.Packets;

/// <summary>DHCPv4 options that VNetMesh reads or writes (RFC 2132 and those named).</summary>
public static class Dhcpv4Option
{
    public const byte Pad = 0;
    public const byte SubnetMask = 1;
    public const byte Router = 3;
    public const byte DomainNameServer = 6;
    public const byte HostName = 12;
    public const byte DomainName = 15;
    public const byte InterfaceMtu = 26;
    public const byte BroadcastAddress = 28;
    public const byte RequestedAddress = 50;
    public const byte LeaseTime = 51;
    public const byte Overload = 52;
    public const byte MessageType = 53;
    public const byte ServerIdentifier = 54;
    public const byte ParameterRequestList = 55;
    public const byte Message = 56;
    public const byte MaxMessageSize = 57;
    public const byte RenewalTime = 58;
    public const byte RebindingTime = 59;
    public const byte ClientIdentifier = 61;

    /// <summary>RFC 3046.</summary>
    public const byte RelayAgentInformation = 82;

    /// <summary>RFC 3442.</summary>
    public const byte ClasslessStaticRoute = 121;
    public const byte End = 255;
}

/// <summary>Values of option 53 (RFC 2132, 9.6).</summary>
public enum Dhcpv4MessageType : byte
{
    Discover = 1,
    Offer = 2,
    Request = 3,
    Decline = 4,
    Ack = 5,
    Nak = 6,
    Release = 7,
    Inform = 8,
}

/// <summary>Ports, sizes and marks of DHCPv4 messages.</summary>
public static class Dhcpv4
{
    public const ushort ServerPort = 67;
    public const ushort ClientPort = 68;

    /// <summary>Octets before the options, magic cookie included.</summary>
    public const int HeaderLength = 240;

    /// <summary>The size of a BOOTP message (RFC 951, 3); some clients drop what is shorter.</summary>
    public const int MinMessageLength = 300;

    /// <summary>What every client must take (RFC 2131, 2: options of 312 octets), as an IP packet.</summary>
    public const int MinPacketLength = 576;

    public const uint MagicCookie = 0x6382_5363;
    public const byte BootRequest = 1;
    public const byte BootReply = 2;
    public const byte HardwareEthernet = 1;

    /// <summary>The broadcast bit of the flags (RFC 2131, figure 2).</summary>
    public const ushort FlagBroadcast = 0x8000;
}
