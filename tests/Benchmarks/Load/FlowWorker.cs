using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace VNetMesh.Benchmarks.Load;

/// <summary>Opens many connections and keeps them, or takes them and keeps them. Runs as a process of its own inside a namespace, until its end.</summary>
internal static class FlowWorker
{
    private const int AtOnce = 64;

    /// <summary>Takes connections for ever.</summary>
    public static async Task<int> AcceptAsync(int port)
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Any, port));
        listener.Listen(4096);
        Console.WriteLine("ready");
        var kept = new List<Socket>();
        while (true)
            kept.Add(await listener.AcceptAsync());
    }

    /// <summary>Opens the connections, sends one octet on each, prints "ready", and stays.</summary>
    public static async Task<int> OpenAsync(IPEndPoint server, int count)
    {
        var kept = new Socket[count];
        await Parallel.ForEachAsync(Enumerable.Range(0, count), new ParallelOptions { MaxDegreeOfParallelism = AtOnce }, async (index, cancellation) =>
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
            limit.CancelAfter(TimeSpan.FromSeconds(20));
            await socket.ConnectAsync(server, limit.Token);
            await socket.SendAsync(new byte[1], limit.Token);
            kept[index] = socket;
        });
        Console.WriteLine("ready with " + kept.Length.ToString(CultureInfo.InvariantCulture));
        await Task.Delay(Timeout.InfiniteTimeSpan);
        return 0;
    }
}
