using System.Globalization;
using System.Net;

namespace VNetMesh.Benchmarks.Load;

/// <summary>An HTTP server on the loopback that says 200 to whatever is posted, and forgets it. Runs as a process of its own inside a namespace, until its end.</summary>
internal static class SwallowWorker
{
    public static async Task<int> RunAsync(int port)
    {
        using var listener = new HttpListener();
        listener.Prefixes.Add($"http://127.0.0.1:{port.ToString(CultureInfo.InvariantCulture)}/");
        listener.Start();
        Console.WriteLine("ready");
        while (true)
        {
            HttpListenerContext context = await listener.GetContextAsync();
            _ = Task.Run(async () =>
            {
                await context.Request.InputStream.CopyToAsync(Stream.Null);
                context.Response.ContentType = "application/x-protobuf";
                context.Response.Close();
            });
        }
    }
}
