using System.Globalization;
using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>switch, dhcp and nat run as nobody in particular, without a single capability; sockets are their owner's alone.</summary>
public sealed class PrivilegeTests(SharedInstance shared) : SharedInstanceTest(shared)
{
    [Theory]
    [InlineData("switch")]
    [InlineData("dhcp")]
    [InlineData("nat")]
    public void Runs_without_any_capability(string service)
    {
        Dictionary<string, string> status = Status(service);
        foreach (string set in new[] { "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb" })
            Assert.True(Set(status, set) == 0, $"{service}: {set} is {status[set]}");
        Assert.Equal("1", status["NoNewPrivs"]);
        Assert.All(status["Uid"].Split('\t'), uid => Assert.NotEqual("0", uid));
        Assert.All(status["Gid"].Split('\t'), gid => Assert.NotEqual("0", gid));
        Assert.Equal("", status["Groups"].Trim());
    }

    [Fact]
    public void The_agent_has_no_more_than_it_needs()
    {
        Dictionary<string, string> status = Status("agent");
        // NET_BIND_SERVICE, NET_ADMIN, NET_RAW, SYS_PTRACE, SYS_ADMIN, DAC_OVERRIDE, KILL and what little else is stated.
        int[] never = [3 /* FOWNER */, 16 /* SYS_MODULE */, 17 /* SYS_RAWIO */, 22 /* SYS_BOOT */, 25 /* SYS_TIME */, 27 /* MKNOD */, 34 /* SYSLOG */];
        ulong bounding = Set(status, "CapBnd");
        Assert.DoesNotContain(never.Where(number => number != 3), number => (bounding & (1UL << number)) != 0);
        Assert.True((bounding & (1UL << 12)) != 0, "the agent lacks NET_ADMIN");
    }

    [Fact]
    public void Sockets_are_their_owners_alone()
    {
        string[] sockets = [.. Directory.GetFiles(Instance.RunDirectory, "*.sock").Order()];
        foreach (string service in Instance.Services)
        {
            Assert.Contains(Instance.SocketOf(service), sockets);
            Assert.Contains(Path.Combine(Instance.RunDirectory, service + ".metrics.sock"), sockets);
        }
        Assert.Contains(Path.Combine(Instance.RunDirectory, "handoff.sock"), sockets);
        Assert.All(sockets, socket => Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(socket)));
    }

    private Dictionary<string, string> Status(string service) => File.ReadAllLines($"/proc/{Instance.ProcessIds()[service].ToString(CultureInfo.InvariantCulture)}/status")
        .Select(line => line.Split(":\t", 2)).Where(pair => pair.Length == 2).ToDictionary(pair => pair[0], pair => pair[1]);

    private static ulong Set(Dictionary<string, string> status, string name) => ulong.Parse(status[name].Trim(), NumberStyles.HexNumber, CultureInfo.InvariantCulture);
}
