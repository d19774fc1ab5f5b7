using VNetMesh.Nat.Flows;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Forwards;

/// <summary>A port of the host that leads to a guest.</summary>
/// <param name="Network">"networks/{id}".</param>
/// <param name="Id">1 to 63 of [a-z0-9-]; unique in the network.</param>
/// <param name="Protocol">TCP or UDP.</param>
/// <param name="ListenAddress">An address of the host; 127.0.0.1: this host alone, 0.0.0.0: every address.</param>
/// <param name="ListenPort">1 to 65535.</param>
public sealed record ForwardRule(string Network, string Id, FlowProtocol Protocol, Ipv4Address ListenAddress, int ListenPort, Ipv4Address GuestAddress, int GuestPort);

/// <summary>A rule, and whether it is at work.</summary>
/// <param name="Condition">Why it does not listen; empty when it does.</param>
public sealed record ForwardStatus(ForwardRule Rule, bool Listening, string Condition);

/// <summary>The host did not let nat listen.</summary>
public sealed class ListenRefusedException(string message) : IOException(message);
