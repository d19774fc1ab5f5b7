using System.Net;
using System.Net.Sockets;
using System.Text.Json;

namespace VNetMesh.Cli.Connections;

/// <summary>
/// Asks Docker, or Podman by its API of the same kind, for a container's process. With the user's own rights: the
/// engine decides whom it answers.
/// </summary>
internal static class ContainerEngine
{
    private const string Scheme = "unix://";
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(5);

    /// <summary>The process id of a running container, by name or id.</summary>
    /// <exception cref="CliException">There is no engine, no such container, or it does not run.</exception>
    public static async Task<int> FindProcessAsync(string container, CancellationToken cancellation)
    {
        string path = SocketPath();
        using var client = new HttpClient(new SocketsHttpHandler { ConnectCallback = (_, token) => ConnectAsync(path, token) }) { Timeout = Limit, MaxResponseContentBufferSize = 4 * 1024 * 1024 };
        try
        {
            using HttpResponseMessage answer = await client.GetAsync(new Uri($"http://localhost/containers/{Uri.EscapeDataString(container)}/json"), cancellation);
            if (answer.StatusCode == HttpStatusCode.NotFound)
                throw new CliException(ExitCode.NotFound, $"there is no container '{container}' at {path}: see 'docker ps', or 'podman ps'");
            if (!answer.IsSuccessStatusCode)
                throw new CliException(ExitCode.Failed, $"{path} answered {((int)answer.StatusCode).ToString(System.Globalization.CultureInfo.InvariantCulture)} when asked for the container '{container}'");
            return ReadProcess(container, await answer.Content.ReadAsByteArrayAsync(cancellation));
        }
        catch (HttpRequestException exception) when (exception.InnerException is SocketException { SocketErrorCode: SocketError.AccessDenied })
        {
            throw new CliException(ExitCode.Permission, $"{path} is not for this user: run as root, or as a member of its group");
        }
        catch (HttpRequestException exception)
        {
            throw new CliException(ExitCode.Failed, $"no container engine answers at {path}: {exception.Message.ReplaceLineEndings(" ")}; is it running? DOCKER_HOST says where it is");
        }
        catch (TaskCanceledException) when (!cancellation.IsCancellationRequested)
        {
            throw new CliException(ExitCode.Failed, $"the container engine at {path} did not answer within {Limit.TotalSeconds.ToString(System.Globalization.CultureInfo.InvariantCulture)} s");
        }
    }

    /// <summary>Where the engine listens: DOCKER_HOST, else the first of the usual places that is there.</summary>
    /// <exception cref="CliException">There is none, or it is not on this host.</exception>
    internal static string SocketPath()
    {
        string host = Environment.GetEnvironmentVariable("DOCKER_HOST") ?? "";
        if (host.StartsWith(Scheme, StringComparison.Ordinal))
            return host[Scheme.Length..];
        if (host.Length > 0)
            throw new CliException(ExitCode.Usage, $"DOCKER_HOST is {host}: only an engine on this host, by unix://PATH, has containers that can be plugged in here");
        string? runtime = Environment.GetEnvironmentVariable("XDG_RUNTIME_DIR");
        string?[] usual = ["/var/run/docker.sock", "/run/podman/podman.sock", runtime is null ? null : Path.Combine(runtime, "docker.sock"), runtime is null ? null : Path.Combine(runtime, "podman", "podman.sock")];
        return usual.FirstOrDefault(File.Exists)
            ?? throw new CliException(ExitCode.NotFound, "no container engine is on this host: neither Docker's nor Podman's socket is in its usual place, and DOCKER_HOST names none");
    }

    /// <summary>The process in an engine's answer (State.Pid; 0 while the container does not run).</summary>
    /// <exception cref="CliException">It does not run, or the answer is none of an engine's.</exception>
    internal static int ReadProcess(string container, byte[] answer)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(answer);
            int pid = document.RootElement.GetProperty("State").GetProperty("Pid").GetInt32();
            return pid > 0 ? pid : throw new CliException(ExitCode.Refused, $"the container '{container}' does not run: start it first");
        }
        catch (Exception exception) when (exception is JsonException or KeyNotFoundException or InvalidOperationException or FormatException)
        {
            throw new CliException(ExitCode.Failed, $"what answered for the container '{container}' is no container engine");
        }
    }

    private static async ValueTask<Stream> ConnectAsync(string path, CancellationToken cancellation)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), cancellation);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}
