using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Logging.Abstractions;
using VNetMesh.Agent.Observability;

namespace VNetMesh.Agent.Tests.Observability;

public sealed class OtlpRelayTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("relay").FullName;
    private readonly CancellationTokenSource _stop = new();
    private readonly OtlpRelay _relay = new(NullLogger<OtlpRelay>.Instance);

    private string SocketPath => Path.Combine(_directory, "otlp.sock");

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Octets_go_both_ways_until_one_side_ends()
    {
        using TcpListener target = Listen();
        Task running = Run(target);
        using Socket client = await ConnectAsync();
        using Socket remote = await target.AcceptSocketAsync(Cancellation);

        await client.SendAsync("question"u8.ToArray(), Cancellation);
        Assert.Equal("question"u8.ToArray(), await ReadAsync(remote, 8));
        await remote.SendAsync("answer"u8.ToArray(), Cancellation);
        Assert.Equal("answer"u8.ToArray(), await ReadAsync(client, 6));
        remote.Close();
        Assert.Empty(await ReadAsync(client, 1));
        await EndAsync(running);
    }

    [Fact]
    public async Task Without_an_endpoint_that_listens_the_connection_ends_and_the_next_is_tried()
    {
        using TcpListener target = Listen();
        target.Stop();
        Task running = Run(target);
        for (int i = 0; i < 20; i++)
        {
            using Socket client = await ConnectAsync();
            Assert.Empty(await ReadAsync(client, 1));
        }
        await EndAsync(running);
    }

    [Fact]
    public async Task No_more_than_sixteen_connections_at_once()
    {
        using TcpListener target = Listen();
        Task running = Run(target);
        var clients = new List<Socket>();
        for (int i = 0; i < 17; i++)
            clients.Add(await ConnectAsync());
        var passed = new List<Socket>();
        for (int i = 0; i < 16; i++)
            passed.Add(await target.AcceptSocketAsync(Cancellation));
        await Task.Delay(200, Cancellation);
        Assert.False(target.Pending());
        clients[0].Dispose();
        passed.Add(await target.AcceptSocketAsync(Cancellation).AsTask().WaitAsync(TimeSpan.FromSeconds(5), Cancellation));
        clients.ForEach(client => client.Dispose());
        passed.ForEach(socket => socket.Dispose());
        await EndAsync(running);
    }

    public void Dispose()
    {
        _stop.Dispose();
        _relay.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    private static TcpListener Listen()
    {
        var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return listener;
    }

    private Task Run(TcpListener target) => Task.Run(() => _relay.RunAsync(SocketPath, new Uri("http://" + target.LocalEndpoint), group: null, _stop.Token), Cancellation);

    private async Task EndAsync(Task running)
    {
        await _stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => running);
    }

    private async Task<Socket> ConnectAsync()
    {
        for (int i = 0; ; i++)
        {
            var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            try
            {
                await socket.ConnectAsync(new UnixDomainSocketEndPoint(SocketPath), Cancellation);
                return socket;
            }
            catch (SocketException) when (i < 100)
            {
                socket.Dispose();
                await Task.Delay(20, Cancellation);
            }
        }
    }

    /// <summary>As many octets as asked for, or what came before the end.</summary>
    private static async Task<byte[]> ReadAsync(Socket socket, int size)
    {
        byte[] buffer = new byte[size];
        await using var stream = new NetworkStream(socket);
        int read = await stream.ReadAtLeastAsync(buffer, size, throwOnEndOfStream: false, Cancellation);
        return buffer[..read];
    }
}
