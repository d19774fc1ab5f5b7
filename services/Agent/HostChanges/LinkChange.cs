using VNetMesh.Agent.Devices;
using VNetMesh.Agent.Namespaces;
using VNetMesh.Agent.Netlink;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Agent.HostChanges;

/// <summary>A TAP device. It bears an alias, "vnetmesh networks/vmnet8/ports/web1", by which it is known again as ours.</summary>
/// <param name="Netns">Path of its namespace; empty: the agent's own.</param>
/// <param name="NetnsIdentity">See <see cref="NetworkNamespace.Identity"/>.</param>
/// <param name="Index">The kernel's number; 0 until it is made.</param>
public sealed record LinkChange(string Owner, string Netns, string NetnsIdentity, string Interface, string Port, string Mac, uint Mtu, int Index = 0) : HostChange(Owner)
{
    /// <summary>ETH_MAX_MTU less the Ethernet header, the most that the kernel lets a TAP have.</summary>
    public const uint MaxMtu = 65521;

    public override ChangeKind Kind => ChangeKind.Link;

    public override string Target => Netns.Length == 0 ? Interface : $"{Interface} in {Netns}";

    private string Alias => "vnetmesh " + Port;

    public override string Describe() => $"made the TAP device {Interface} with address {Mac} for {Port}";

    /// <exception cref="InterfaceExistsException">An interface of that name is there.</exception>
    /// <exception cref="NamespaceNotFoundException">The namespace is gone.</exception>
    public override HostChange Do(HostAccess host)
    {
        int index = 0;
        if (!host.TryInNamespace(Netns, NetnsIdentity, netlink => index = Make(netlink)))
            throw new NamespaceNotFoundException(Netns, "it is gone");
        return this with { Index = index };
    }

    public override void Undo(HostAccess host) => host.TryInNamespace(Netns, NetnsIdentity, netlink =>
    {
        if (Find(netlink) is { } link)
            netlink.DeleteLink(link.Index);
    });

    public override bool IsStillThere(HostAccess host)
    {
        bool found = false;
        return host.TryInNamespace(Netns, NetnsIdentity, netlink => found = Find(netlink) is not null) && found;
    }

    /// <summary>The device, if it is there and ours, whatever it is called by now.</summary>
    public LinkInfo? Find(RtNetlink netlink)
    {
        LinkInfo? link = Index > 0 ? netlink.FindLink(Index) : netlink.FindLink(Interface);
        if (link is null || link.Kind != "tun")
            return null;
        // Interrupted between the making of the device and its alias.
        bool halfMade = Index == 0 && link.Alias.Length == 0;
        return link.Alias == Alias || halfMade ? link : null;
    }

    private int Make(RtNetlink netlink)
    {
        if (netlink.FindLink(Interface) is not null)
            throw new InterfaceExistsException(Interface, Netns);
        try
        {
            TapDevice.Create(Interface);
        }
        catch (SyscallException exception) when (exception.Errno == NativeErrno.EBUSY)
        {
            throw new InterfaceExistsException(Interface, Netns);
        }
        LinkInfo link = netlink.FindLink(Interface) ?? throw new NetlinkException($"get link {Interface}", NativeErrno.ENODEV, "");
        netlink.SetAlias(link.Index, Alias);
        netlink.SetMac(link.Index, MacAddress.Parse(Mac));
        netlink.SetMtu(link.Index, Math.Min(Mtu, MaxMtu));
        return link.Index;
    }
}

/// <summary>Somebody else's interface has the name.</summary>
public sealed class InterfaceExistsException(string name, string netns)
    : IOException(netns.Length == 0 ? $"an interface called {name} that VNetMesh did not make is on this host" : $"an interface called {name} is in {netns} already")
{
    public string Interface { get; } = name;
}
