using System.Security.Cryptography;
using VNetMesh.Packets;

namespace VNetMesh.Switch.Registry;

/// <summary>The IPv6 prefix of a network: checked, or made up.</summary>
internal static class Ipv6PrefixPlanner
{
    private const int PrefixLength = 64;

    /// <summary>2000::/3, global unicast (RFC 4291, 2.4), and fc00::/7, unique local (RFC 4193).</summary>
    private static readonly Ipv6Prefix[] Usable = [Ipv6Prefix.Parse("2000::/3"), Ipv6Prefix.Parse("fc00::/7")];

    /// <exception cref="RegistryException">IPV6_PREFIX_INVALID, IPV6_PREFIX_OVERLAPS.</exception>
    public static Ipv6Prefix? Complete(NetworkDraft draft, IReadOnlyCollection<NetworkDefinition> others)
    {
        if (string.IsNullOrEmpty(draft.Ipv6Prefix))
            return null;
        if (draft.Kind == NetworkKind.Bridged)
            throw Invalid("a bridged network has the LAN's prefixes: its ipv6_prefix must be empty");
        if (draft.Ipv6Prefix == NetworkPlanner.AutoPrefix)
            return MakeUp(others);
        if (!Ipv6Prefix.TryParse(draft.Ipv6Prefix, out Ipv6Prefix prefix) || prefix.Length != PrefixLength)
            throw Invalid($"'{draft.Ipv6Prefix}' is not a prefix such as fd12:3456:789a:1::/64 (length 64, the other bits zero); 'auto' makes one up");
        if (!Usable.Any(range => range.Contains(prefix.Network)))
            throw Invalid($"{prefix} cannot be used: a prefix must lie in 2000::/3 or fc00::/7; 'auto' makes one up");
        if (others.FirstOrDefault(other => other.Id != draft.Id && other.Ipv6Prefix == prefix) is { } owner)
            throw Refuse.Ipv6PrefixOverlaps(prefix.ToString(), owner.Name);
        return prefix;
    }

    /// <summary>fd00::/8, a global id of 40 random bits, subnet 0 (RFC 4193, 3.1 and 3.2.2).</summary>
    private static Ipv6Prefix MakeUp(IReadOnlyCollection<NetworkDefinition> others)
    {
        Span<byte> octets = stackalloc byte[Ipv6Address.Length];
        while (true)
        {
            octets.Clear();
            octets[0] = 0xFD;
            RandomNumberGenerator.Fill(octets[1..6]);
            var prefix = new Ipv6Prefix(Ipv6Address.Read(octets), PrefixLength);
            if (!others.Any(other => other.Ipv6Prefix == prefix))
                return prefix;
        }
    }

    private static RegistryException Invalid(string message) => Refuse.Invalid("IPV6_PREFIX_INVALID", message, ("field", "ipv6_prefix"));
}
