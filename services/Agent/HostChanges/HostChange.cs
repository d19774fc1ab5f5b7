using System.Text.Json.Serialization;

namespace VNetMesh.Agent.HostChanges;

public enum ChangeKind
{
    Link = 1,
    Address = 2,
    Netns = 3,
    Sysctl = 4,
    File = 5,
    Process = 6,
    Firewall = 10,
    TrafficControl = 11,
    Promiscuous = 12,
}

/// <summary>
/// One change of the host: how to make it, to tell of it, to see whether it still stands, and to take it back. A change is
/// data, so that it can be written down before it is made.
/// </summary>
/// <param name="Owner">"networks/vmnet8", "uplinks/vmnet0", "guests/web1" or "agent".</param>
[JsonDerivedType(typeof(LinkChange), "link")]
[JsonDerivedType(typeof(AddressChange), "address")]
[JsonDerivedType(typeof(Ipv6AddressChange), "ipv6-address")]
[JsonDerivedType(typeof(ForwardingChange), "forwarding")]
[JsonDerivedType(typeof(Ipv6ForwardingChange), "ipv6-forwarding")]
[JsonDerivedType(typeof(NftTableChange), "nft-table")]
[JsonDerivedType(typeof(ClsactChange), "clsact")]
[JsonDerivedType(typeof(PromiscuousChange), "promiscuous")]
[JsonDerivedType(typeof(BridgingChange), "bridging")]
[JsonDerivedType(typeof(NetnsChange), "netns")]
[JsonDerivedType(typeof(SysctlChange), "sysctl")]
[JsonDerivedType(typeof(FileChange), "file")]
[JsonDerivedType(typeof(DirectoryChange), "directory")]
[JsonDerivedType(typeof(ProcessChange), "process")]
[JsonDerivedType(typeof(SocketChange), "socket")]
[JsonDerivedType(typeof(VmTapChange), "vm_tap")]
public abstract record HostChange(string Owner)
{
    public abstract ChangeKind Kind { get; }

    /// <summary>What is changed: an interface, a path, a sysctl's name.</summary>
    public abstract string Target { get; }

    /// <summary>The value before; empty where there was none.</summary>
    public virtual string Before => "";

    /// <summary>Whether a restart of the machine undoes it.</summary>
    public virtual bool EndsWithBoot => true;

    /// <summary>What is done, in plain words.</summary>
    public abstract string Describe();

    /// <summary>Makes the change.</summary>
    /// <returns>This, with what became known by making it (an index, an identity, a process id).</returns>
    public abstract HostChange Do(HostAccess host);

    /// <summary>
    /// Takes the change back, as far as what is there is ours; does nothing when it is gone already. Where
    /// <see cref="Do"/> was interrupted, what it had done by then.
    /// </summary>
    public abstract void Undo(HostAccess host);

    /// <summary>Whether the change stands: made, by us, and not undone by others.</summary>
    public abstract bool IsStillThere(HostAccess host);
}
