using System.Net.Sockets;
using System.Text;
using System.Text.RegularExpressions;
using VNetMesh.Benchmarks.Running;

namespace VNetMesh.Benchmarks.Systems;

/// <summary>
/// A VM with Debian's kernel and a busybox (tests/Vm), without KVM: one CPU, interpreted by QEMU. It does what it is told on
/// its console, a Unix socket.
/// </summary>
public sealed partial class VirtualMachine : IAsyncDisposable
{
    private const int KeptCharacters = 200_000;
    private static readonly TimeSpan Boot = TimeSpan.FromSeconds(60);
    private readonly BackgroundProgram _qemu;
    private readonly Socket _console;
    private readonly StringBuilder _said = new();

    private VirtualMachine(BackgroundProgram qemu, Socket console) => (_qemu, _console) = (qemu, console);

    public int ProcessId => _qemu.ProcessId;

    /// <summary>Makes kernel and initramfs.</summary>
    /// <param name="folder">Where; made when missing.</param>
    /// <exception cref="BenchmarkException">Debian's package of a kernel cannot be had.</exception>
    public static async Task<string> MakeImageAsync(string folder, CancellationToken cancellation)
    {
        string scripts = ScriptFolder();
        await Shell.RunAsync(TimeSpan.FromMinutes(2), [Path.Combine(scripts, "make-image.sh"), folder, Path.Combine(scripts, "shell.sh"), "iperf3", "wrk"], null, cancellation);
        return folder;
    }

    /// <summary>Boots it and waits for its address.</summary>
    /// <param name="host">Where QEMU runs.</param>
    /// <param name="image">The folder of <see cref="MakeImageAsync"/>.</param>
    /// <param name="console">Path of the socket that QEMU makes for its console.</param>
    /// <param name="before">What QEMU is run by; may be empty.</param>
    /// <param name="network">QEMU's arguments for its network.</param>
    public static async Task<VirtualMachine> StartAsync(NetworkNamespace host, string image, string console, IReadOnlyList<string> before, IReadOnlyList<string> network, CancellationToken cancellation)
    {
        BackgroundProgram qemu = host.Start("QEMU",
            [.. before, "qemu-system-x86_64", "-accel", "tcg", "-m", "256", "-nodefaults", "-display", "none", "-no-reboot", "-serial", $"unix:{console},server=on,wait=on",
             "-kernel", image + "/vmlinuz", "-initrd", image + "/initramfs", "-append", "console=ttyS0 quiet panic=-1", .. network]);
        try
        {
            var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            // It is there before anybody listens at it.
            await qemu.UntilAsync("its console answered", () => TryConnect(socket, console), cancellation);
            var machine = new VirtualMachine(qemu, socket);
            string said = await machine.UntilAsync(Done(), Boot, cancellation);
            return said.Contains("no lease", StringComparison.Ordinal) ? throw new BenchmarkException("the VM got no address") : machine;
        }
        catch
        {
            await qemu.DisposeAsync();
            throw;
        }
    }

    /// <summary>Runs a command in the VM.</summary>
    /// <returns>What it said.</returns>
    /// <exception cref="BenchmarkException">It failed or took too long.</exception>
    public async Task<string> RunAsync(string command, TimeSpan limit, CancellationToken cancellation)
    {
        _said.Clear();
        await _console.SendAsync(Encoding.UTF8.GetBytes(command + "; echo \"VM: ended $?\"\n"), cancellation);
        string said = await UntilAsync(Ended(), limit, cancellation);
        Match end = Ended().Match(said);
        string output = said[..end.Index];
        return end.Groups[1].Value == "0" ? output : throw new BenchmarkException($"in the VM: {command.Split(' ')[0]} ended with {end.Groups[1].Value}: {output.ReplaceLineEndings(" / ")[..Math.Min(output.Length, 300)]}");
    }

    public async ValueTask DisposeAsync()
    {
        _console.Dispose();
        await _qemu.DisposeAsync();
    }

    private async Task<string> UntilAsync(Regex pattern, TimeSpan limit, CancellationToken cancellation)
    {
        using var timeout = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        timeout.CancelAfter(limit);
        byte[] buffer = new byte[4096];
        try
        {
            while (true)
            {
                int count = await _console.ReceiveAsync(buffer, timeout.Token);
                if (count == 0 || _said.Length > KeptCharacters)
                    throw new BenchmarkException("the VM's console ended: " + _qemu.Output.ReplaceLineEndings(" / "));
                _said.Append(Encoding.UTF8.GetString(buffer, 0, count));
                string said = _said.ToString();
                if (pattern.IsMatch(said))
                    return said;
            }
        }
        catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
        {
            throw new BenchmarkException($"the VM said nothing of it within {limit.TotalSeconds:0} s: {_said.ToString().ReplaceLineEndings(" / ")}");
        }
    }

    private static bool TryConnect(Socket socket, string path)
    {
        try
        {
            socket.Connect(new UnixDomainSocketEndPoint(path));
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }

    private static string ScriptFolder()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "VNetMesh.sln")))
            folder = Path.GetDirectoryName(folder);
        return Path.Combine(folder ?? throw new BenchmarkException("VNetMesh.sln is in no folder above the program"), "tests", "Vm");
    }

    [GeneratedRegex(@"VM: done\r?\n")]
    private static partial Regex Done();

    [GeneratedRegex(@"VM: ended (\d+)\r?\n")]
    private static partial Regex Ended();
}

/// <summary>A VM that reaches the wan through the system under test.</summary>
public sealed record VmPath(VirtualMachine Machine, Site Site);
