using System.Diagnostics;
using VNetMesh.Agent.Tests.Support;

namespace VNetMesh.Agent.Tests.Guests;

/// <summary>The script as udhcpc runs it: an event and a lease in the environment.</summary>
public sealed class UdhcpcScriptTests : IDisposable
{
    private readonly HostLab _lab;
    private readonly string _guest;

    public UdhcpcScriptTests()
    {
        _lab = new HostLab();
        _guest = _lab.AddNamespace("guest");
        HostLab.Ip(_guest, "link", "add", "eth0", "type", "veth", "peer", "name", "far0");
        HostLab.Ip(_guest, "link", "set", "far0", "up");
        Run("deconfig");
    }

    private string ResolvConf => Path.Combine(_lab.Scratch, "resolv.conf");

    public void Dispose() => _lab.Dispose();

    [Fact]
    public void A_lease_sets_address_routes_mtu_and_resolver()
    {
        Bind(("router", "192.0.2.1"), ("dns", "192.0.2.2 192.0.2.3"), ("domain", "lab.test"), ("mtu", "1400"), ("routes", "198.51.100.7/192.0.2.9"));
        string address = HostLab.Ip(_guest, "addr", "show", "eth0");
        Assert.Contains("mtu 1400", address, StringComparison.Ordinal);
        Assert.Contains("inet 192.0.2.10/24 brd 192.0.2.255", address, StringComparison.Ordinal);
        Assert.Matches("valid_lft (600|599)sec", address);
        Assert.Contains("default via 192.0.2.1", Routes(), StringComparison.Ordinal);
        Assert.Contains("198.51.100.7 via 192.0.2.9", Routes(), StringComparison.Ordinal);
        Assert.Equal("# Written by VNetMesh from the DHCP lease of eth0.\nsearch lab.test\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n", File.ReadAllText(ResolvConf));
    }

    [Fact]
    public void Classless_routes_replace_the_router()
    {
        Bind(("router", "192.0.2.1"), ("staticroutes", "198.51.100.0/24 192.0.2.5 0.0.0.0/0 192.0.2.6"));
        Assert.Contains("default via 192.0.2.6", Routes(), StringComparison.Ordinal);
        Assert.Contains("198.51.100.0/24 via 192.0.2.5", Routes(), StringComparison.Ordinal);
        Assert.DoesNotContain("192.0.2.1 ", Routes(), StringComparison.Ordinal);
    }

    [Fact]
    public void Another_address_takes_the_place_of_the_one_before()
    {
        Bind(("router", "192.0.2.1"));
        Bind(("ip", "192.0.2.11"), ("router", "192.0.2.9"));
        Assert.DoesNotContain("192.0.2.10/24", HostLab.Ip(_guest, "addr", "show", "eth0"), StringComparison.Ordinal);
        Assert.Contains("default via 192.0.2.9", Routes(), StringComparison.Ordinal);
    }

    [Fact]
    public void What_a_hostile_server_sends_is_no_command_and_no_file_name()
    {
        string trap = Path.Combine(_lab.Scratch, "trap");
        Bind(("router", $"$(touch {trap})"), ("domain", $"x;touch {trap}"), ("dns", $"`touch {trap}` /*"), ("mtu", $"9;touch {trap}"), ("lease", $"$(touch {trap})"), ("staticroutes", ""));
        Assert.False(File.Exists(trap));
        string resolver = File.ReadAllText(ResolvConf);
        Assert.DoesNotContain("search", resolver, StringComparison.Ordinal);
        Assert.DoesNotContain("/etc", resolver, StringComparison.Ordinal);
        Assert.Contains("inet 192.0.2.10/24", HostLab.Ip(_guest, "addr", "show", "eth0"), StringComparison.Ordinal);
    }

    [Fact]
    public void A_client_that_was_restarted_keeps_the_lease_and_a_refused_one_is_forgotten()
    {
        Bind();
        Run("deconfig"); // by another process than the one that bound it
        Assert.Contains("inet 192.0.2.10/24", HostLab.Ip(_guest, "addr", "show", "eth0"), StringComparison.Ordinal);
        Run("nak");
        Run("deconfig");
        Assert.DoesNotContain("inet 192", HostLab.Ip(_guest, "addr", "show", "eth0"), StringComparison.Ordinal);
    }

    private string Routes() => HostLab.Ip(_guest, "route");

    private void Bind(params ReadOnlySpan<(string Name, string Value)> lease) => Run("bound", lease);

    private void Run(string lifeEvent, params ReadOnlySpan<(string Name, string Value)> lease)
    {
        // A shell stands for udhcpc, which is the script's parent.
        var start = new ProcessStartInfo("nsenter", [$"--net=/run/netns/{_guest}", "--", "sh", "-c", "\"$0\" \"$1\"; exit $?", Path.Combine(AppContext.BaseDirectory, "udhcpc.script"), lifeEvent]) { RedirectStandardError = true };
        (string, string)[] usual = [("interface", "eth0"), ("ip", "192.0.2.10"), ("mask", "24"), ("lease", "600"), ("VNETMESH_LEASE_FILE", Path.Combine(_lab.Scratch, "lease")), ("VNETMESH_RESOLV_CONF", ResolvConf)];
        foreach ((string name, string value) in usual)
            start.Environment[name] = value;
        foreach ((string name, string value) in lease)
            start.Environment[name] = value;
        using Process process = Process.Start(start)!;
        process.StandardError.ReadToEnd();
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
    }
}
