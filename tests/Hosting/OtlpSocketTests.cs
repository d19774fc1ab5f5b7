using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using OpenTelemetry;
using OpenTelemetry.Exporter;
using OpenTelemetry.Trace;

namespace VNetMesh.Hosting.Tests;

public sealed class OtlpSocketTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("otlp").FullName;

    /// <summary>Where a service without a network could never connect to.</summary>
    private static readonly Uri Endpoint = new("http://192.0.2.1:4317");

    // The connection preface of HTTP/2 (RFC 9113, section 3.4), and a request line of HTTP/1.1.
    [Theory]
    [InlineData(OtlpExportProtocol.Grpc, "PRI * HTTP/2.0")]
    [InlineData(OtlpExportProtocol.HttpProtobuf, "POST / HTTP/1.1\r\nHost: 192.0.2.1:4317")]
    public async Task Spans_come_by_the_socket(OtlpExportProtocol protocol, string begins)
    {
        string path = Path.Combine(_directory, "otlp.sock");
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(path));
        listener.Listen();
        using var source = new ActivitySource("OtlpSocketTests." + protocol);
        using TracerProvider provider = Sdk.CreateTracerProviderBuilder().AddSource(source.Name).AddOtlpExporter(options =>
        {
            (options.Protocol, options.Endpoint, options.TimeoutMilliseconds) = (protocol, Endpoint, 2000);
            OtlpSocket.Configure("switch", path)(options);
        }).Build();
        source.StartActivity("one")!.Dispose();
        Task<bool> flushed = Task.Run(() => provider.ForceFlush(3000), TestContext.Current.CancellationToken);

        using Socket accepted = await listener.AcceptAsync(TestContext.Current.CancellationToken).AsTask().WaitAsync(TimeSpan.FromSeconds(5), TestContext.Current.CancellationToken);
        byte[] first = new byte[1024];
        int size = await accepted.ReceiveAsync(first, TestContext.Current.CancellationToken);
        Assert.StartsWith(begins, Encoding.ASCII.GetString(first, 0, size), StringComparison.Ordinal);
        accepted.Close();
        await flushed;
    }

    [Theory]
    [InlineData("agent", "/run/otlp.sock")]
    [InlineData("switch", null)]
    public void Others_connect_by_themselves(string service, string? path)
    {
        var options = new OtlpExporterOptions();
        Func<HttpClient> before = options.HttpClientFactory;
        OtlpSocket.Configure(service, path)(options);
        Assert.Same(before, options.HttpClientFactory);
    }

    public void Dispose() => Directory.Delete(_directory, recursive: true);
}
