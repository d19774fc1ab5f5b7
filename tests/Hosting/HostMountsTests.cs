namespace VNetMesh.Hosting.Tests;

public sealed class HostMountsTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("mounts").FullName;

    private const string Host = "29 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n31 29 0:25 / /run rw,nosuid shared:12 - tmpfs tmpfs rw\n";

    [Theory]
    // A container with the host's directory, mounts going both ways.
    [InlineData("900 800 0:25 /netns /run/netns rw,nosuid shared:12 - tmpfs tmpfs rw\n", true)]
    // The same with other optional fields beside it.
    [InlineData("900 800 0:25 /netns /run/netns rw,nosuid shared:12 master:3 - tmpfs tmpfs rw\n", true)]
    // Mounts come in, and do not go out: rslave, or `ip netns exec`.
    [InlineData("900 800 0:25 /netns /run/netns rw,nosuid master:12 - tmpfs tmpfs rw\n", false)]
    // Another peer group, whose number only begins alike.
    [InlineData("900 800 0:25 /netns /run/netns rw,nosuid shared:1200 - tmpfs tmpfs rw\n", false)]
    // What was mounted last covers the rest.
    [InlineData("900 800 0:25 /netns /run/netns rw shared:12 - tmpfs tmpfs rw\n901 900 0:99 / /run/netns rw - tmpfs tmpfs rw\n", false)]
    // Not a mount at all.
    [InlineData("800 700 0:44 / / rw - overlay overlay rw\n", false)]
    public void Names_of_namespaces_are_shared_by_peers_alone(string own, bool expected) => Assert.Equal(expected, HostMounts.SharesNamespaces(Written("own", own), Written("host", Host)));

    [Fact]
    public void What_may_not_be_read_is_not_shared() => Assert.False(HostMounts.SharesNamespaces(Written("own", Host), Path.Combine(_directory, "none")));

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    private string Written(string name, string text)
    {
        string path = Path.Combine(_directory, name);
        File.WriteAllText(path, text);
        return path;
    }
}
