using VNetMesh.Agent.Netlink;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Agent.HostChanges;

/// <summary>An IPv6 address on a device of ours in the agent's own namespace.</summary>
public sealed record Ipv6AddressChange(string Owner, string NetnsIdentity, string Interface, int Index, string Address, int PrefixLength) : HostChange(Owner)
{
    public override ChangeKind Kind => ChangeKind.Address;

    public override string Target => Interface;

    public override string Describe() => $"gave {Interface} the address {Address}/{PrefixLength}";

    public override HostChange Do(HostAccess host)
    {
        host.TryInNamespace("", NetnsIdentity, netlink =>
        {
            try
            {
                netlink.AddIpv6Address(Index, Ipv6Address.Parse(Address), PrefixLength);
            }
            catch (NetlinkException exception) when (exception.Errno == NativeErrno.EEXIST)
            {
                // It has it: that is all that was wanted.
            }
        });
        return this;
    }

    public override void Undo(HostAccess host) => host.TryInNamespace("", NetnsIdentity, netlink =>
    {
        if (Has(netlink))
            netlink.RemoveIpv6Address(Index, Ipv6Address.Parse(Address), PrefixLength);
    });

    public override bool IsStillThere(HostAccess host)
    {
        bool found = false;
        return host.TryInNamespace("", NetnsIdentity, netlink => found = Has(netlink)) && found;
    }

    private bool Has(RtNetlink netlink) =>
        netlink.ListIpv6Addresses(Index).Any(address => address.Address.ToString() == Address && address.PrefixLength == PrefixLength);
}
