namespace VNetMesh.Benchmarks.Results;

/// <summary>A bound that VNetMesh is held to.</summary>
/// <param name="Peer">The system compared with; null: <paramref name="Bound"/> is a value in the metric's own unit.</param>
/// <param name="Bound">Of the ratio VNetMesh : peer, or of VNetMesh's value: at least where higher is better, else at most.</param>
public sealed record Target(string? Peer, double Bound);

/// <summary>One line of the table.</summary>
/// <param name="Name">Unique, "nat-tcp-1500-out-1".</param>
/// <param name="Group">"switch", "nat", "cost" or "attach".</param>
/// <param name="Title">For people.</param>
/// <param name="Unit">"Gbit/s".</param>
/// <param name="HigherIsBetter">Which way a target counts.</param>
/// <param name="Targets">None where none was set.</param>
public sealed record Metric(string Name, string Group, string Title, string Unit, bool HigherIsBetter, params IReadOnlyList<Target> Targets);
