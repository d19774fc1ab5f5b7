using System.Diagnostics;

namespace VNetMesh.Agent.Observability;

/// <summary>The agent's spans: a guest's creation with the device, the hand-off and the first DHCP exchange beneath it.</summary>
public static class AgentTelemetry
{
    public const string Name = "VNetMesh.Agent";

    public static readonly ActivitySource Source = new(Name);
}
