using VNetMesh.Agent.Namespaces;
using VNetMesh.Agent.Netlink;

namespace VNetMesh.Agent.HostChanges;

/// <summary>The host as changes see it.</summary>
public sealed class HostAccess(HostNamespaces namespaces)
{
    public HostNamespaces Namespaces { get; } = namespaces;

    /// <summary>Runs with netlink inside the namespace of that path and identity; an empty path is the agent's own.</summary>
    /// <returns>False where that namespace is gone (or the path leads to another): what was in it went with it.</returns>
    public bool TryInNamespace(string path, string identity, Action<RtNetlink> action)
    {
        if (path.Length == 0)
        {
            if (HostNamespaces.OwnIdentity() != identity)
                return false;
            WithNetlink(action);
            return true;
        }
        try
        {
            using NetworkNamespace space = Namespaces.Open(path);
            if (space.Identity != identity)
                return false;
            return space.Run(() =>
            {
                WithNetlink(action);
                return true;
            });
        }
        catch (NamespaceNotFoundException)
        {
            return false;
        }
    }

    private static void WithNetlink(Action<RtNetlink> action)
    {
        using RtNetlink netlink = RtNetlink.Open();
        action(netlink);
    }
}
