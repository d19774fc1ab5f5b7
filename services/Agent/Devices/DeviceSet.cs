using System.Diagnostics;
using VNetMesh.Agent.HostChanges;
using VNetMesh.Agent.Namespaces;
using VNetMesh.Agent.Netlink;
using VNetMesh.Agent.Observability;

namespace VNetMesh.Agent.Devices;

/// <summary>All devices that the agent has, by their owner ("networks/vmnet8", "guests/web1"). Not for two threads at a time.</summary>
public sealed partial class DeviceSet(ChangeJournal journal, IFabric fabric, AgentMetrics metrics, ILogger<DeviceSet> logger) : IDisposable
{
    private readonly SortedDictionary<string, PortDevice> _devices = new(StringComparer.Ordinal);
    private HashSet<string>? _upPorts;

    public IReadOnlyDictionary<string, PortDevice> All => _devices;

    /// <summary>The device of an owner, made where it is not there; up, and with the network's MTU.</summary>
    /// <param name="space">Its namespace, kept open by the caller as long as the device; null is the agent's own.</param>
    /// <exception cref="InterfaceExistsException">The name is taken by a device that is not ours.</exception>
    public PortDevice Ensure(string owner, PortSpec port, NetworkNamespace? space, string @interface, uint mtu)
    {
        PortDevice device = Find(owner, port, space, @interface) ?? Make(owner, port, space, @interface, mtu);
        LinkInfo link = device.Look() ?? throw new IOException($"the device {device.Link.Target} was removed as soon as it was made");
        device.Configure(link, mtu);
        return device;
    }

    /// <summary>The device of an owner where it is there, be it from an earlier process.</summary>
    public PortDevice? Find(string owner, PortSpec port, NetworkNamespace? space, string @interface)
    {
        if (!_devices.TryGetValue(owner, out PortDevice? device))
            return Adopt(owner, port, space, @interface);
        if (device.Look() is not null)
            return device;
        LogGone(device.Link.Target);
        Drop(owner, undo: true);
        return null;
    }

    /// <summary>Hands the device to the switch where the switch does not have it.</summary>
    /// <returns>Whether the switch has it now.</returns>
    public async Task<bool> ConnectAsync(PortDevice device, CancellationToken cancellation)
    {
        if (device.IsAdopted && _upPorts is not null)
            device.Observe(_upPorts.Contains(device.Port.Name));
        if (device.IsConnected || !fabric.IsReachable)
            return device.IsConnected;
        using Activity? activity = AgentTelemetry.Source.StartActivity("agent.handoff");
        activity?.SetTag("vnetmesh.port", device.Port.Name);
        try
        {
            await device.ConnectAsync(fabric, cancellation);
            metrics.HandedOver(succeeded: true);
            LogConnected(device.Link.Target, device.Port.Name);
            device.Condition = "";
        }
        catch (Exception exception) when (exception is IOException)
        {
            metrics.HandedOver(succeeded: false);
            activity?.SetStatus(ActivityStatusCode.Error, exception.Message);
            if (device.Condition != exception.Message)
                LogNotConnected(device.Link.Target, exception.Message);
            device.Condition = exception.Message;
        }
        return device.IsConnected;
    }

    /// <summary>The switch has told all ports that are up and the agent's.</summary>
    public void ObserveAll(IReadOnlySet<string> upPorts)
    {
        _upPorts = [.. upPorts];
        foreach (PortDevice device in _devices.Values)
            device.Observe(upPorts.Contains(device.Port.Name));
    }

    /// <summary>One port has changed; a port that was just registered waits for its hand-over, which is under way.</summary>
    public void ObserveOne(string port, bool isUp)
    {
        if (isUp)
            _upPorts?.Add(port);
        else
            _upPorts?.Remove(port);
        foreach (PortDevice device in _devices.Values)
        {
            if (device.Port.Name == port)
                device.Observe(isUp);
        }
    }

    /// <summary>The switch is away.</summary>
    public void ObserveNothing()
    {
        _upPorts = null;
        foreach (PortDevice device in _devices.Values)
            device.Disconnect();
    }

    /// <summary>Lets go of an owner's device and, where asked, takes it off the host.</summary>
    public void Drop(string owner, bool undo)
    {
        if (_devices.Remove(owner, out PortDevice? device))
        {
            using (device)
            {
                if (undo)
                    device.Delete();
            }
        }
        if (!undo)
            return;
        foreach ((long id, LinkChange link) in journal.Of<LinkChange>(owner).ToList())
        {
            journal.Undo(id);
            LogRemoved(link.Target);
        }
    }

    public void Dispose()
    {
        foreach (PortDevice device in _devices.Values)
            device.Dispose();
        _devices.Clear();
    }

    private PortDevice? Adopt(string owner, PortSpec port, NetworkNamespace? space, string @interface)
    {
        foreach ((long id, LinkChange link) in journal.Of<LinkChange>(owner).ToList())
        {
            bool fits = link.Port == port.Name && link.Interface == @interface && link.NetnsIdentity == (space?.Identity ?? HostNamespaces.OwnIdentity());
            if (fits)
            {
                var device = new PortDevice(port, link, space, isAdopted: true);
                if (device.Look() is not null)
                {
                    LogAdopted(link.Target);
                    return _devices[owner] = device;
                }
                device.Dispose();
            }
            journal.Undo(id);
        }
        return null;
    }

    private PortDevice Make(string owner, PortSpec port, NetworkNamespace? space, string @interface, uint mtu)
    {
        using Activity? activity = AgentTelemetry.Source.StartActivity("agent.device.create");
        activity?.SetTag("vnetmesh.port", port.Name);
        LinkChange link = journal.Perform(new LinkChange(owner, space?.Path ?? "", space?.Identity ?? HostNamespaces.OwnIdentity(), @interface, port.Name, port.Mac.ToString(), mtu));
        LogMade(link.Target, link.Mac, port.Name);
        return _devices[owner] = new PortDevice(port, link, space, isAdopted: false);
    }

    [LoggerMessage(LogLevel.Information, "made the device {Device} with address {Mac} for {Port}")]
    private partial void LogMade(string device, string mac, string port);

    [LoggerMessage(LogLevel.Information, "took over the device {Device} that was there")]
    private partial void LogAdopted(string device);

    [LoggerMessage(LogLevel.Information, "removed the device {Device}")]
    private partial void LogRemoved(string device);

    [LoggerMessage(LogLevel.Warning, "the device {Device} was removed by somebody; it is made again")]
    private partial void LogGone(string device);

    [LoggerMessage(LogLevel.Information, "handed {Device} to the switch for {Port}")]
    private partial void LogConnected(string device, string port);

    [LoggerMessage(LogLevel.Warning, "could not hand {Device} to the switch, trying again: {Reason}")]
    private partial void LogNotConnected(string device, string reason);
}
