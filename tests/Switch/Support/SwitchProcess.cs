using System.Diagnostics;
using Grpc.Core;
using Grpc.Net.Client;
using VNetMesh.Hosting;
using VNetMesh.V1;

namespace VNetMesh.Switch.Tests.Support;

/// <summary>The real switch, as a process of its own with directories of its own.</summary>
public sealed class SwitchProcess : IAsyncDisposable
{
    private readonly string _root;
    private readonly string _programs;
    private readonly string[] _wrapper;
    private readonly Dictionary<string, string> _environment;
    private Process? _process;

    private SwitchProcess(string root, string[] wrapper, Dictionary<string, string> environment)
    {
        _root = root;
        // A user without rights may not reach the build's own directory.
        _programs = wrapper.Length == 0 ? AppContext.BaseDirectory : Stage(root);
        _wrapper = wrapper;
        _environment = environment;
    }

    public RuntimePaths Paths => new(Path.Combine(_root, "run"), Path.Combine(_root, "state"));

    public GrpcChannel Channel { get; private set; } = null!;

    public NetworkService.NetworkServiceClient Networks => new(Channel);

    public PortService.PortServiceClient Ports => new(Channel);

    public int Pid => _process!.Id;

    /// <param name="wrapper">A command that starts the switch with other rights, e.g. setpriv and its arguments.</param>
    public static async Task<SwitchProcess> StartAsync(string[]? wrapper = null, Dictionary<string, string>? environment = null)
    {
        string root = Directory.CreateTempSubdirectory("vnms").FullName;
        var process = new SwitchProcess(root, wrapper ?? [], environment ?? []);
        Directory.CreateDirectory(process.Paths.RunDirectory);
        Directory.CreateDirectory(process.Paths.State("switch"));
        if (wrapper is not null)
            OpenToOthers(root, process.Paths);
        await process.LaunchAsync();
        return process;
    }

    /// <summary>Starts it again with the same directories.</summary>
    public async Task LaunchAsync()
    {
        string program = Path.Combine(_programs, "vnetmesh-switch");
        string[] command = [.. _wrapper, program];
        var start = new ProcessStartInfo(command[0], command[1..]) { RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment[RuntimePaths.RunDirectoryVariable] = Paths.RunDirectory;
        start.Environment[RuntimePaths.StateDirectoryVariable] = Paths.StateDirectory;
        start.Environment[RuntimePaths.ConfigurationVariable] = ConfigurationFile;
        foreach ((string name, string value) in _environment)
            start.Environment[name] = value;
        _process = Process.Start(start)!;
        _process.OutputDataReceived += (_, line) => Keep(line.Data);
        _process.ErrorDataReceived += (_, line) => Keep(line.Data);
        _process.BeginOutputReadLine();
        _process.BeginErrorReadLine();
        Channel?.Dispose();
        Channel = UnixChannel.Create(Paths.Socket("switch"));
        for (int attempt = 0; ; attempt++)
        {
            try
            {
                await Networks.ListNetworksAsync(new ListNetworksRequest(), deadline: DateTime.UtcNow.AddSeconds(5));
                return;
            }
            catch (RpcException) when (attempt < 100 && !_process.HasExited)
            {
                await Task.Delay(100);
            }
            catch (RpcException exception)
            {
                throw new InvalidOperationException("the switch did not start:\n" + Log, exception);
            }
        }
    }

    /// <summary>What it has written so far.</summary>
    public string Log
    {
        get
        {
            lock (_lines)
                return string.Join('\n', _lines);
        }
    }

    private readonly List<string> _lines = [];

    public string ConfigurationFile => Path.Combine(_root, "vnetmesh.yaml");

    /// <summary>Sends a signal by kill(1).</summary>
    public void Signal(string name) => Namespace.Run("kill", "-" + name, Pid.ToString());

    /// <summary>Waits for its end.</summary>
    /// <returns>Its exit code.</returns>
    public async Task<int> ExitAsync(CancellationToken cancellation)
    {
        await _process!.WaitForExitAsync(cancellation);
        return _process.ExitCode;
    }

    /// <summary>kill -9.</summary>
    public async Task KillAsync()
    {
        _process!.Kill();
        await _process.WaitForExitAsync();
    }

    public async ValueTask DisposeAsync()
    {
        Channel.Dispose();
        if (!_process!.HasExited)
            await KillAsync();
        _process.Dispose();
        Directory.Delete(_root, recursive: true);
    }

    private void Keep(string? line)
    {
        lock (_lines)
        {
            if (line is not null)
                _lines.Add(line);
        }
    }

    private static string Stage(string root)
    {
        string target = Directory.CreateDirectory(Path.Combine(root, "bin")).FullName;
        foreach (string file in Directory.EnumerateFiles(AppContext.BaseDirectory, "*", SearchOption.AllDirectories))
        {
            string copy = Path.Combine(target, Path.GetRelativePath(AppContext.BaseDirectory, file));
            Directory.CreateDirectory(Path.GetDirectoryName(copy)!);
            File.Copy(file, copy);
        }
        return target;
    }

    private static void OpenToOthers(string root, RuntimePaths paths)
    {
        const UnixFileMode Everyone = (UnixFileMode)0x1FF;
        foreach (string directory in new[] { root, paths.RunDirectory, paths.StateDirectory, paths.State("switch") })
            File.SetUnixFileMode(directory, Everyone);
    }
}
