using System.Net;

namespace VNetMesh.EndToEnd.Tests.Harness;

/// <summary>A real DHCP client in a guest, run in the foreground with a script that sets the address and writes down what it was given.</summary>
public sealed class DhcpClient : IAsyncDisposable
{
    // Both clients tell their script the outcome in its environment: dhclient as new_…, udhcpc by plain names.
    private const string Script = """
        #!/bin/sh
        [ -n "$1" ] && reason=$1
        case $reason in
        BOUND|RENEW|REBIND|REBOOT) ip addr replace "$new_ip_address/$new_subnet_mask" dev "$interface"; router=$new_routers ;;
        bound|renew) ip addr replace "$ip/$mask" dev "$interface" ;;
        PREINIT|deconfig) ip link set "$interface" up; exit 0 ;;
        *) exit 0 ;;
        esac
        [ -z "$router" ] || ip route replace default via "$router"
        export reason
        env > "$0.env.new" && mv "$0.env.new" "$0.env"
        echo "$reason" >> "$0.events"
        """;

    private readonly TestGuest _guest;
    private readonly string _script;
    private readonly BackgroundCommand _process;

    private DhcpClient(TestGuest guest, string script, string leaseFile, BackgroundCommand process) =>
        (_guest, _script, LeaseFile, _process) = (guest, script, leaseFile, process);

    /// <summary>dhclient's own memory.</summary>
    public string LeaseFile { get; }

    /// <summary>The client itself: ip netns exec becomes it.</summary>
    public int ProcessId => _process.ProcessId;

    /// <summary>How often the script was told of an address.</summary>
    public int Events => File.Exists(_script + ".events") ? File.ReadAllLines(_script + ".events").Length : 0;

    /// <summary>The environment of the script's last run.</summary>
    public IReadOnlyDictionary<string, string> Options => File.ReadAllLines(_script + ".env")
        .Select(line => line.Split('=', 2)).Where(pair => pair.Length == 2).ToDictionary(pair => pair[0], pair => pair[1]);

    public static DhcpClient Dhclient(TestGuest guest, string? leaseFile = null)
    {
        string script = WriteScript(guest);
        leaseFile ??= script + ".leases";
        return new DhcpClient(guest, script, leaseFile, guest.Namespace.Start(
            "dhclient", "-4", "-d", "-v", "-cf", "/dev/null", "-lf", leaseFile, "-pf", script + ".pid", "-sf", script, "eth0"));
    }

    public static DhcpClient Udhcpc(TestGuest guest)
    {
        string script = WriteScript(guest);
        return new DhcpClient(guest, script, "", guest.Namespace.Start("busybox", "udhcpc", "-f", "-t", "20", "-T", "1", "-O", "mtu", "-i", "eth0", "-s", script));
    }

    /// <summary>The address, when the client has got one.</summary>
    public async Task<IPAddress> BoundAsync()
    {
        try
        {
            await Wait.UntilAsync(TimeSpan.FromSeconds(20), "the client has an address", () => Events > 0);
        }
        catch (Xunit.Sdk.XunitException exception)
        {
            throw new InvalidOperationException($"{exception.Message}\n{_process.Output}");
        }
        return await _guest.AddressAsync();
    }

    public ValueTask DisposeAsync() => _process.DisposeAsync();

    private static string WriteScript(TestGuest guest)
    {
        string path = Path.Combine(guest.ScratchDirectory, Path.GetRandomFileName());
        File.WriteAllText(path, Script);
        File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        File.WriteAllText(path + ".leases", "");
        return path;
    }
}
