using System.Globalization;
using Grpc.Core;
using VNetMesh.Cli.Connections;
using VNetMesh.V1;

namespace VNetMesh.Cli.Commands;

/// <summary>Containers as guests: `vnet guest add NAME --container CONTAINER`.</summary>
internal static class ContainerGuests
{
    /// <summary>
    /// The process whose namespace the guest is to be in. A guest of the same name and container that was plugged into what the
    /// container had before it was restarted makes room: so the same command, given again, always plugs it in.
    /// </summary>
    /// <exception cref="CliException">There is no engine, no such container, or it does not run.</exception>
    public static async Task<string> FindAsync(Services services, string id, string container, CancellationToken cancellation)
    {
        string process = (await ContainerEngine.FindProcessAsync(container, cancellation)).ToString(CultureInfo.InvariantCulture);
        try
        {
            Guest old = (await services.Agent.GetGuestAsync(new GetGuestRequest { Name = Names.Guest(id) }, deadline: Services.Soon, cancellationToken: cancellation)).Guest;
            if (IsOfEarlierRun(old, container, process))
                await services.Agent.DeleteGuestAsync(new DeleteGuestRequest { Name = old.Name }, deadline: DateTime.UtcNow.AddSeconds(30), cancellationToken: cancellation);
        }
        catch (RpcException exception) when (exception.StatusCode == StatusCode.NotFound)
        {
            // The usual case: it is new.
        }
        return process;
    }

    /// <summary>
    /// Whether the guest is of this container, in a namespace that the container has no more. Its state does not say so at once: the agent
    /// looks every second, and a container may be back before.
    /// </summary>
    internal static bool IsOfEarlierRun(Guest guest, string container, string process) =>
        guest.Container == container && guest.Netns != $"/proc/{process}/ns/net";
}
