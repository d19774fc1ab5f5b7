using System.Net;
using VNetMesh.Nat.Sockets;

namespace VNetMesh.Nat.Dns;

/// <summary>
/// The host's resolvers as resolv.conf(5) names them. Looks at the file's time and length when it is asked, at most once a
/// second, and reads it again when they changed. On the loop's thread.
/// </summary>
public sealed class ResolverList(string path)
{
    public const string PathVariable = "VNETMESH_RESOLV_CONF";
    public const int MaxServers = 8;

    private const int DnsPort = 53;
    private const int MaxFileLength = 64 * 1024;
    private const long LookMicroseconds = 1_000_000;

    private List<HostEndpoint> _servers = [];
    private DateTime _written;
    private long _length = -1;
    private long _nextLook = long.MinValue;

    public static ResolverList FromEnvironment() => new(Environment.GetEnvironmentVariable(PathVariable) is { Length: > 0 } path ? path : "/etc/resolv.conf");

    /// <summary>Raised by each change: a choice among servers made before it no longer holds.</summary>
    public int Version { get; private set; }

    /// <summary>In the file's order; empty when it names none or cannot be read.</summary>
    public IReadOnlyList<HostEndpoint> Current(long now)
    {
        if (now < _nextLook)
            return _servers;
        _nextLook = now + LookMicroseconds;
        try
        {
            var file = new FileInfo(path);
            (DateTime written, long length) = file.Exists ? (file.LastWriteTimeUtc, file.Length) : (default, -1);
            if (written == _written && length == _length)
                return _servers;
            List<HostEndpoint> servers = length is < 0 or > MaxFileLength ? [] : Parse(File.ReadLines(path));
            (_servers, _written, _length) = (servers, written, length);
            Version++;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            // Between two states of the file, or forbidden: what was known stays until the next look.
        }
        return _servers;
    }

    /// <summary>The addresses of "nameserver" lines; "address:port" says another port than 53.</summary>
    public static List<HostEndpoint> Parse(IEnumerable<string> lines)
    {
        var servers = new List<HostEndpoint>();
        foreach (string line in lines)
        {
            string[] words = line.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
            if (words.Length < 2 || words[0] != "nameserver" || servers.Count == MaxServers)
                continue;
            if (IPAddress.TryParse(words[1], out IPAddress? address))
                servers.Add(new HostEndpoint(address, DnsPort));
            else if (words[1].Contains(':', StringComparison.Ordinal) && IPEndPoint.TryParse(words[1], out IPEndPoint? endpoint))
                servers.Add(new HostEndpoint(endpoint.Address, endpoint.Port));
        }
        return servers;
    }
}
