using System.CommandLine;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;

namespace VNetMesh.Cli.Commands;

/// <summary>The tree of commands.</summary>
internal static class RootCommands
{
    private const string Description = """
        Virtual networks for VMs, containers and network namespaces.

        Exit codes: 0 done, 1 failed, 2 wrong usage or value, 3 not permitted, 4 the services are not running,
        5 not found, 6 exists already, 7 refused as things stand, 8 apply --dry-run found differences. Errors are one line on standard error.

        Environment: VNETMESH_RUN_DIR (/run/vnetmesh), VNETMESH_STATE_DIR (/var/lib/vnetmesh),
        VNETMESH_CONFIG (/etc/vnetmesh/vnetmesh.yaml), VNETMESH_LOG_LEVEL (Information), and OTEL_* for telemetry.
        """;

    public static RootCommand Create(Services services, Output output) => new(Description)
    {
        LifeCommands.Up(services),
        LifeCommands.Down(services),
        LifeCommands.Status(services, output),
        LifeCommands.Supervise(services),
        DemoCommand.Create(services, output),
        DemoCommand.Serve(),
        ApplyCommands.Apply(services, output),
        ApplyCommands.Export(services, output),
        NetworkCommands.Create(services, output),
        PortCommands.Create(services, output),
        PortCommands.Macs(services, output),
        CaptureCommand.Create(services, output),
        DoctorCommand.Create(services, output),
        GuestCommands.Create(services, output),
        VmCommands.Create(services, output),
        DhcpCommands.Leases(services, output),
        DhcpCommands.Reservations(services, output),
        NatCommands.Create(services, output),
        TraceCommands.Flow(services, output),
        TraceCommands.Trace(services, output),
        HostCommands.Devices(services, output),
        HostCommands.Host(services, output),
        LogCommands.Create(services, output),
    };

    /// <summary>--json, for every listing.</summary>
    public static Option<bool> JsonOption() => new("--json") { Description = "Print JSON (protobuf's JSON mapping) instead of a table" };
}
