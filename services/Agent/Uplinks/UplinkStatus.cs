namespace VNetMesh.Agent.Uplinks;

/// <summary>How a network's uplink stands.</summary>
/// <param name="Network">"networks/{id}".</param>
/// <param name="Revision">The network's, for which this holds.</param>
/// <param name="Interface">The NIC; empty while there is none.</param>
/// <param name="IsActive">Frames go.</param>
/// <param name="Conditions">What stands in the way.</param>
/// <param name="Drops">The pcap driver's, by cause.</param>
public sealed record UplinkStatus(string Network, ulong Revision, string Interface, bool IsActive, IReadOnlyList<string> Conditions, IReadOnlyDictionary<string, long> Drops);

/// <summary>An interface cannot be an uplink: an UPPER_SNAKE_CASE reason for programs and a sentence for people.</summary>
public sealed class UplinkException(string reason, string message) : IOException(message)
{
    public string Reason { get; } = reason;
}
