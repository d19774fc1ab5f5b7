using System.Diagnostics;

namespace VNetMesh.Switch.Observability;

/// <summary>The switch's source of spans. Frames are counters, never spans.</summary>
public static class SwitchTelemetry
{
    public const string Name = "VNetMesh.Switch";

    public static readonly ActivitySource Source = new(Name);
}
