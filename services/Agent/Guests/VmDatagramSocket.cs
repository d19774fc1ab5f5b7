using VNetMesh.Native;

namespace VNetMesh.Agent.Guests;

/// <summary>
/// The socket that one VM's monitor sends its frames to, and from which it gets them, at a place of its own beside it. The socket is the connection:
/// it is handed over at once, and again to each switch; the agent connects it when the monitor has made its own.
/// </summary>
internal sealed unsafe class VmDatagramSocket : VmSocket
{
    private readonly string _peer;

    /// <param name="path">Where it is made, for its owner alone.</param>
    /// <exception cref="IOException">It cannot be made.</exception>
    public VmDatagramSocket(string path)
        : base(path, SysSocket.SOCK_DGRAM) => _peer = PeerOf(path);

    public override bool IsAlwaysThere => true;

    public override bool HasMonitor => _hasPeer;

    private bool _hasPeer;

    /// <summary>Where the monitor makes its own.</summary>
    public static string PeerOf(string path) => path + ".peer";

    public override bool TryAccept()
    {
        Connection ??= Listener.Duplicate();
        return false;
    }

    /// <summary>Connects to the monitor that is there now; the switch's duplicate is connected with it.</summary>
    /// <returns>Whether there was one, and is none any more.</returns>
    public override bool DropEnded()
    {
        bool had = _hasPeer;
        uint length = SysSocket.WriteUnixAddress(_peer, out SysSocket.sockaddr_un address);
        _hasPeer = SysSocket.connect(Listener.Number, &address, length) >= 0;
        return had && !_hasPeer;
    }
}
