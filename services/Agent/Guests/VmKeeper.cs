using VNetMesh.Agent.Devices;
using VNetMesh.Agent.HostChanges;
using VNetMesh.Agent.Observability;
using VNetMesh.Hosting;
using VNetMesh.Links;

namespace VNetMesh.Agent.Guests;

/// <summary>
/// Brings the ports of VMs in line: for each a socket, {run}/vm/ID.sock, to which the VM's monitor connects, and whose
/// connection is handed to the switch. Not for two threads at a time, but for <see cref="Woken"/>.
///
///   what happens                      what is done
///   a VM connects                     its connection is taken, and a duplicate handed to the switch
///   it ends (QEMU exits)              the switch tells that the port is down; the connection is let go, the socket stays
///   kill -9 of the switch             a duplicate is handed over again; the switch leaves the stream between two frames at
///                                     every moment, so that the VM notices nothing
///   kill -9 of the agent              the switch goes on with the connection; the socket is made anew. Only the death of the
///                                     switch as well ends the connection
/// </summary>
public sealed partial class VmKeeper(ChangeJournal journal, RuntimePaths paths, IFabric fabric, AgentMetrics metrics, ILogger<VmKeeper> logger) : IDisposable
{
    private readonly Dictionary<string, VmSocket> _sockets = new(StringComparer.Ordinal);
    private EventLoop? _loop;
    private HashSet<string>? _upPorts;

    /// <summary>Told, on a thread of the keeper's, that a pass is worth while.</summary>
    public event Action? Woken;

    /// <summary>Where a VM's monitor connects to.</summary>
    public string PathOf(GuestSpec guest) => Path.Combine(paths.RunDirectory, "vm", guest.Id + ".sock");

    /// <exception cref="IOException">The socket cannot be made.</exception>
    public void Make(GuestRuntime guest) => Ensure(guest.Spec);

    /// <param name="network">Null where it does not exist, or is not known (yet).</param>
    public async Task ReconcileAsync(GuestRuntime guest, NetworkSpec? network, bool networksKnown, CancellationToken cancellation)
    {
        GuestSpec spec = guest.Spec;
        var conditions = new List<string>();
        bool isConnected = false;
        try
        {
            VmSocket socket = Ensure(spec);
            if (socket.DropEnded())
                LogEnded(spec.Name);
            // Up without a connection of ours: the switch has it from an earlier life of this agent.
            bool isTaken = _upPorts?.Contains(spec.Port.Name) ?? true;
            if (network is null)
                conditions.Add(networksKnown ? $"the network networks/{spec.NetworkId} does not exist" : "the switch has not told its networks yet");
            else
            {
                if (socket.Connection is null && !isTaken && socket.TryAccept())
                    LogConnected(spec.Name);
                await HandOverAsync(spec, socket, cancellation);
                if (socket.Connection is not null && !socket.IsHandedOver)
                    conditions.Add(socket.Condition.Length > 0 ? socket.Condition : "the switch is away");
                isConnected = socket.Connection is not null ? socket.IsHandedOver : _upPorts is not null && isTaken;
            }
        }
        catch (IOException exception)
        {
            conditions.Add(exception.Message);
        }
        GuestStatus status = conditions.Count > 0 ? GuestStatus.Degraded : isConnected ? GuestStatus.Ready : GuestStatus.Starting;
        guest.View = new GuestView(spec, status, [], conditions, 0) { Socket = PathOf(spec) };
    }

    /// <summary>Takes the port's socket off the host; the caller deletes the port.</summary>
    public void Remove(GuestSpec guest)
    {
        if (_sockets.Remove(guest.Name, out VmSocket? socket))
            socket.Dispose();
        foreach ((long id, _) in journal.Of<SocketChange>(guest.Name).ToList())
            journal.Undo(id);
    }

    public void ObserveAll(IReadOnlySet<string> upPorts)
    {
        _upPorts = [.. upPorts];
        foreach ((string name, VmSocket socket) in _sockets)
            socket.IsHandedOver &= upPorts.Any(port => IsPortOf(port, name));
    }

    public void ObserveOne(string port, bool isUp)
    {
        if (isUp)
            _upPorts?.Add(port);
        else
            _upPorts?.Remove(port);
        foreach ((string name, VmSocket socket) in _sockets)
        {
            if (IsPortOf(port, name))
                socket.IsHandedOver &= isUp;
        }
    }

    public void ObserveNothing()
    {
        _upPorts = null;
        foreach (VmSocket socket in _sockets.Values)
            socket.IsHandedOver = false;
    }

    public void Dispose()
    {
        foreach (VmSocket socket in _sockets.Values)
            socket.Dispose();
        _sockets.Clear();
        _loop?.Dispose();
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

    private VmSocket Ensure(GuestSpec spec)
    {
        string path = PathOf(spec);
        if (_sockets.TryGetValue(spec.Name, out VmSocket? socket) && File.Exists(path))
            return socket;
        if (_sockets.Remove(spec.Name, out socket))
            socket.Dispose();
        foreach ((long id, _) in journal.Of<SocketChange>(spec.Name).ToList())
            journal.Undo(id);
        journal.Perform(new SocketChange(spec.Name, path));
        return _sockets[spec.Name] = new VmSocket(path, Loop(), () => Woken?.Invoke());
    }

    private EventLoop Loop()
    {
        if (_loop is not null)
            return _loop;
        _loop = new EventLoop("vm-sockets", LogFault);
        _loop.Start();
        return _loop;
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

    [LoggerMessage(LogLevel.Error, "the loop of the VMs' sockets met an unexpected error and goes on")]
    private partial void LogFault(Exception exception);
}
