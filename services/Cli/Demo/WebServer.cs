using System.Net;
using System.Net.Sockets;
using System.Text;

namespace VNetMesh.Cli.Demo;

/// <summary>
/// The demo's web server: answers every GET with who it saw, and logs it. /slow sends a line a second, so that
/// there is a connection to look at.
/// </summary>
internal static class WebServer
{
    private const int SlowSeconds = 30;

    public static async Task RunAsync(IPEndPoint address, TextWriter log, CancellationToken cancellation)
    {
        using var listener = new TcpListener(address);
        listener.Start();
        await log.WriteLineAsync($"listening on {address}");
        await log.FlushAsync(cancellation);
        while (true)
        {
            TcpClient client = await listener.AcceptTcpClientAsync(cancellation);
            _ = AnswerAsync(client, log, cancellation);
        }
    }

    private static async Task AnswerAsync(TcpClient client, TextWriter log, CancellationToken cancellation)
    {
        using (client)
        {
            try
            {
                NetworkStream stream = client.GetStream();
                using var reader = new StreamReader(stream, Encoding.ASCII, leaveOpen: true);
                string request = await reader.ReadLineAsync(cancellation) ?? "";
                while (await reader.ReadLineAsync(cancellation) is { Length: > 0 })
                {
                }
                lock (log)
                {
                    log.WriteLine($"{client.Client.RemoteEndPoint} {request}");
                    log.Flush();
                }
                await stream.WriteAsync(Encoding.ASCII.GetBytes("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"), cancellation);
                await stream.WriteAsync(Encoding.ASCII.GetBytes($"hello from the wan; I see you as {((IPEndPoint)client.Client.RemoteEndPoint!).Address}\n"), cancellation);
                for (int i = 0; i < SlowSeconds && request.StartsWith("GET /slow", StringComparison.Ordinal); i++)
                {
                    await stream.WriteAsync("tick\n"u8.ToArray(), cancellation);
                    await Task.Delay(1000, cancellation);
                }
            }
            catch (IOException)
            {
                // The client went away.
            }
        }
    }
}
