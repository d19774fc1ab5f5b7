using VNetMesh.Agent.Devices;
using VNetMesh.Agent.Observability;

namespace VNetMesh.Agent.Guests;

/// <summary>
/// Brings the ports of VMs in line: for each a socket, {run}/vm/ID.sock, to which the VM's monitor connects, and whose
/// connection is handed to the switch; or {run}/vm/ID.dgram, to which it sends its frames. Not for two threads at a time.
///
///   what happens                      what is done
///   a VM connects                     its connection is taken, and a duplicate handed to the switch
///   it ends (QEMU exits)              the switch tells that the port is down; the connection is let go, the socket stays
///   kill -9 of the switch             a duplicate is handed over again; the switch leaves the stream between two frames at
///                                     every moment, so that the VM notices nothing
///   kill -9 of the agent              the switch goes on with the connection; the socket is made anew. Only the death of the
///                                     switch as well ends the connection
///
/// A datagram socket is handed over as soon as it is made, and knows neither connections nor their ends.
/// </summary>
public sealed partial class VmKeeper(VmDoors doors, IFabric fabric, AgentMetrics metrics, ILogger<VmKeeper> logger)
{
    private HashSet<string>? _upPorts;

    /// <param name="network">Null where it does not exist, or is not known (yet).</param>
    public async Task ReconcileAsync(GuestRuntime guest, NetworkSpec? network, bool networksKnown, CancellationToken cancellation)
    {
        GuestSpec spec = guest.Spec;
        var conditions = new List<string>();
        bool isConnected = false;
        try
        {
            VmSocket socket = doors.Ensure(spec);
            if (socket.DropEnded())
                LogEnded(spec.Name);
            // Up without a connection of ours: the switch has it from an earlier life of this agent.
            bool isTaken = _upPorts?.Contains(spec.Port.Name) ?? true;
            if (network is null)
                conditions.Add(networksKnown ? $"the network networks/{spec.NetworkId} does not exist" : "the switch has not told its networks yet");
            else
            {
                if (socket.Connection is null && (!isTaken || socket.IsAlwaysThere) && socket.TryAccept())
                    LogConnected(spec.Name);
                await HandOverAsync(spec, socket, cancellation);
                if (socket.Connection is not null && !socket.IsHandedOver)
                    conditions.Add(socket.Condition.Length > 0 ? socket.Condition : "the switch is away");
                isConnected = socket.Connection is not null ? socket.IsHandedOver && socket.HasMonitor : _upPorts is not null && isTaken;
            }
        }
        catch (IOException exception)
        {
            conditions.Add(exception.Message);
        }
        GuestStatus status = conditions.Count > 0 ? GuestStatus.Degraded : isConnected ? GuestStatus.Ready : GuestStatus.Starting;
        guest.View = new GuestView(spec, status, [], conditions, 0) { Socket = doors.PathOf(spec) };
    }

    public void ObserveAll(IReadOnlySet<string> upPorts)
    {
        _upPorts = [.. upPorts];
        foreach ((string name, VmSocket socket) in doors.All)
            socket.IsHandedOver &= upPorts.Any(port => IsPortOf(port, name));
    }

    public void ObserveOne(string port, bool isUp)
    {
        if (isUp)
            _upPorts?.Add(port);
        else
            _upPorts?.Remove(port);
        foreach ((string name, VmSocket socket) in doors.All)
        {
            if (IsPortOf(port, name))
                socket.IsHandedOver &= isUp;
        }
    }

    public void ObserveNothing()
    {
        _upPorts = null;
        foreach ((_, VmSocket socket) in doors.All)
            socket.IsHandedOver = false;
    }

    private async Task HandOverAsync(GuestSpec spec, VmSocket socket, CancellationToken cancellation)
    {
        if (socket.Connection is null || socket.IsHandedOver || !fabric.IsReachable)
            return;
        try
        {
            await fabric.ConnectAsync(spec.Port, socket.Connection, cancellation);
            metrics.HandedOver(succeeded: true);
            socket.IsHandedOver = true;
            socket.Condition = "";
            LogHandedOver(spec.Name);
        }
        catch (IOException exception)
        {
            metrics.HandedOver(succeeded: false);
            if (socket.Condition != exception.Message)
                LogNotHandedOver(spec.Name, exception.Message);
            socket.Condition = exception.Message;
        }
    }

    /// <param name="port">"networks/vmnet8/ports/web1"</param>
    /// <param name="guest">"guests/web1"</param>
    private static bool IsPortOf(string port, string guest) => port.EndsWith("/ports/" + guest["guests/".Length..], StringComparison.Ordinal);

    [LoggerMessage(LogLevel.Information, "{Guest}: a VM has connected to its socket")]
    private partial void LogConnected(string guest);

    [LoggerMessage(LogLevel.Information, "{Guest}: the VM's connection has ended")]
    private partial void LogEnded(string guest);

    [LoggerMessage(LogLevel.Information, "{Guest}: handed the VM's connection to the switch")]
    private partial void LogHandedOver(string guest);

    [LoggerMessage(LogLevel.Warning, "{Guest}: could not hand the VM's connection to the switch, trying again: {Reason}")]
    private partial void LogNotHandedOver(string guest, string reason);
}
