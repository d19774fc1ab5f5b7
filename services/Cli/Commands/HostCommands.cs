using System.CommandLine;
using System.Globalization;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;
using VNetMesh.V1;

namespace VNetMesh.Cli.Commands;

/// <summary>device ls; host changes.</summary>
internal static class HostCommands
{
    public static Command Devices(Services services, Output output)
    {
        var list = new Command("ls", "List the devices that the agent owns");
        Option<bool> json = RootCommands.JsonOption();
        list.Add(json);
        list.SetAction(async (parsed, cancellation) =>
        {
            ListDevicesResponse response = await services.Agent.ListDevicesAsync(new ListDevicesRequest(), deadline: Services.Soon, cancellationToken: cancellation);
            if (parsed.GetValue(json))
                output.WriteJson(response.Devices);
            else
                output.WriteTable(["interface", "kind", "port", "namespace", "address", "mtu", "connected"], [.. response.Devices.Select(DeviceRow)], "No devices.");
            return ExitCode.Ok;
        });
        return new Command("device", "Devices of the host adapters and guests") { list };
    }

    public static Command Host(Services services, Output output)
    {
        var changes = new Command("changes", "List everything that the agent changed on this host and has not undone");
        Option<bool> json = RootCommands.JsonOption();
        changes.Add(json);
        changes.SetAction(async (parsed, cancellation) =>
        {
            ListHostChangesResponse response = await services.Agent.ListHostChangesAsync(new ListHostChangesRequest(), deadline: Services.Soon, cancellationToken: cancellation);
            if (parsed.GetValue(json))
                output.WriteJson(response.Changes);
            else
                output.WriteTable(["kind", "what", "for", "done", "before"], [.. response.Changes.Select(ChangeRow)], "Nothing on this host is changed.");
            return ExitCode.Ok;
        });
        return new Command("host", "What was changed on this host") { changes };
    }

    private static string[] DeviceRow(Device device) =>
    [
        device.Interface, Units.Name(device.Kind), $"{Names.NetworkOf(device.Port)}/{Names.Short(device.Port)}", device.Netns.Length == 0 ? "the host's" : device.Netns,
        string.Join(" ", device.Ipv4Addresses), device.Mtu.ToString(CultureInfo.InvariantCulture), device.Connected ? "yes" : device.Condition.Length == 0 ? "no" : "no: " + device.Condition,
    ];

    private static string[] ChangeRow(HostChange change) =>
        [Units.Name(change.Kind), change.Target, change.Owner, change.Detail, change.Before.Length == 0 ? "–" : change.Before];
}
