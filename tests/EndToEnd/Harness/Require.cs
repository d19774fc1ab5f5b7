namespace VNetMesh.EndToEnd.Tests.Harness;

/// <summary>What the suite needs of the machine; tests skip themselves with the reason where it is missing.</summary>
public static class Require
{
    /// <summary>Skips the test unless it may make network namespaces and TAP devices.</summary>
    public static void Root()
    {
        if (!Environment.IsPrivilegedProcess)
            Assert.Skip("needs root: the test makes network namespaces and devices");
        if (!File.Exists("/dev/net/tun"))
            Assert.Skip("needs /dev/net/tun");
    }

    /// <summary>Skips the test unless the programs are installed; test.sh installs all of them.</summary>
    public static void Programs(params string[] names)
    {
        string[] folders = (Environment.GetEnvironmentVariable("PATH") + ":/usr/sbin:/sbin").Split(':', StringSplitOptions.RemoveEmptyEntries);
        foreach (string name in names)
        {
            if (!folders.Any(folder => File.Exists(Path.Combine(folder, name))))
                Assert.Skip($"needs the program '{name}' (./test.sh installs it)");
        }
    }
}
