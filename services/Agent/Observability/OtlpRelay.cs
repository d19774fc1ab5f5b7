using System.Buffers.Binary;
using System.Globalization;
using System.Net.Sockets;
using VNetMesh.Hosting;
using VNetMesh.Native;

namespace VNetMesh.Agent.Observability;

/// <summary>
/// The other end of <see cref="OtlpSocket"/>: what services without a network export is passed on, octet by octet and unread, to the
/// endpoint that OTEL_EXPORTER_OTLP_ENDPOINT names, and to no other. For root and the services' group alone, and at most 16 connections.
/// </summary>
public sealed partial class OtlpRelay(ILogger<OtlpRelay> logger) : BackgroundService
{
    private const int MaxConnections = 16;
    private const UnixFileMode Everybody = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.GroupWrite | UnixFileMode.OtherRead | UnixFileMode.OtherWrite;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);
    private readonly SemaphoreSlim _free = new(MaxConnections);

    public override void Dispose()
    {
        _free.Dispose();
        base.Dispose();
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        string? path = OtlpSocket.Path, endpoint = Environment.GetEnvironmentVariable("OTEL_EXPORTER_OTLP_ENDPOINT");
        if (path is null || string.IsNullOrEmpty(endpoint))
            return;
        if (!Uri.TryCreate(endpoint, UriKind.Absolute, out Uri? target) || target.Host.Length == 0)
        {
            LogNoEndpoint(endpoint);
            return;
        }
        try
        {
            await RunAsync(path, target, Group(), stoppingToken);
        }
        catch (Exception exception) when (exception is SocketException or IOException)
        {
            // Telemetry is not worth an agent.
            LogFailed(path, exception.Message);
        }
        catch (OperationCanceledException)
        {
            // Stopping.
        }
        finally
        {
            File.Delete(path);
        }
    }

    /// <param name="group">Whose processes may connect, beside root's; null: no other's.</param>
    internal async Task RunAsync(string path, Uri target, uint? group, CancellationToken cancellation)
    {
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        File.Delete(path);
        listener.Bind(new UnixDomainSocketEndPoint(path));
        // Whoever connects is asked who it is: without CAP_CHOWN the file cannot be given to the services' user.
        File.SetUnixFileMode(path, Everybody);
        listener.Listen(MaxConnections);
        LogListening(path, target);
        while (true)
        {
            await _free.WaitAsync(cancellation);
            Socket client;
            try
            {
                client = await listener.AcceptAsync(cancellation);
            }
            catch
            {
                _free.Release();
                throw;
            }
            _ = ServeAsync(client, target, group, cancellation);
        }
    }

    private async Task ServeAsync(Socket client, Uri target, uint? group, CancellationToken cancellation)
    {
        try
        {
            using (client)
            using (var remote = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true })
            {
                if (!IsAllowed(client, group))
                    return;
                using (var patience = CancellationTokenSource.CreateLinkedTokenSource(cancellation))
                {
                    patience.CancelAfter(Patience);
                    await remote.ConnectAsync(target.IdnHost, target.Port, patience.Token);
                }
                await PassOnAsync(client, remote, cancellation);
            }
        }
        catch (Exception exception) when (exception is SocketException or IOException or OperationCanceledException)
        {
            // The exporter sees its connection end, and tries again in its own time.
            LogEnded(target, exception.Message);
        }
        finally
        {
            _free.Release();
        }
    }

    /// <summary>Until either side ends: an exporter that has closed waits for no answer.</summary>
    private static async Task PassOnAsync(Socket client, Socket remote, CancellationToken cancellation)
    {
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        await using NetworkStream inner = new(client), outer = new(remote);
        Task[] ways = [inner.CopyToAsync(outer, either.Token), outer.CopyToAsync(inner, either.Token)];
        await Task.WhenAny(ways);
        await either.CancelAsync();
        await Task.WhenAll(ways);
    }

    /// <summary>struct ucred of unix(7): pid, uid, gid.</summary>
    private static bool IsAllowed(Socket client, uint? group)
    {
        Span<byte> credentials = stackalloc byte[12];
        client.GetRawSocketOption(SysSocket.SOL_SOCKET, SysSocket.SO_PEERCRED, credentials);
        uint user = BinaryPrimitives.ReadUInt32LittleEndian(credentials[4..]);
        return user == 0 || BinaryPrimitives.ReadUInt32LittleEndian(credentials[8..]) == group;
    }

    private static uint? Group() =>
        uint.TryParse(Environment.GetEnvironmentVariable("VNETMESH_SERVICE_GID"), NumberStyles.None, CultureInfo.InvariantCulture, out uint group) ? group : null;

    [LoggerMessage(LogLevel.Information, "telemetry that comes by {Path} is passed on to {Target}")]
    private partial void LogListening(string path, Uri target);

    [LoggerMessage(LogLevel.Warning, "telemetry of services without a network is not passed on: OTEL_EXPORTER_OTLP_ENDPOINT={Endpoint} is no URL")]
    private partial void LogNoEndpoint(string endpoint);

    [LoggerMessage(LogLevel.Warning, "telemetry of services without a network is not passed on: {Path}: {Reason}")]
    private partial void LogFailed(string path, string reason);

    [LoggerMessage(LogLevel.Debug, "a connection to {Target} for telemetry ended: {Reason}")]
    private partial void LogEnded(Uri target, string reason);
}
