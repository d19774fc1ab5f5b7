namespace VNetMesh.Agent.Egress;

/// <summary>How a network's way out stands.</summary>
/// <param name="Network">"networks/{id}".</param>
/// <param name="Revision">The network's, for which this holds.</param>
/// <param name="IsActive">Guests' packets are forwarded.</param>
/// <param name="Interfaces">Of the host, by which they leave and answers come.</param>
/// <param name="Routes">What the outside needs, as commands.</param>
/// <param name="Conditions">What stands in the way.</param>
public sealed record EgressStatus(string Network, ulong Revision, bool IsActive, IReadOnlyList<string> Interfaces, IReadOnlyList<string> Routes, IReadOnlyList<string> Conditions);
