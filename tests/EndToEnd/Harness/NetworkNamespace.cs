using System.Runtime.InteropServices;
using System.Text.Json;
using Microsoft.Win32.SafeHandles;

namespace VNetMesh.EndToEnd.Tests.Harness;

/// <summary>A named network namespace, as <c>ip netns</c> makes them.</summary>
public sealed partial class NetworkNamespace(string name)
{
    private const int CLONE_NEWNET = 0x4000_0000;

    public string Name { get; } = name;
    public string Path => "/run/netns/" + Name;

    public static async Task<NetworkNamespace> CreateAsync(string name)
    {
        (await Command.RunAsync("ip", "netns", "add", name)).EnsureSuccess();
        var created = new NetworkNamespace(name);
        (await created.RunAsync("ip", "link", "set", "lo", "up")).EnsureSuccess();
        return created;
    }

    /// <summary>Runs a command inside; /etc/netns/NAME/resolv.conf holds in there.</summary>
    public Task<CommandResult> RunAsync(params string[] command) => RunAsync(Command.DefaultLimit, command);

    public Task<CommandResult> RunAsync(TimeSpan limit, params string[] command) => Command.RunAsync(limit, ["ip", "netns", "exec", Name, .. command]);

    public BackgroundCommand Start(params string[] command) => BackgroundCommand.Start(["ip", "netns", "exec", Name, .. command]);

    /// <summary>
    /// Runs the function on a thread of its own that has entered the namespace. Sockets and captures made by it belong
    /// to the namespace for good and may be used from any thread.
    /// </summary>
    public T Enter<T>(Func<T> function)
    {
        T result = default!;
        Exception? failure = null;
        // The thread ends with the function: a thread of the pool must not stay behind in another namespace.
        var thread = new Thread(() =>
        {
            try
            {
                using SafeFileHandle handle = File.OpenHandle(Path);
                if (setns((int)handle.DangerousGetHandle(), CLONE_NEWNET) != 0)
                    throw new InvalidOperationException($"setns to {Path} failed: errno {Marshal.GetLastPInvokeError()}");
                result = function();
            }
            catch (Exception exception)
            {
                failure = exception;
            }
        });
        thread.Start();
        thread.Join();
        if (failure is not null)
            throw new InvalidOperationException($"in namespace {Name}: {failure.Message}", failure);
        return result;
    }

    /// <summary>IPv4 addresses of a device, without their prefix lengths.</summary>
    public async Task<string[]> AddressesAsync(string device)
    {
        CommandResult result = (await RunAsync("ip", "-j", "-4", "addr", "show", "dev", device)).EnsureSuccess();
        using JsonDocument document = JsonDocument.Parse(result.Output);
        return [.. document.RootElement.EnumerateArray()
            .SelectMany(link => link.TryGetProperty("addr_info", out JsonElement list) ? list.EnumerateArray() : [])
            .Select(address => address.GetProperty("local").GetString()!)];
    }

    public async Task<int> InterfaceIndexAsync(string device)
    {
        CommandResult result = (await RunAsync("ip", "-j", "link", "show", "dev", device)).EnsureSuccess();
        using JsonDocument document = JsonDocument.Parse(result.Output);
        return document.RootElement[0].GetProperty("ifindex").GetInt32();
    }

    /// <summary>Ends what runs inside, and removes it. Nothing happens when there is none of this name.</summary>
    public static async Task DestroyAsync(string name)
    {
        if (!File.Exists("/run/netns/" + name))
            return;
        // Whoever is inside got there by the name that only this suite gives out.
        CommandResult inside = await Command.RunAsync("ip", "netns", "pids", name);
        foreach (string line in inside.ExitCode == 0 ? inside.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries) : [])
        {
            if (int.TryParse(line, out int process) && process != Environment.ProcessId)
                kill(process, 9);
        }
        await Command.RunAsync("ip", "netns", "del", name);
        if (Directory.Exists("/etc/netns/" + name))
            Directory.Delete("/etc/netns/" + name, recursive: true);
    }

    public static string[] List() => Directory.Exists("/run/netns") ? [.. Directory.GetFiles("/run/netns").Select(path => System.IO.Path.GetFileName(path)).Order()] : [];

    /// <summary>kill(2); true when the signal was sent.</summary>
    public static bool Kill(int process, int signal) => kill(process, signal) == 0;

    [LibraryImport("libc", SetLastError = true)]
    private static partial int setns(int descriptor, int kind);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int kill(int process, int signal);
}
