using VNetMesh.Agent.HostChanges;
using VNetMesh.Hosting;
using VNetMesh.Links;
using VNetMesh.Native;

namespace VNetMesh.Agent.Guests;

/// <summary>The sockets in {run}/vm, one for each VM. Not for two threads at a time, but for <see cref="Woken"/>.</summary>
public sealed partial class VmDoors(ChangeJournal journal, RuntimePaths paths, ILogger<VmDoors> logger) : IDisposable
{
    private readonly Dictionary<string, VmSocket> _sockets = new(StringComparer.Ordinal);
    private EventLoop? _loop;

    /// <summary>Told, on a thread of the doors', that somebody has connected, and a pass is worth while.</summary>
    public event Action? Woken;

    internal IEnumerable<(string Guest, VmSocket Socket)> All => _sockets.Select(pair => (pair.Key, pair.Value));

    public string PathOf(GuestSpec guest) => Path.Combine(paths.RunDirectory, "vm", guest.Id + guest.VmLink switch
    {
        VmLink.Tap => ".tap",
        VmLink.Datagram => ".dgram",
        _ => ".sock",
    });

    /// <summary>The socket of a VM, made where it is not there.</summary>
    /// <exception cref="IOException">It cannot be made.</exception>
    internal VmSocket Ensure(GuestSpec guest)
    {
        string path = PathOf(guest);
        if (_sockets.TryGetValue(guest.Name, out VmSocket? socket) && File.Exists(path))
            return socket;
        // The monitor's own stays: it may be running.
        Remove(guest, change => !change.IsMonitors);
        journal.Perform(new SocketChange(guest.Name, path));
        if (guest.VmLink == VmLink.Datagram)
        {
            if (!journal.Of<SocketChange>(guest.Name).Any(entry => entry.Change.IsMonitors))
                journal.Perform(new SocketChange(guest.Name, VmDatagramSocket.PeerOf(path)) { IsMonitors = true });
            return _sockets[guest.Name] = new VmDatagramSocket(path);
        }
        return _sockets[guest.Name] = new VmSocket(path, guest.IsTapVm ? SysSocket.SOCK_SEQPACKET : SysSocket.SOCK_STREAM, Loop(), () => Woken?.Invoke());
    }

    /// <summary>Takes a VM's socket off the host.</summary>
    public void Remove(GuestSpec guest) => Remove(guest, _ => true);

    public void Dispose()
    {
        foreach (VmSocket socket in _sockets.Values)
            socket.Dispose();
        _sockets.Clear();
        _loop?.Dispose();
    }

    private void Remove(GuestSpec guest, Func<SocketChange, bool> which)
    {
        if (_sockets.Remove(guest.Name, out VmSocket? socket))
            socket.Dispose();
        foreach ((long id, SocketChange change) in journal.Of<SocketChange>(guest.Name).ToList())
        {
            if (which(change))
                journal.Undo(id);
        }
    }

    private EventLoop Loop()
    {
        if (_loop is not null)
            return _loop;
        _loop = new EventLoop("vm-sockets", LogFault);
        _loop.Start();
        return _loop;
    }

    [LoggerMessage(LogLevel.Error, "the loop of the VMs' sockets met an unexpected error and goes on")]
    private partial void LogFault(Exception exception);
}
