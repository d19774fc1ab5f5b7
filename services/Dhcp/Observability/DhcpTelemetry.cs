using System.Diagnostics;

namespace VNetMesh.Dhcp.Observability;

/// <summary>dhcp's source of spans: one trace for each exchange with a client.</summary>
public static class DhcpTelemetry
{
    public const string Name = "VNetMesh.Dhcp";

    public static readonly ActivitySource Source = new(Name);
}
