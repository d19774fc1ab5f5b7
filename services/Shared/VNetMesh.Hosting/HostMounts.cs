using System.Text.RegularExpressions;

namespace VNetMesh.Hosting;

/// <summary>Which mounts of ours the host sees as well (Documentation/filesystems/sharedsubtree.rst).</summary>
public static partial class HostMounts
{
    private const string NamespaceDirectory = "/run/netns";

    /// <summary>
    /// Whether a namespace that is given a name here has it on the host too: our mount of /run/netns is a peer of one of process 1's.
    /// So it is in a container that has the host's /run/netns with propagation "rshared", and needs none of the host's programs.
    /// </summary>
    public static bool SharesNamespacesWithHost() => SharesNamespaces("/proc/self/mountinfo", "/proc/1/mountinfo");

    internal static bool SharesNamespaces(string own, string host)
    {
        try
        {
            // What was mounted last at a place covers the rest.
            string? mount = File.ReadLines(own).LastOrDefault(line => line.Split(' ') is { Length: > 6 } fields && fields[4] == NamespaceDirectory);
            return mount is not null && Peers().Match(mount) is { Success: true } group && File.ReadLines(host).Any(line => Peers().Match(line).Value == group.Value);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            // Another's mounts may not be looked at: then nothing is known to be shared.
            return false;
        }
    }

    /// <summary>The optional field "shared:N" of proc_pid_mountinfo(5), which stands before " - ".</summary>
    [GeneratedRegex(@" shared:\d+ (?=.*- )")]
    private static partial Regex Peers();
}
