using VNetMesh.Links;
using VNetMesh.Switch.Registry;

namespace VNetMesh.Switch.Forwarding;

/// <summary>A port as the data path has it. All but the name, the counters and <see cref="ReaderDrops"/> belongs to the network's loop.</summary>
public sealed class ForwardingPort : IReadyHandler
{
    internal ForwardingPort(NetworkForwarder network, string name, PortRole role)
    {
        Network = network;
        Name = name;
        Role = role;
    }

    /// <summary>"networks/vmnet8/ports/web1"</summary>
    public string Name { get; }

    public TrafficCounters Counters { get; } = new();

    /// <summary>Frames that never came to the loop: the reader of an Attach stream alone counts here.</summary>
    public TrafficCounters ReaderDrops { get; } = new();

    public NetworkForwarder Network { get; }

    /// <summary>Its hand-off, and what its client asks DHCP first, belong to it. Null: none, or told already. Any thread sets it, the loop takes it.</summary>
    internal PortBirth? Birth { get => Volatile.Read(ref _birth); set => Volatile.Write(ref _birth, value); }

    private PortBirth? _birth;

    internal int Index { get; set; }

    internal PortRole Role { get; set; }

    internal IFrameLink? Link { get; set; }

    /// <summary>Which connection <see cref="Link"/> is; chosen by the one who connects.</summary>
    internal long Connection { get; set; }

    /// <summary>Called when the link is let go, for whatever reason, with that reason.</summary>
    internal Action<string>? Released { get; set; }

    internal EventLoop.Registration Registration { get; set; }

    internal bool IsRemoved { get; set; }

    internal bool NeedsFlush { get; set; }

    internal bool IsDeferred { get; set; }

    public void OnReady(uint events, long now)
    {
        // One that has more than its share is served at the end of the turn, and not now as well.
        if (!IsDeferred)
            Network.Serve(this, now);
    }

    public long Drops(DropCause cause) => Counters.Drops(cause) + ReaderDrops.Drops(cause);
}

/// <summary>In which trace a port was registered.</summary>
/// <param name="Registered">Microseconds of the loops' clock.</param>
internal sealed record PortBirth(TraceContext Trace, long Registered);

/// <summary>Told of links that ended by themselves. Called on a loop's thread: must not block.</summary>
public interface ILinkObserver
{
    /// <param name="connection">The number that the link was connected under.</param>
    /// <param name="reason">Why, in plain words.</param>
    void OnLinkLost(ForwardingPort port, long connection, string reason);

    /// <summary>Two stations of a network have one address; told once as long as there are signs of it.</summary>
    void OnAddressConflict(string network, AddressConflict conflict)
    {
    }
}
