using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using OpenTelemetry;
using OpenTelemetry.Exporter;
using OpenTelemetry.Logs;
using OpenTelemetry.Metrics;
using OpenTelemetry.Resources;
using OpenTelemetry.Trace;

namespace VNetMesh.Hosting;

/// <summary>OpenTelemetry for a service: OTLP when the standard OTEL_* variables name an endpoint, Prometheus always.</summary>
public static class Telemetry
{
    /// <summary>True when something is to be exported by OTLP.</summary>
    public static bool IsExported =>
        !string.Equals(Environment.GetEnvironmentVariable("OTEL_SDK_DISABLED"), "true", StringComparison.OrdinalIgnoreCase)
        && EndpointVariables.Any(name => Environment.GetEnvironmentVariable(name) is { Length: > 0 });

    private static readonly string[] EndpointVariables =
        ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"];

    /// <summary>
    /// For a command that runs and ends: its spans, and the calls that it makes, go to where the services' go. To be disposed of at
    /// the end, which waits for the export, a second at most. Null when nothing is to be exported.
    /// </summary>
    /// <param name="source">Name of the command's ActivitySource.</param>
    public static IDisposable? TraceCommand(string service, string source)
    {
        if (!IsExported)
            return null;
        TracerProviderBuilder tracing = Sdk.CreateTracerProviderBuilder()
            .ConfigureResource(resource => Describe(resource, service))
            .AddSource(source)
            .AddGrpcClientInstrumentation()
            .AddOtlpExporter();
        if (ServiceSampler.FromEnvironment() is { } sampler)
            tracing.SetSampler(sampler);
        return new CommandExport(tracing.Build());
    }

    private static void Describe(ResourceBuilder resource, string service) =>
        resource.AddService("vnetmesh-" + service, serviceVersion: typeof(Telemetry).Assembly.GetName().Version?.ToString(3)).AddEnvironmentVariableDetector();

    internal static void AddTelemetry(this WebApplicationBuilder builder, string service, string telemetryName)
    {
        ProcessInstruments.Create();
        Action<OtlpExporterOptions> toEndpoint = OtlpSocket.Configure(service, OtlpSocket.Path);
        OpenTelemetryBuilder telemetry = builder.Services.AddOpenTelemetry()
            .ConfigureResource(resource => Describe(resource, service))
            .WithMetrics(metrics =>
            {
                metrics.AddMeter(telemetryName).AddMeter(ProcessInstruments.MeterName).AddRuntimeInstrumentation().AddPrometheusExporter();
                if (IsExported)
                    metrics.AddOtlpExporter(toEndpoint);
            });
        if (!IsExported)
            return;
        telemetry.WithTracing(tracing =>
        {
            tracing.AddSource(telemetryName)
                .AddAspNetCoreInstrumentation(options => options.Filter = context => context.Request.Path != "/metrics"
                    && !context.Request.Path.StartsWithSegments("/grpc.health.v1.Health", StringComparison.Ordinal))
                .AddGrpcClientInstrumentation()
                .AddOtlpExporter(toEndpoint);
            if (ServiceSampler.FromEnvironment() is { } sampler)
                tracing.SetSampler(sampler);
        });
        builder.Logging.AddOpenTelemetry(logging => logging.AddOtlpExporter(toEndpoint));
    }

    private sealed class CommandExport(TracerProvider provider) : IDisposable
    {
        private const int LimitMilliseconds = 1000;

        public void Dispose()
        {
            provider.Shutdown(LimitMilliseconds);
            provider.Dispose();
        }
    }
}
