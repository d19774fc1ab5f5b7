using VNetMesh.Links;
using VNetMesh.Packets;
using VNetMesh.Switch.Capturing;
using VNetMesh.Switch.Observability;
using VNetMesh.Switch.Registry;

namespace VNetMesh.Switch.Forwarding;

/// <summary>
/// The forwarding threads and which network each of them owns. Its methods may be called from any thread but the loops'
/// own, one at a time for one network; they return before the loop has done its part unless they give a task.
/// </summary>
public sealed partial class ForwardingPlane : IDisposable
{
    private const int MaxLoops = 4;

    private readonly Lock _lock = new();
    private readonly EventLoop[] _loops;
    private readonly int[] _networksOnLoop;
    private readonly Dictionary<string, Placement> _networks = [];
    private readonly ForwardingSamples? _samples;
    private readonly ILogger<ForwardingPlane> _logger;

    public ForwardingPlane(ILogger<ForwardingPlane> logger, ForwardingSamples? samples = null)
    {
        _samples = samples;
        _logger = logger;
        _loops = new EventLoop[Math.Min(Environment.ProcessorCount, MaxLoops)];
        _networksOnLoop = new int[_loops.Length];
        for (int i = 0; i < _loops.Length; i++)
        {
            _loops[i] = new EventLoop($"forward-{i}", LogFault);
            _loops[i].Start();
        }
    }

    public IReadOnlyCollection<EventLoop> Loops => _loops;

    /// <summary>Begins to forward for a network, on the loop that has the fewest.</summary>
    public void AddNetwork(string name, ForwardingSettings settings, ILinkObserver observer)
    {
        lock (_lock)
        {
            int index = Array.IndexOf(_networksOnLoop, _networksOnLoop.Min());
            var forwarder = new NetworkForwarder(name, settings, _loops[index], observer, _samples?.For(name));
            _networks.Add(name, new Placement(forwarder, index));
            _networksOnLoop[index]++;
            _loops[index].Post(() => _loops[index].Add(forwarder));
        }
    }

    public void UpdateNetwork(string name, ForwardingSettings settings)
    {
        (NetworkForwarder forwarder, EventLoop loop) = Find(name);
        loop.Post(() => forwarder.Apply(settings, EventLoop.Now));
    }

    /// <summary>Lets go of a network and all its ports.</summary>
    public void RemoveNetwork(string name)
    {
        lock (_lock)
        {
            if (!_networks.Remove(name, out Placement placement))
                return;
            _networksOnLoop[placement.Loop]--;
            EventLoop loop = _loops[placement.Loop];
            loop.Post(() =>
            {
                placement.Forwarder.Close();
                loop.Remove(placement.Forwarder);
            });
        }
    }

    /// <summary>Makes a port without a link.</summary>
    public ForwardingPort AddPort(string network, string name, PortRole role)
    {
        (NetworkForwarder forwarder, EventLoop loop) = Find(network);
        ForwardingPort port = forwarder.CreatePort(name, role);
        loop.Post(() => forwarder.AddPort(port));
        return port;
    }

    public void RemovePort(ForwardingPort port) => LoopOf(port)?.Post(() => port.Network.RemovePort(port));

    public void SetRole(ForwardingPort port, PortRole role) => LoopOf(port)?.Post(() => port.Network.SetRole(port, role));

    /// <summary>Connects a link, which is the loop's from now on.</summary>
    /// <param name="connection">Names this connection to the observer.</param>
    /// <param name="released">Called on the loop when the link was let go; must not block.</param>
    /// <param name="done">Called on the loop with what went wrong, or null; must not block.</param>
    public void Connect(ForwardingPort port, IFrameLink link, long connection, Action<string>? released, Action<Exception?> done)
    {
        if (LoopOf(port) is not { } loop)
        {
            link.Dispose();
            done(new InvalidOperationException($"{port.Name}: its network was deleted"));
            return;
        }
        loop.Post(() =>
        {
            Exception? failure = null;
            try
            {
                port.Network.Connect(port, link, connection, released);
            }
            catch (Exception exception)
            {
                failure = exception;
            }
            done(failure);
        });
    }

    public void Disconnect(ForwardingPort port, long connection, string reason) => LoopOf(port)?.Post(() => port.Network.Disconnect(port, connection, reason));

    /// <summary>Addresses learned on a network, with their age in microseconds, in no order.</summary>
    public async Task<List<(MacAddress Address, string Port, long Age)>> ListMacsAsync(string network)
    {
        (NetworkForwarder forwarder, EventLoop loop) = Find(network);
        return await loop.InvokeAsync(() => forwarder.ListMacs(EventLoop.Now)).ConfigureAwait(false);
    }

    /// <summary>Begins to offer a network's frames to a capture; when the task is done, none goes by any more.</summary>
    public Task AddCaptureAsync(CaptureSession session) => OnLoopAsync(session, forwarder => forwarder.AddCapture(session));

    /// <summary>Ends a capture; when the task is done, nothing more is offered to it.</summary>
    public Task RemoveCaptureAsync(CaptureSession session) => OnLoopAsync(session, forwarder => forwarder.RemoveCapture(session));

    /// <summary>The network's counters; null when there is no such network.</summary>
    public NetworkForwarder? TryFind(string network)
    {
        lock (_lock)
            return _networks.TryGetValue(network, out Placement placement) ? placement.Forwarder : null;
    }

    public void Dispose()
    {
        foreach (EventLoop loop in _loops)
            loop.Dispose();
    }

    private async Task OnLoopAsync(CaptureSession session, Action<NetworkForwarder> action)
    {
        Placement placement;
        lock (_lock)
        {
            if (!_networks.TryGetValue(session.Options.Network, out placement))
            {
                session.End(CaptureEnd.NetworkRemoved);
                return;
            }
        }
        await _loops[placement.Loop].InvokeAsync(() =>
        {
            action(placement.Forwarder);
            return true;
        }).ConfigureAwait(false);
    }

    private (NetworkForwarder Forwarder, EventLoop Loop) Find(string network)
    {
        lock (_lock)
        {
            Placement placement = _networks[network];
            return (placement.Forwarder, _loops[placement.Loop]);
        }
    }

    private EventLoop? LoopOf(ForwardingPort port)
    {
        lock (_lock)
            return _networks.TryGetValue(port.Network.Name, out Placement placement) && placement.Forwarder == port.Network ? _loops[placement.Loop] : null;
    }

    [LoggerMessage(LogLevel.Error, "A forwarding thread met an unexpected error and goes on")]
    private partial void LogFault(Exception exception);

    private readonly record struct Placement(NetworkForwarder Forwarder, int Loop);
}
