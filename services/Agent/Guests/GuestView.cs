namespace VNetMesh.Agent.Guests;

public enum GuestStatus
{
    Starting,
    Ready,
    Degraded,
}

/// <summary>A guest as it is: what was wanted, and what became of it.</summary>
/// <param name="Addresses">With prefix length, as on the interface.</param>
/// <param name="Conditions">What is missing, in plain words.</param>
/// <param name="ClientPid">0: no DHCP client runs.</param>
public sealed record GuestView(GuestSpec Spec, GuestStatus Status, IReadOnlyList<string> Addresses, IReadOnlyList<string> Conditions, int ClientPid)
{
    /// <summary>Where a VM's monitor connects to; empty for other guests.</summary>
    public string Socket { get; init; } = "";

    public bool Equals(GuestView? other) =>
        other is not null && Spec == other.Spec && Status == other.Status && ClientPid == other.ClientPid && Socket == other.Socket
        && Addresses.SequenceEqual(other.Addresses, StringComparer.Ordinal) && Conditions.SequenceEqual(other.Conditions, StringComparer.Ordinal);

    public override int GetHashCode() => HashCode.Combine(Spec, Status, ClientPid, Addresses.Count, Conditions.Count);
}
