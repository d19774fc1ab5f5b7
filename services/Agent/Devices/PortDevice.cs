using VNetMesh.Agent.HostChanges;
using VNetMesh.Agent.Namespaces;
using VNetMesh.Agent.Netlink;

namespace VNetMesh.Agent.Devices;

/// <summary>
/// One TAP of ours and its port. It holds a netlink socket in the device's namespace and a queue, the same open file that
/// the switch has; so the device keeps its carrier and its frames wait while the switch is away.
/// </summary>
public sealed class PortDevice : IDisposable
{
    private readonly NetworkNamespace? _space;
    private readonly RtNetlink _netlink;
    private TapQueue? _queue;
    private bool _wasUp;

    /// <param name="link">The device as the journal has it.</param>
    /// <param name="space">Its namespace, which the caller keeps open; null is the agent's own.</param>
    /// <param name="isAdopted">It was made by an earlier process; the switch may have it already.</param>
    public PortDevice(PortSpec port, LinkChange link, NetworkNamespace? space, bool isAdopted)
    {
        (Port, Link, _space, IsAdopted, Mtu) = (port, link, space, isAdopted, link.Mtu);
        _netlink = NamespaceRunner.Run(space?.Descriptor, RtNetlink.Open);
    }

    public PortSpec Port { get; }

    public LinkChange Link { get; }

    /// <summary>Whether it is still to be seen if the switch has it from an earlier process.</summary>
    public bool IsAdopted { get; private set; }

    /// <summary>Whether the switch has a queue of it.</summary>
    public bool IsConnected { get; private set; }

    /// <summary>Why all is not well; empty when it is.</summary>
    public string Condition { get; set; } = "";

    /// <summary>What the network's MTU was when it was last set here.</summary>
    public uint Mtu { get; private set; }

    /// <returns>Null when the device is gone.</returns>
    public LinkInfo? Look() => Link.Find(_netlink);

    public IReadOnlyList<AddressInfo> Addresses() => _netlink.ListAddresses(Link.Index);

    public IReadOnlyList<Ipv6AddressInfo> Ipv6Addresses() => _netlink.ListIpv6Addresses(Link.Index);

    /// <summary>Brings MTU and state in line. A guest may lower its MTU, so it is set only when the network's changes.</summary>
    public void Configure(LinkInfo link, uint mtu)
    {
        if (mtu != Mtu)
            _netlink.SetMtu(link.Index, Math.Min(mtu, LinkChange.MaxMtu));
        Mtu = mtu;
        if (!link.IsUp && !_wasUp)
            _netlink.SetUp(link.Index, up: true);
        _wasUp = true;
    }

    /// <summary>The switch has told which of the agent's ports are up.</summary>
    public void Observe(bool isUp)
    {
        IsConnected = isUp;
        if (isUp && IsAdopted && _queue is null)
        {
            _queue = Attach();
            _queue.SetAside();
        }
    }

    public async Task ConnectAsync(IFabric fabric, CancellationToken cancellation)
    {
        _queue ??= Attach();
        _queue.TakeUp();
        IsAdopted = false;
        await fabric.ConnectAsync(Port, _queue, cancellation);
        IsConnected = true;
    }

    public void Disconnect() => IsConnected = false;

    /// <summary>Takes the device off, even where its namespace has lost its name.</summary>
    public void Delete()
    {
        if (Look() is { } link)
            _netlink.DeleteLink(link.Index);
    }

    public void Dispose()
    {
        _queue?.Dispose();
        _netlink.Dispose();
    }

    private TapQueue Attach()
    {
        string name = Look()?.Name ?? throw new IOException($"the device {Link.Target} is gone");
        TapQueue queue = NamespaceRunner.Run(_space?.Descriptor, () => TapDevice.Attach(name));
        if (_netlink.FindLink(name)?.Index == Link.Index)
            return queue;
        // It went away meanwhile, and the kernel made a new one of that name, which goes with the queue.
        queue.Dispose();
        throw new IOException($"the device {Link.Target} is gone");
    }
}
