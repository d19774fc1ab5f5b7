namespace VNetMesh.Switch.Registry;

/// <summary>In what way the registry refused; each has one canonical gRPC code.</summary>
public enum RefusalKind
{
    Invalid,
    NotFound,
    AlreadyExists,
    Precondition,
    Exhausted,
    Aborted,
}

/// <summary>The registry refuses a change: an UPPER_SNAKE_CASE reason for programs and a sentence for people.</summary>
public sealed class RegistryException(RefusalKind kind, string reason, string message, params (string Key, string Value)[] metadata) : Exception(message)
{
    public RefusalKind Kind { get; } = kind;

    public string Reason { get; } = reason;

    public IReadOnlyList<(string Key, string Value)> Metadata { get; } = metadata;
}

/// <summary>Every refusal, each made in one place.</summary>
internal static class Refuse
{
    public static RegistryException Invalid(string reason, string message, params (string Key, string Value)[] metadata) =>
        new(RefusalKind.Invalid, reason, message, metadata);

    public static RegistryException NetworkNotFound(string name) =>
        new(RefusalKind.NotFound, "NETWORK_NOT_FOUND", $"there is no network '{name}'; `vnet network ls` shows those that there are", ("network", name));

    public static RegistryException NetworkExists(string name) =>
        new(RefusalKind.AlreadyExists, "NETWORK_EXISTS", $"{name} exists already; change it with an update, or choose another name", ("network", name));

    /// <param name="guests">Ids of the guests' ports on it.</param>
    public static RegistryException NetworkInUse(string name, IReadOnlyList<string> guests)
    {
        const int Named = 5;
        string listed = string.Join(", ", guests.Take(Named)) + (guests.Count > Named ? $" and {guests.Count - Named} more" : "");
        return new(RefusalKind.Precondition, "NETWORK_IN_USE", $"{name} has {guests.Count} guest port(s): {listed}; remove the guests first, or force the deletion", ("network", name), ("guests", guests.Count.ToString()));
    }

    public static RegistryException SubnetOverlaps(string subnet, string other, string otherSubnet) =>
        new(RefusalKind.Precondition, "SUBNET_OVERLAPS", $"{subnet} overlaps {otherSubnet} of {other}; choose another, or leave it empty to get a free one", ("subnet", subnet), ("network", other));

    public static RegistryException Ipv6PrefixOverlaps(string prefix, string other) =>
        new(RefusalKind.Precondition, "IPV6_PREFIX_OVERLAPS", $"{prefix} is the prefix of {other} already; choose another, or 'auto' to get one made up", ("prefix", prefix), ("network", other));

    public static RegistryException TooManyNetworks(int limit) =>
        new(RefusalKind.Exhausted, "TOO_MANY_NETWORKS", $"there are {limit} networks already, which is the limit; delete one first");

    public static RegistryException NoFreeSubnet() =>
        new(RefusalKind.Exhausted, "NO_FREE_SUBNET", "no /24 of 192.168.101.0 to 192.168.254.0 is free; name a subnet");

    public static RegistryException RevisionMismatch(string name, ulong asked, ulong current) =>
        new(RefusalKind.Aborted, "REVISION_MISMATCH", $"{name} is at revision {current}, not {asked}: someone changed it meanwhile; read it again", ("network", name), ("revision", current.ToString()));

    public static RegistryException PortNotFound(string name) =>
        new(RefusalKind.NotFound, "PORT_NOT_FOUND", $"there is no port '{name}'", ("port", name));

    public static RegistryException PortOwnedByOther(string name, string owner) =>
        new(RefusalKind.AlreadyExists, "PORT_OWNED_BY_OTHER", $"{name} belongs to '{owner}'; choose another port id", ("port", name), ("owner", owner));

    public static RegistryException PortExists(string name) =>
        new(RefusalKind.AlreadyExists, "PORT_EXISTS", $"{name} is attached and alive; choose another port id", ("port", name));

    public static RegistryException TooManyPorts(string network, int limit) =>
        new(RefusalKind.Exhausted, "TOO_MANY_PORTS", $"{network} has {limit} ports already, which is the limit; delete one first", ("network", network));
}
