using VNetMesh.Benchmarks.Running;

namespace VNetMesh.Benchmarks.Systems;

/// <summary>Two guests on one switch.</summary>
/// <param name="Left">Where the load comes from.</param>
/// <param name="Right">Where it goes.</param>
/// <param name="RightAddress">IPv4 address of the right guest.</param>
/// <param name="Processes">Of the system under test; none where the kernel does it.</param>
public sealed record SwitchPath(NetworkNamespace Left, NetworkNamespace Right, string RightAddress, IReadOnlyList<int> Processes);

/// <summary>A guest that reaches the wan through the system under test.</summary>
/// <param name="Guest">Where clients run.</param>
/// <param name="Site">Its host and wan.</param>
/// <param name="Processes">Of the system under test; none where the kernel does it.</param>
public sealed record NatPath(NetworkNamespace Guest, Site Site, IReadOnlyList<int> Processes);

/// <summary>Names of the systems in tables and in JSON.</summary>
public static class SystemNames
{
    public const string VNetMesh = "vnetmesh";
    public const string Bridge = "bridge";
    public const string Vde = "vde_switch";
    public const string Veth = "veth";
    public const string Pasta = "pasta";
    public const string Slirp = "slirp4netns";

    /// <summary>VNetMesh by a VM's stream socket; "vnetmesh" is the TAP of `vnet vm run`.</summary>
    public const string VNetMeshSocket = "vnetmesh-socket";

    /// <summary>VNetMesh that exports nothing; "vnetmesh" of the same rows exports its traces, metrics and logs.</summary>
    public const string VNetMeshUntraced = "untraced";
    public const string QemuUser = "qemu-user";
    public const string Passt = "passt";

    /// <summary>In the order of the table's columns.</summary>
    public static readonly string[] Peers = [Bridge, Vde, Veth, Pasta, Slirp, VNetMeshSocket, QemuUser, Passt, VNetMeshUntraced];

    public static readonly string[] Switches = [VNetMesh, Bridge, Vde];
    public static readonly string[] Nats = [VNetMesh, Veth, Pasta, Slirp];
    public static readonly string[] Vms = [VNetMesh, VNetMeshSocket, QemuUser, Passt];
}
