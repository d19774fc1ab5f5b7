namespace VNetMesh.Hosting;

/// <summary>Where the services of one instance find each other and keep their state.</summary>
public sealed record RuntimePaths(string RunDirectory, string StateDirectory)
{
    public const string RunDirectoryVariable = "VNETMESH_RUN_DIR";
    public const string StateDirectoryVariable = "VNETMESH_STATE_DIR";
    public const string ConfigurationVariable = "VNETMESH_CONFIG";

    public string HandoffSocket => Path.Combine(RunDirectory, "handoff.sock");

    /// <summary>What the user declares; need not exist.</summary>
    public static string ConfigurationFile => Environment.GetEnvironmentVariable(ConfigurationVariable) ?? "/etc/vnetmesh/vnetmesh.yaml";

    /// <summary>/run/vnetmesh and /var/lib/vnetmesh, or what the environment says instead.</summary>
    public static RuntimePaths FromEnvironment() => new(
        Path.GetFullPath(NonEmpty(RunDirectoryVariable) ?? "/run/vnetmesh"),
        Path.GetFullPath(NonEmpty(StateDirectoryVariable) ?? "/var/lib/vnetmesh"));

    /// <summary>The gRPC socket of a service: switch, dhcp, nat or agent.</summary>
    public string Socket(string service) => Path.Combine(RunDirectory, service + ".sock");

    /// <summary>The HTTP socket that answers GET /metrics for Prometheus.</summary>
    public string MetricsSocket(string service) => Path.Combine(RunDirectory, service + ".metrics.sock");

    /// <summary>The directory in which a service keeps what must survive; its own alone.</summary>
    public string State(string service) => Path.Combine(StateDirectory, service);

    private static string? NonEmpty(string variable) => Environment.GetEnvironmentVariable(variable) is { Length: > 0 } value ? value : null;
}
