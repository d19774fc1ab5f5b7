using System.Net;
using System.Net.Sockets;

namespace VNetMesh.Nat.Tests.Support;

/// <summary>A UDP socket on loopback, with a time limit.</summary>
internal sealed class UdpPeer : IDisposable
{
    private readonly Socket _socket = new(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp) { ReceiveTimeout = 3000 };

    public UdpPeer() => _socket.Bind(new IPEndPoint(IPAddress.Loopback, 0));

    public ushort Port => (ushort)((IPEndPoint)_socket.LocalEndPoint!).Port;

    public (byte[] Data, int FromPort) Receive()
    {
        byte[] room = new byte[65536];
        EndPoint from = new IPEndPoint(IPAddress.Any, 0);
        int length = _socket.ReceiveFrom(room, ref from);
        return (room[..length], ((IPEndPoint)from).Port);
    }

    public bool HasNothing(int milliseconds = 150) => !_socket.Poll(milliseconds * 1000, SelectMode.SelectRead);

    public void Send(ReadOnlySpan<byte> data, int port) => _socket.SendTo(data, new IPEndPoint(IPAddress.Loopback, port));

    public void Dispose() => _socket.Dispose();
}
