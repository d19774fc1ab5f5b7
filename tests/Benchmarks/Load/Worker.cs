using System.Globalization;
using System.Net;
using VNetMesh.Benchmarks.Running;

namespace VNetMesh.Benchmarks.Load;

/// <summary>This program again, as a part of a measurement inside a namespace.</summary>
internal static class Worker
{
    /// <summary>The first argument that makes this program a worker.</summary>
    public const string Verb = "worker";

    /// <summary>The command that runs a worker.</summary>
    public static string[] Command(params IReadOnlyList<string> arguments) => [Environment.ProcessPath!, Verb, .. arguments];

    public static async Task<int> MainAsync(string[] arguments)
    {
        int Number(int at) => int.Parse(arguments[at], CultureInfo.InvariantCulture);
        try
        {
            return arguments[0] switch
            {
                "udp-count" => UdpWorker.Count(Number(1), Number(2)),
                "udp-call" => UdpWorker.Call(IPEndPoint.Parse(arguments[1]), Number(2)),
                "udp-send" => UdpWorker.Send(IPEndPoint.Parse(arguments[1]), Number(2), Number(3)),
                "udp-answer" => UdpWorker.Answer(IPEndPoint.Parse(arguments[1]), Number(2), Number(3)),
                "accept" => await FlowWorker.AcceptAsync(Number(1)),
                "swallow" => await SwallowWorker.RunAsync(Number(1)),
                "open" => await FlowWorker.OpenAsync(IPEndPoint.Parse(arguments[1]), Number(2)),
                _ => throw new BenchmarkException("no worker " + arguments[0]),
            };
        }
        catch (Exception exception) when (exception is System.Net.Sockets.SocketException or OperationCanceledException)
        {
            await Console.Error.WriteLineAsync($"{arguments[0]}: {exception.Message}");
            return 1;
        }
    }
}
