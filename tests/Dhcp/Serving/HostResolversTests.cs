using VNetMesh.Dhcp.Serving;

namespace VNetMesh.Dhcp.Tests.Serving;

public sealed class HostResolversTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("vnmr").FullName;

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    [Fact]
    public void Guests_are_told_of_nameservers_that_they_can_reach()
    {
        HostResolvers.List found = HostResolvers.Parse(
        [
            "# nameserver 192.0.2.9", "search example", "nameserver 127.0.0.53", "nameserver 192.0.2.1", "nameserver ::1", "nameserver fe80::1%eth0", "nameserver 2001:db8::1",
            "nameserver 169.254.1.1", "nameserver 0.0.0.0", "nameserver", "nameserver nonsense", "nameserver 192.0.2.2", "nameserver 192.0.2.3", "nameserver 192.0.2.4",
        ]);
        Assert.Equal(["192.0.2.1", "192.0.2.2", "192.0.2.3"], found.Ipv4.Select(address => address.ToString()));
        Assert.Equal(["2001:db8::1"], found.Ipv6.Select(address => address.ToString()));
    }

    [Fact]
    public void Behind_a_resolver_of_the_hosts_own_those_behind_it_are_taken()
    {
        string stub = Path.Combine(_directory, "resolv.conf"), real = Path.Combine(_directory, "real"), missing = Path.Combine(_directory, "missing");
        File.WriteAllText(stub, "nameserver 127.0.0.53\n");
        File.WriteAllText(real, "nameserver 192.0.2.1\n");
        Assert.Equal("192.0.2.1", Assert.Single(new HostResolvers(stub, real).Read().Ipv4).ToString());
        Assert.Empty(new HostResolvers(stub, missing).Read().Ipv4);
        File.WriteAllText(stub, "nameserver 192.0.2.7\n");
        Assert.Equal("192.0.2.7", Assert.Single(new HostResolvers(stub, real).Read().Ipv4).ToString());
    }
}
