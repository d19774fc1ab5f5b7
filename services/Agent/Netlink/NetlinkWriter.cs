using System.Runtime.InteropServices;
using System.Text;
using VNetMesh.Native;

namespace VNetMesh.Agent.Netlink;

/// <summary>
/// Builds one rtnetlink request: header, family structure, attributes (RFC 3549, section 2.2). Numbers are in the
/// machine's own order, addresses as on the wire.
/// </summary>
public sealed class NetlinkWriter
{
    private byte[] _buffer = new byte[256];
    private int _length = LinuxNetlink.NLMSG_HDRLEN;

    /// <param name="type">RTM_….</param>
    /// <param name="flags">NLM_F_… beside NLM_F_REQUEST.</param>
    /// <param name="header">The family's fixed structure.</param>
    public NetlinkWriter(ushort type, ushort flags, ReadOnlySpan<byte> header)
    {
        MemoryMarshal.Write(_buffer.AsSpan(4), type);
        MemoryMarshal.Write(_buffer.AsSpan(6), (ushort)(flags | LinuxNetlink.NLM_F_REQUEST));
        Append(header);
    }

    public NetlinkWriter Attribute(ushort type, ReadOnlySpan<byte> value)
    {
        Span<byte> header = stackalloc byte[LinuxNetlink.NLA_HDRLEN];
        MemoryMarshal.Write(header, (ushort)(LinuxNetlink.NLA_HDRLEN + value.Length));
        MemoryMarshal.Write(header[2..], type);
        Append(header);
        Append(value);
        return this;
    }

    public NetlinkWriter Attribute(ushort type, uint value)
    {
        Span<byte> octets = stackalloc byte[4];
        MemoryMarshal.Write(octets, value);
        return Attribute(type, octets);
    }

    /// <summary>A text with the closing zero that the kernel's NLA_NUL_STRING wants.</summary>
    public NetlinkWriter Attribute(ushort type, string value) => Attribute(type, Encoding.UTF8.GetBytes(value + "\0"));

    /// <summary>An IPv4 address, in network order.</summary>
    public NetlinkWriter Attribute(ushort type, Packets.Ipv4Address address)
    {
        Span<byte> octets = stackalloc byte[Packets.Ipv4Address.Length];
        address.Write(octets);
        return Attribute(type, octets);
    }

    /// <summary>An IPv6 address, in network order.</summary>
    public NetlinkWriter Attribute(ushort type, Packets.Ipv6Address address)
    {
        Span<byte> octets = stackalloc byte[Packets.Ipv6Address.Length];
        address.Write(octets);
        return Attribute(type, octets);
    }

    /// <summary>The whole message, valid until this object is used again.</summary>
    public ReadOnlySpan<byte> Finish(uint sequence)
    {
        MemoryMarshal.Write(_buffer, (uint)_length);
        MemoryMarshal.Write(_buffer.AsSpan(8), sequence);
        return _buffer.AsSpan(0, _length);
    }

    /// <summary>struct ifinfomsg.</summary>
    public static byte[] Link(int index, uint flags = 0, uint change = 0)
    {
        var header = new byte[LinuxRtnetlink.IfInfoLength];
        MemoryMarshal.Write(header.AsSpan(4), index);
        MemoryMarshal.Write(header.AsSpan(8), flags);
        MemoryMarshal.Write(header.AsSpan(12), change);
        return header;
    }

    /// <summary>struct ifaddrmsg.</summary>
    public static byte[] Address(int index, byte prefixLength)
    {
        var header = new byte[LinuxRtnetlink.IfAddrLength];
        header[0] = SysSocket.AF_INET;
        header[1] = prefixLength;
        MemoryMarshal.Write(header.AsSpan(4), index);
        return header;
    }

    /// <summary>struct ifaddrmsg of an IPv6 address.</summary>
    public static byte[] Ipv6Address(int index, byte prefixLength, byte flags = 0)
    {
        byte[] header = Address(index, prefixLength);
        header[0] = SysSocket.AF_INET6;
        header[2] = flags;
        return header;
    }

    /// <summary>struct rtmsg, for a dump of all IPv4 routes.</summary>
    public static byte[] Route()
    {
        var header = new byte[LinuxRtnetlink.RtMsgLength];
        header[0] = SysSocket.AF_INET;
        return header;
    }

    private void Append(ReadOnlySpan<byte> bytes)
    {
        int padded = LinuxNetlink.Align(bytes.Length);
        if (_length + padded > _buffer.Length)
            Array.Resize(ref _buffer, Math.Max(_buffer.Length * 2, _length + padded));
        bytes.CopyTo(_buffer.AsSpan(_length));
        _length += padded;
    }
}
