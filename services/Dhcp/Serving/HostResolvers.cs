using System.Net;
using System.Net.Sockets;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Serving;

/// <summary>
/// The nameservers of the host that its guests can reach as well: those of resolv.conf(5) that are no loopback and no
/// link-local addresses. Where a resolver of the host's own stands in front of them (systemd-resolved, on 127.0.0.53), those
/// behind it are taken.
/// </summary>
public sealed class HostResolvers(params string[] paths)
{
    private const string PathVariable = "VNETMESH_RESOLV_CONF";
    private const int MaxFileLength = 64 * 1024;
    private const int MaxServers = 3; // as many as resolvers ask (resolv.conf(5), MAXNS)

    /// <summary>In the file's order.</summary>
    public sealed record List(IReadOnlyList<Ipv4Address> Ipv4, IReadOnlyList<Ipv6Address> Ipv6)
    {
        public bool Means(List other) => Ipv4.SequenceEqual(other.Ipv4) && Ipv6.SequenceEqual(other.Ipv6);
    }

    public static HostResolvers FromEnvironment() => Environment.GetEnvironmentVariable(PathVariable) is { Length: > 0 } path
        ? new HostResolvers(path)
        : new HostResolvers("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf");

    /// <summary>As they are now; empty where the files name none, or cannot be read.</summary>
    public List Read()
    {
        foreach (string path in paths)
        {
            List found = Parse(Lines(path));
            if (found.Ipv4.Count + found.Ipv6.Count > 0)
                return found;
        }
        return new List([], []);
    }

    internal static List Parse(IEnumerable<string> lines)
    {
        var ipv4 = new List<Ipv4Address>();
        var ipv6 = new List<Ipv6Address>();
        foreach (string line in lines)
        {
            string[] words = line.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
            if (words.Length < 2 || words[0] != "nameserver" || !IPAddress.TryParse(words[1], out IPAddress? address) || IPAddress.IsLoopback(address))
                continue;
            if (address.AddressFamily == AddressFamily.InterNetwork && Ipv4Address.From(address) is { IsReserved: false, IsMulticast: false, IsLinkLocal: false } known)
                ipv4.Add(known);
            else if (address.AddressFamily == AddressFamily.InterNetworkV6 && Ipv6Address.TryParse(words[1], out Ipv6Address other) && !other.IsLinkLocal && !other.IsUnspecified && !other.IsMulticast)
                ipv6.Add(other);
        }
        return new List([.. ipv4.Take(MaxServers)], [.. ipv6.Take(MaxServers)]);
    }

    private static string[] Lines(string path)
    {
        try
        {
            var file = new FileInfo(path);
            return file.Exists && file.Length <= MaxFileLength ? File.ReadAllLines(path) : [];
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }
}
