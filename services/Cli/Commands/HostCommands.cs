using System.CommandLine;
using System.Globalization;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;
using VNetMesh.V1;

namespace VNetMesh.Cli.Commands;

/// <summary>device ls; host changes.</summary>
internal static class HostCommands
{
    public static Command Devices(Services services, Output output) => new("device", "Devices of the host adapters and guests")
    {
        Verbs.List<Device>("ls", "List the devices that the agent owns", output,
            async cancellation => (await services.Agent.ListDevicesAsync(new ListDevicesRequest(), deadline: Services.Soon, cancellationToken: cancellation)).Devices,
            all => output.WriteTable(["interface", "kind", "port", "namespace", "address", "mtu", "connected"], [.. all.Select(DeviceRow)], "No devices.")),
    };

    public static Command Host(Services services, Output output) => new("host", "What was changed on this host")
    {
        Verbs.List<HostChange>("changes", "List everything that the agent changed on this host and has not undone", output,
            async cancellation => (await services.Agent.ListHostChangesAsync(new ListHostChangesRequest(), deadline: Services.Soon, cancellationToken: cancellation)).Changes,
            all => output.WriteTable(["kind", "what", "for", "done", "before"], [.. all.Select(ChangeRow)], "Nothing on this host is changed.")),
    };

    private static string[] DeviceRow(Device device) =>
    [
        device.Interface, Units.Name(device.Kind), $"{Names.NetworkOf(device.Port)}/{Names.Short(device.Port)}", device.Netns.Length == 0 ? "the host's" : device.Netns,
        string.Join(" ", device.Ipv4Addresses), device.Mtu.ToString(CultureInfo.InvariantCulture), device.Connected ? "yes" : device.Condition.Length == 0 ? "no" : "no: " + device.Condition,
    ];

    private static string[] ChangeRow(HostChange change) =>
        [Units.Name(change.Kind), change.Target, change.Owner, change.Detail, change.Before.Length == 0 ? "–" : change.Before];
}
