using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;

namespace VNetMesh.Hosting;

/// <summary>
/// Metrics over TCP, for a Prometheus that cannot read Unix sockets: the agent, which has the host's network, answers
/// GET /metrics/{switch,dhcp,nat,agent} with what that service says on its own socket, and nothing else (docs/adr/0003). On
/// 127.0.0.1:9470 unless VNETMESH_METRICS_ADDR names another address, or "off".
/// </summary>
internal static class MetricsGateway
{
    public const string Variable = "VNETMESH_METRICS_ADDR";

    private static readonly IPEndPoint Usual = new(IPAddress.Loopback, 9470);
    private static readonly string[] Services = ["switch", "dhcp", "nat", "agent"];
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);

    /// <summary>
    /// Where to listen; null: nowhere. A usual address that another instance has, or that this namespace lacks, is done without;
    /// one that was asked for must be had.
    /// </summary>
    /// <exception cref="ArgumentException">The variable names no address.</exception>
    public static IPEndPoint? Address()
    {
        string? wanted = Environment.GetEnvironmentVariable(Variable);
        if (string.Equals(wanted, "off", StringComparison.OrdinalIgnoreCase))
            return null;
        if (string.IsNullOrEmpty(wanted))
            return IsFree(Usual) ? Usual : null;
        return IPEndPoint.TryParse(wanted, out IPEndPoint? address) && address.Port != 0 ? address
            : throw new ArgumentException($"{Variable}='{wanted}' is no ADDRESS:PORT such as 127.0.0.1:9470, nor 'off'");
    }

    /// <summary>By TCP there are metrics alone; the API is for those who own the sockets.</summary>
    public static void UseMetricsGateway(this WebApplication app, RuntimePaths paths) => app.Use(async (context, next) =>
    {
        if (context.Connection.LocalIpAddress is null)
        {
            await next(context);
            return;
        }
        string service = context.Request.Path.StartsWithSegments("/metrics", StringComparison.Ordinal, out PathString rest) ? rest.Value?.TrimStart('/') ?? "" : "";
        if (!HttpMethods.IsGet(context.Request.Method) || !Services.Contains(service))
        {
            context.Response.StatusCode = StatusCodes.Status404NotFound;
            await context.Response.WriteAsync($"there is only /metrics/{{{string.Join(',', Services)}}}\n", context.RequestAborted);
            return;
        }
        await PassOnAsync(context, paths.MetricsSocket(service));
    });

    private static async Task PassOnAsync(HttpContext context, string socket)
    {
        using var handler = new SocketsHttpHandler { ConnectCallback = (_, cancellation) => UnixConnection.OpenAsync(socket, cancellation) };
        using var client = new HttpClient(handler) { Timeout = Patience };
        try
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, "http://localhost/metrics");
            // The exporter answers in the format that was asked for.
            if (context.Request.Headers.Accept.ToString() is { Length: > 0 } accept)
                request.Headers.TryAddWithoutValidation("Accept", accept);
            using HttpResponseMessage response = await client.SendAsync(request, context.RequestAborted);
            context.Response.StatusCode = (int)response.StatusCode;
            context.Response.ContentType = response.Content.Headers.ContentType?.ToString();
            await response.Content.CopyToAsync(context.Response.Body, context.RequestAborted);
        }
        catch (Exception exception) when (exception is HttpRequestException or TaskCanceledException && !context.RequestAborted.IsCancellationRequested)
        {
            // So that the scrape fails, and "up" tells of it.
            context.Response.StatusCode = StatusCodes.Status503ServiceUnavailable;
            await context.Response.WriteAsync("the service does not answer\n");
        }
    }

    private static bool IsFree(IPEndPoint address)
    {
        using var probe = new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            probe.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.ReuseAddress, true);
            probe.Bind(address);
            probe.Listen();
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }
}
