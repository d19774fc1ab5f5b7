using System.Buffers.Binary;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Sockets;

/// <summary>An address and a port on the host's side, IPv4 or IPv6, with the sockaddr that the kernel wants.</summary>
public sealed class HostEndpoint
{
    private readonly Ipv4Address _ipv4;
    private IPAddress? _address;

    public HostEndpoint(IPAddress address, int port)
    {
        _address = address;
        Port = port;
        SocketAddress serialized = new IPEndPoint(address, port).Serialize();
        Raw = serialized.Buffer[..serialized.Size].ToArray();
    }

    public HostEndpoint(Ipv4Address address, int port)
    {
        _ipv4 = address;
        Port = port;
        byte[] raw = new byte[Unsafe.SizeOf<SysSocket.sockaddr_in>()];
        SysSocket.sockaddr_in value = Ipv4SocketAddress.Make(address, port);
        MemoryMarshal.Write(raw, in value);
        Raw = raw;
    }

    /// <summary>Made when it is first asked for: each connection has an endpoint, few are looked at.</summary>
    public IPAddress Address => _address ??= _ipv4.ToIPAddress();

    public int Port { get; }

    public int Family => _address is { AddressFamily: AddressFamily.InterNetworkV6 } ? SysSocket.AF_INET6 : SysSocket.AF_INET;

    /// <summary>struct sockaddr_in or sockaddr_in6.</summary>
    public ReadOnlyMemory<byte> Raw { get; }

    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{Address}:{Port}");
}

/// <summary>sockaddr_in and what it says.</summary>
internal static class Ipv4SocketAddress
{
    public static SysSocket.sockaddr_in Make(Ipv4Address address, int port) => new()
    {
        sin_family = SysSocket.AF_INET,
        sin_port = Network((ushort)port),
        sin_addr = BitConverter.IsLittleEndian ? BinaryPrimitives.ReverseEndianness(address.Value) : address.Value,
    };

    public static Ipv4Address AddressOf(in SysSocket.sockaddr_in address) =>
        new(BitConverter.IsLittleEndian ? BinaryPrimitives.ReverseEndianness(address.sin_addr) : address.sin_addr);

    public static ushort PortOf(in SysSocket.sockaddr_in address) => Network(address.sin_port);

    private static ushort Network(ushort value) => BitConverter.IsLittleEndian ? BinaryPrimitives.ReverseEndianness(value) : value;
}
