using System.Net.Sockets;

namespace VNetMesh.Hosting;

/// <summary>HTTP over a Unix socket, whatever host its address names.</summary>
internal static class UnixConnection
{
    /// <exception cref="SocketException">Nobody listens there.</exception>
    public static async ValueTask<Stream> OpenAsync(string path, CancellationToken cancellation)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), cancellation).ConfigureAwait(false);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}
