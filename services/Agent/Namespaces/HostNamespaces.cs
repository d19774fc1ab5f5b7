using System.Text.RegularExpressions;
using VNetMesh.Hosting;
using VNetMesh.Native;

namespace VNetMesh.Agent.Namespaces;

/// <summary>
/// Opens, makes and removes network namespaces where the host's users see them.
///
/// `ip netns exec` gives its child a mount namespace of its own, which gets the mounts made outside and passes none back. An
/// agent started there would make namespaces that nobody else can enter. So, unless our /run/netns is the host's (as for a
/// native agent, and in a container that mounts it with propagation), they are made in the mount namespace of process 1; where that is not permitted, in the one from which ours gets its mounts (it has the peer group that our /run/netns is
/// a slave of: Documentation/filesystems/sharedsubtree.rst), where one of its processes can be found; else in our own.
/// </summary>
public sealed partial class HostNamespaces : IDisposable
{
    private readonly FileDescriptor? _mounts;

    private HostNamespaces(FileDescriptor? mounts, string source) => (_mounts, Source) = (mounts, source);

    /// <summary>Whose mounts are used, in plain words.</summary>
    public string Source { get; }

    public static HostNamespaces Find()
    {
        if (HostMounts.SharesNamespacesWithHost())
            return new HostNamespaces(null, "the agent itself, whose /run/netns is the host's");
        if (TryOpenMounts(1) is { } first)
            return new HostNamespaces(first, "process 1");
        if (FindMaster() is { } master)
            return new HostNamespaces(master.Mounts, $"process {master.Pid}");
        return new HostNamespaces(null, "the agent itself");
    }

    /// <exception cref="NamespaceNotFoundException">Nothing is there, or not a network namespace.</exception>
    public NetworkNamespace Open(string path)
    {
        // Process ids are those of our own /proc.
        FileDescriptor? found = path.StartsWith("/proc/", StringComparison.Ordinal) || _mounts is null ? null : NamespaceRunner.RunInMounts(_mounts, () => TryOpen(path, out _));
        int errno = 0;
        found ??= TryOpen(path, out errno);
        if (found is null)
            throw new NamespaceNotFoundException(path, new System.ComponentModel.Win32Exception(errno).Message);
        if (LinuxNsfs.ioctl(found.Number, LinuxNsfs.NS_GET_NSTYPE) == Sched.CLONE_NEWNET)
            return new NetworkNamespace(path, found, $"net:[{LinuxStat.InodeOf(found.Number)}]");
        found.Dispose();
        throw new NamespaceNotFoundException(path, "it is something else");
    }

    /// <summary>Whether the namespace of that identity is still what the path leads to.</summary>
    public bool IsThere(string path, string identity)
    {
        try
        {
            using NetworkNamespace current = Open(path);
            return current.Identity == identity;
        }
        catch (NamespaceNotFoundException)
        {
            return false;
        }
    }

    /// <summary>Whether the path is taken, be it by a namespace or not.</summary>
    public bool Exists(string path) => (_mounts is not null && NamespaceRunner.RunInMounts(_mounts, () => File.Exists(path))) || File.Exists(path);

    /// <summary>`ip netns add`.</summary>
    /// <exception cref="CommandException">It failed.</exception>
    public void Add(string name) => Ip("netns", "add", name);

    /// <summary>`ip netns delete`. The namespace itself lives on while something holds it.</summary>
    /// <exception cref="CommandException">It failed.</exception>
    public void Remove(string name) => Ip("netns", "delete", name);

    /// <summary>The identity of the agent's own network namespace.</summary>
    public static string OwnIdentity() => new FileInfo("/proc/self/ns/net").LinkTarget ?? "";

    public void Dispose() => _mounts?.Dispose();

    private void Ip(params ReadOnlySpan<string> arguments)
    {
        if (_mounts is null)
            Command.Run("ip", arguments);
        else
            Command.Run("nsenter", [$"--mount=/proc/{Environment.ProcessId}/fd/{_mounts.Number}", "--", "ip", .. arguments]);
    }

    private static FileDescriptor? TryOpen(string path, out int errno)
    {
        // Not blocking: a FIFO in a namespace's place must not stop the agent.
        int descriptor = Fcntl.open(path, Fcntl.O_RDONLY | Fcntl.O_CLOEXEC | Fcntl.O_NONBLOCK);
        errno = descriptor < 0 ? Syscall.Errno : 0;
        return descriptor < 0 ? null : new FileDescriptor(descriptor);
    }

    /// <returns>Null where it may not be entered, or is our own.</returns>
    private static FileDescriptor? TryOpenMounts(int pid)
    {
        if (TryOpen($"/proc/{pid}/ns/mnt", out _) is not { } mounts)
            return null;
        try
        {
            using var own = new FileDescriptor(Syscall.Check(Fcntl.open("/proc/self/ns/mnt", Fcntl.O_RDONLY | Fcntl.O_CLOEXEC), "open(/proc/self/ns/mnt)"));
            if (LinuxStat.InodeOf(mounts.Number) != LinuxStat.InodeOf(own.Number) && NamespaceRunner.RunInMounts(mounts, () => true))
                return mounts;
        }
        catch (SyscallException)
        {
            // Not permitted: another way is taken.
        }
        mounts.Dispose();
        return null;
    }

    private static (FileDescriptor Mounts, int Pid)? FindMaster()
    {
        if (PeerGroup("/proc/self/mountinfo", "master") is not { } group)
            return null;
        foreach (string directory in System.IO.Directory.EnumerateDirectories("/proc"))
        {
            if (int.TryParse(System.IO.Path.GetFileName(directory), out int pid) && PeerGroup($"{directory}/mountinfo", "shared") == group && TryOpenMounts(pid) is { } mounts)
                return (mounts, pid);
        }
        return null;
    }

    /// <summary>The peer group in the "shared:N" or "master:N" field of the mount that holds /run/netns (proc(5)).</summary>
    private static string? PeerGroup(string mountinfo, string field)
    {
        try
        {
            string? group = null;
            foreach (string line in File.ReadLines(mountinfo))
            {
                string[] fields = line.Split(' ');
                if (fields.Length > 6 && fields[4] == NamespaceReference.Directory)
                    group = GroupPattern().Matches(line).FirstOrDefault(match => match.Groups[1].Value == field)?.Groups[2].Value;
            }
            return group;
        }
        catch (IOException)
        {
            return null;
        }
        catch (UnauthorizedAccessException)
        {
            return null;
        }
    }

    [GeneratedRegex(@" (shared|master):(\d+)(?= )")]
    private static partial Regex GroupPattern();
}
