using System.Runtime.InteropServices;
using System.Text;
using VNetMesh.Native;

namespace VNetMesh.Agent.Netlink;

/// <summary>Walks the messages of one datagram. A length that does not fit ends the walk; nothing throws.</summary>
public ref struct NetlinkReader(ReadOnlySpan<byte> datagram)
{
    private ReadOnlySpan<byte> _rest = datagram;

    public bool TryNext(out NetlinkMessage message)
    {
        message = default;
        if (_rest.Length < LinuxNetlink.NLMSG_HDRLEN)
            return false;
        uint length = MemoryMarshal.Read<uint>(_rest);
        if (length < LinuxNetlink.NLMSG_HDRLEN || length > (uint)_rest.Length)
            return false;
        message = new NetlinkMessage(_rest[..(int)length]);
        _rest = _rest[Math.Min(LinuxNetlink.Align((int)length), _rest.Length)..];
        return true;
    }
}

/// <summary>One netlink message; made by <see cref="NetlinkReader"/>, which has checked its length.</summary>
public readonly ref struct NetlinkMessage(ReadOnlySpan<byte> bytes)
{
    private readonly ReadOnlySpan<byte> _bytes = bytes;

    public ushort Type => MemoryMarshal.Read<ushort>(_bytes[4..]);

    public ushort Flags => MemoryMarshal.Read<ushort>(_bytes[6..]);

    public uint Sequence => MemoryMarshal.Read<uint>(_bytes[8..]);

    public ReadOnlySpan<byte> Payload => _bytes[LinuxNetlink.NLMSG_HDRLEN..];

    /// <summary>The errno of an acknowledgement; 0 is success. False when this is none, or is cut short.</summary>
    public bool TryGetError(out int errno, out string text)
    {
        errno = 0;
        text = "";
        // An NLMSG_DONE bears an error as well, where a dump failed half-way.
        if (Type is not (LinuxNetlink.NLMSG_ERROR or LinuxNetlink.NLMSG_DONE) || Payload.Length < 4)
            return false;
        errno = -MemoryMarshal.Read<int>(Payload);
        if ((Flags & LinuxNetlink.NLM_F_ACK_TLVS) == 0 || Type != LinuxNetlink.NLMSG_ERROR || Payload.Length < 20)
            return true;
        // The request's header follows, and unless it is "capped" the whole request.
        uint request = (Flags & LinuxNetlink.NLM_F_CAPPED) != 0 ? LinuxNetlink.NLMSG_HDRLEN : MemoryMarshal.Read<uint>(Payload[4..]);
        if (request > (uint)(Payload.Length - 4))
            return true;
        int start = Math.Min(4 + LinuxNetlink.Align((int)request), Payload.Length);
        foreach (NetlinkAttribute attribute in new NetlinkAttributes(Payload[start..]))
        {
            if (attribute.Type == LinuxNetlink.NLMSGERR_ATTR_MSG)
                text = attribute.Text;
        }
        return true;
    }

    /// <summary>The attributes behind a fixed structure of that length; none where the message is shorter.</summary>
    public NetlinkAttributes Attributes(int headerLength)
    {
        int start = LinuxNetlink.Align(headerLength);
        return new NetlinkAttributes(Payload.Length >= start ? Payload[start..] : default);
    }
}

/// <summary>Attributes in the order in which they stand, as far as their lengths make sense.</summary>
public readonly ref struct NetlinkAttributes(ReadOnlySpan<byte> bytes)
{
    private readonly ReadOnlySpan<byte> _bytes = bytes;

    public Enumerator GetEnumerator() => new(_bytes);

    public ref struct Enumerator(ReadOnlySpan<byte> bytes)
    {
        private ReadOnlySpan<byte> _rest = bytes;

        public NetlinkAttribute Current { get; private set; }

        public bool MoveNext()
        {
            if (_rest.Length < LinuxNetlink.NLA_HDRLEN)
                return false;
            ushort length = MemoryMarshal.Read<ushort>(_rest);
            if (length < LinuxNetlink.NLA_HDRLEN || length > _rest.Length)
                return false;
            ushort type = (ushort)(MemoryMarshal.Read<ushort>(_rest[2..]) & LinuxNetlink.NLA_TYPE_MASK);
            Current = new NetlinkAttribute(type, _rest[LinuxNetlink.NLA_HDRLEN..length]);
            _rest = _rest[Math.Min(LinuxNetlink.Align(length), _rest.Length)..];
            return true;
        }
    }
}

public readonly ref struct NetlinkAttribute(ushort type, ReadOnlySpan<byte> value)
{
    public ushort Type { get; } = type;

    public ReadOnlySpan<byte> Value { get; } = value;

    public string Text => Encoding.UTF8.GetString(Value.IndexOf((byte)0) is >= 0 and var end ? Value[..end] : Value);

    public bool TryGetUInt32(out uint number) => MemoryMarshal.TryRead(Value, out number);

    public bool TryGetIpv4(out Packets.Ipv4Address address)
    {
        address = Value.Length == 4 ? Packets.Ipv4Address.Read(Value) : default;
        return Value.Length == 4;
    }
}
