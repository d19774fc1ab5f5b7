using System.Net;
using System.Net.Sockets;
using Grpc.Core;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using VNetMesh.Hosting.Logging;

namespace VNetMesh.Hosting;

/// <summary>What every service's Program.cs shares: Unix sockets, health, reflection, telemetry.</summary>
public static class ServiceHost
{
    internal const string AgentName = "agent";
    private static readonly TimeSpan AfterStart = TimeSpan.FromSeconds(3);

    /// <summary>
    /// A builder of a service that speaks gRPC on {run}/{service}.sock, with reflection and the standard health
    /// service, and answers GET /metrics on {run}/{service}.metrics.sock; both for their owner alone.
    /// The agent answers for all of them over TCP: see <see cref="MetricsGateway"/>.
    /// </summary>
    /// <param name="args">Command-line arguments, as configuration.</param>
    /// <param name="service">switch, dhcp, nat or agent.</param>
    /// <param name="telemetryName">Name of the service's meter and activity source, e.g. "VNetMesh.Switch".</param>
    public static WebApplicationBuilder CreateBuilder(string[] args, string service, string telemetryName)
    {
        RuntimePaths paths = RuntimePaths.FromEnvironment();
        Directory.CreateDirectory(paths.RunDirectory);
        Directory.CreateDirectory(paths.State(service));
        WebApplicationBuilder builder = WebApplication.CreateSlimBuilder(new WebApplicationOptions { Args = args, ApplicationName = "vnetmesh-" + service, ContentRootPath = AppContext.BaseDirectory });
        builder.Services.AddSingleton(paths);
        builder.Services.AddSingleton(new ServiceIdentity(service));
        builder.Services.AddSingleton(TimeProvider.System);
        builder.Services.AddGrpc(options =>
        {
            options.MaxReceiveMessageSize = 16 * 1024 * 1024;
            options.Interceptors.Add<UnexpectedErrorInterceptor>();
        });
        builder.Services.AddGrpcReflection();
        builder.Services.AddGrpcHealthChecks().AddCheck("self", () => HealthCheckResult.Healthy());
        // Health must show a change within a second, or `vnet up` waits for nothing.
        builder.Services.Configure<HealthCheckPublisherOptions>(options => (options.Delay, options.Period) = (TimeSpan.Zero, TimeSpan.FromSeconds(1)));
        // First: it begins by clearing the providers, and would clear the exporter too.
        builder.AddServiceLogging();
        builder.AddTelemetry(service, telemetryName);
        ConfigureSockets(builder, paths, service);
        return builder;
    }

    /// <summary>Maps what every service answers: health, reflection, diagnostics, metrics. The service maps its own gRPC services beside it.</summary>
    public static WebApplication MapCommon(this WebApplication app)
    {
        if (app.Services.GetRequiredService<ServiceIdentity>().Name == AgentName)
            app.UseMetricsGateway(app.Services.GetRequiredService<RuntimePaths>());
        app.MapGrpcHealthChecksService();
        app.MapGrpcReflectionService();
        app.MapGrpcService<DiagnosticsRpc>();
        app.MapPrometheusScrapingEndpoint("/metrics");
        return app;
    }

    /// <summary>Runs until SIGTERM or SIGINT, with the sockets closed to all but their owner.</summary>
    public static async Task RunServiceAsync(this WebApplication app)
    {
        RuntimePaths paths = app.Services.GetRequiredService<RuntimePaths>();
        string service = app.Services.GetRequiredService<ServiceIdentity>().Name;
        await app.StartAsync();
        await using Timer afterStart = new(_ => GiveBack(), null, AfterStart, Timeout.InfiniteTimeSpan);
        await ((IHost)app).WaitForShutdownAsync();
        File.Delete(paths.Socket(service));
        File.Delete(paths.MetricsSocket(service));
    }

    /// <summary>
    /// What the start needed and nobody needs any more goes back to the system: about ten megabytes for each service, which
    /// the runtime would keep for want of a reason to collect.
    /// </summary>
    private static void GiveBack() => GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);

    private static void ConfigureSockets(WebApplicationBuilder builder, RuntimePaths paths, string service)
    {
        builder.WebHost.UseKestrelCore().ConfigureKestrel(options =>
        {
            // Sockets are made for their owner alone: there is no moment in which others could connect.
            options.Listen(UnixEndPoint(paths.Socket(service)), listen => listen.Protocols = HttpProtocols.Http2);
            options.Listen(UnixEndPoint(paths.MetricsSocket(service)), listen => listen.Protocols = HttpProtocols.Http1);
            if (service == AgentName && MetricsGateway.Address() is { } address)
                options.Listen(address, listen => listen.Protocols = HttpProtocols.Http1);
            options.Limits.Http2.InitialStreamWindowSize = 1024 * 1024;
            options.Limits.Http2.InitialConnectionWindowSize = 4 * 1024 * 1024;
        }).UseSockets(options => options.CreateBoundListenSocket = CreateOwnerOnlySocket);
    }

    private static UnixDomainSocketEndPoint UnixEndPoint(string path)
    {
        if (System.Text.Encoding.UTF8.GetByteCount(path) > 107)
            throw new ArgumentException($"the socket path '{path}' is longer than 107 octets; set {RuntimePaths.RunDirectoryVariable} to a shorter one");
        return new UnixDomainSocketEndPoint(path);
    }

    private static Socket CreateOwnerOnlySocket(EndPoint endPoint)
    {
        if (endPoint is not UnixDomainSocketEndPoint)
            return Microsoft.AspNetCore.Server.Kestrel.Transport.Sockets.SocketTransportOptions.CreateDefaultBoundListenSocket(endPoint);
        string path = endPoint.ToString()!;
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            // Bound beside its place, closed to others, then moved there over what an earlier run left: the
            // path never names a socket that is open to all, and a client never finds it missing.
            string staging = path + ".new";
            File.Delete(staging);
            socket.Bind(new UnixDomainSocketEndPoint(staging));
            File.SetUnixFileMode(staging, UnixFileMode.UserRead | UnixFileMode.UserWrite);
            File.Move(staging, path, overwrite: true);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}

/// <summary>Which service this process is: switch, dhcp, nat or agent.</summary>
public sealed record ServiceIdentity(string Name);

/// <summary>Turns what a service did not foresee into INTERNAL with a reason, and logs it; cancellations stay what they are.</summary>
internal sealed partial class UnexpectedErrorInterceptor(ILogger<UnexpectedErrorInterceptor> logger) : Grpc.Core.Interceptors.Interceptor
{
    public override async Task<TResponse> UnaryServerHandler<TRequest, TResponse>(TRequest request, ServerCallContext context, UnaryServerMethod<TRequest, TResponse> continuation)
    {
        try
        {
            return await continuation(request, context);
        }
        catch (Exception exception) when (exception is not RpcException and not OperationCanceledException)
        {
            LogUnexpected(context.Method, exception);
            throw RpcErrors.Internal("UNEXPECTED", $"{context.Method} failed unexpectedly: {exception.Message}");
        }
    }

    public override async Task ServerStreamingServerHandler<TRequest, TResponse>(TRequest request, IServerStreamWriter<TResponse> responseStream, ServerCallContext context, ServerStreamingServerMethod<TRequest, TResponse> continuation)
    {
        try
        {
            await continuation(request, responseStream, context);
        }
        catch (Exception exception) when (exception is not RpcException and not OperationCanceledException && !context.CancellationToken.IsCancellationRequested)
        {
            LogUnexpected(context.Method, exception);
            throw RpcErrors.Internal("UNEXPECTED", $"{context.Method} failed unexpectedly: {exception.Message}");
        }
    }

    [LoggerMessage(LogLevel.Error, "{Method} failed unexpectedly")]
    private partial void LogUnexpected(string method, Exception exception);
}
