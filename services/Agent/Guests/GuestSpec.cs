using VNetMesh.Agent.HostChanges;
using System.Diagnostics.CodeAnalysis;
using System.Text.RegularExpressions;
using VNetMesh.Agent.Devices;
using VNetMesh.Agent.Namespaces;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Guests;

/// <summary>A guest as it is wanted; what was left empty is filled in.</summary>
/// <param name="Netns">Path of its namespace.</param>
/// <param name="MakesNetns">The agent makes the namespace, and removes it with the guest.</param>
public sealed record GuestSpec(string Id, string NetworkId, string Mac, string Netns, string Interface, bool MakesNetns, bool NoDhcp, DateTimeOffset Created)
{
    public string Name => "guests/" + Id;

    /// <summary>A VM: no DHCP client of ours runs in it.</summary>
    public bool IsVm { get; init; }

    /// <summary>How a VM's frames travel.</summary>
    public VmLink VmLink { get; init; }

    /// <summary>A VM that comes by a socket: it has no namespace and no interface.</summary>
    public bool IsSocketVm => IsVm && VmLink != VmLink.Tap;

    /// <summary>A VM that has a TAP, in a namespace of ours that holds nothing else.</summary>
    public bool IsTapVm => IsVm && VmLink == VmLink.Tap;

    /// <summary>
    /// Which namespace it is, where the path alone does not say so for ever: a process id is given to another process
    /// one day. Empty: whichever the path leads to.
    /// </summary>
    public string NetnsIdentity { get; init; } = "";

    /// <summary>The container that the namespace is of, as the user called it; empty: none that is known.</summary>
    public string Container { get; init; } = "";

    public PortSpec Port => new(NetworkId, Id, PortRole.Guest, MacAddress.Parse(Mac));
}

/// <summary>How a VM's frames travel.</summary>
public enum VmLink
{
    /// <summary>By a stream socket that its monitor connects to.</summary>
    Stream,

    /// <summary>By a datagram socket that its monitor sends to.</summary>
    Datagram,

    /// <summary>By a TAP, which the kernel joins to the switch's own.</summary>
    Tap,
}

/// <summary>A guest as a client asks for it; empty fields are to be filled in.</summary>
public sealed record GuestDraft(string Id, string Network, string Mac, string Netns, string Interface, bool NoDhcp)
{
    public bool IsVm { get; init; }

    public VmLink VmLink { get; init; }

    public string Container { get; init; } = "";
}

/// <summary>Checks a draft and fills it in; what is there on the host is looked at later.</summary>
public static partial class GuestPlanner
{
    private const string DefaultInterface = "eth0";

    /// <summary>Ids that other ports of a network have.</summary>
    private static readonly string[] Reserved = [PortSpec.HostAdapterId, "nat", "dhcp"];

    /// <exception cref="GuestException">The draft cannot be had.</exception>
    public static GuestSpec Complete(GuestDraft draft, DateTimeOffset now)
    {
        if (!IdPattern().IsMatch(draft.Id))
            throw GuestException.Invalid("GUEST_ID_INVALID", $"the guest id '{draft.Id}' must be 1 to 32 of a-z, 0-9 and '-', and begin with a letter");
        if (Reserved.Contains(draft.Id))
            throw GuestException.Invalid("GUEST_ID_INVALID", $"the guest id '{draft.Id}' is that of a port which every network has: choose another");
        if (!TryReadNetwork(draft.Network, out string? network))
            throw GuestException.Invalid("NETWORK_REQUIRED", draft.Network.Length == 0 ? "network is required, e.g. 'networks/vmnet8'" : $"'{draft.Network}' is not the name of a network such as 'networks/vmnet8'");
        if (draft.Container.Length > 128 || draft.Container.Any(char.IsControl))
            throw GuestException.Invalid("CONTAINER_INVALID", "the container's name must be at most 128 printable characters");
        if (draft.IsVm)
            return CompleteVm(draft, network, now);
        if (draft.VmLink != VmLink.Stream)
            throw GuestException.Invalid("VM_FIELDS_INVALID", "vm_link is of VMs alone");
        string @interface = draft.Interface.Length == 0 ? DefaultInterface : draft.Interface;
        if (!InterfacePattern().IsMatch(@interface) || @interface is "." or ".." or "lo" or "all" or "default")
            throw GuestException.Invalid("INTERFACE_INVALID", $"'{@interface}' cannot be the name of an interface: 1 to 15 of letters, digits, '.', '_' and '-'");
        bool makesNetns = draft.Netns.Length == 0;
        if (!NamespaceReference.TryResolve(makesNetns ? draft.Id : draft.Netns, out string? netns))
            throw GuestException.Invalid("NETNS_INVALID", $"'{draft.Netns}' is neither an absolute path, nor a name under {NamespaceReference.Directory}, nor a process id");
        return new GuestSpec(draft.Id, network, ReadMac(draft.Mac, PortSpec.NameOf(network, draft.Id)).ToString(), netns, @interface, makesNetns, draft.NoDhcp, now) { Container = draft.Container };
    }

    private static GuestSpec CompleteVm(GuestDraft draft, string network, DateTimeOffset now)
    {
        if (draft.Netns.Length > 0 || draft.Interface.Length > 0 || draft.NoDhcp || draft.Container.Length > 0)
            throw GuestException.Invalid("VM_FIELDS_INVALID", "a VM has neither netns, interface, no_dhcp nor container: what is in it is its own");
        bool hasTap = draft.VmLink == VmLink.Tap;
        return new GuestSpec(draft.Id, network, ReadMac(draft.Mac, PortSpec.NameOf(network, draft.Id)).ToString(), hasTap ? $"{NamespaceReference.Directory}/{draft.Id}-vm" : "",
            hasTap ? VmTapChange.SwitchSide : "", MakesNetns: hasTap, NoDhcp: true, now) { IsVm = true, VmLink = draft.VmLink };
    }

    private static MacAddress ReadMac(string text, string port)
    {
        if (text.Length == 0)
            return MacAddresses.ForPort(port);
        return MacAddress.TryParse(text, out MacAddress mac) && !mac.IsMulticast && !mac.IsZero
            ? mac
            : throw GuestException.Invalid("MAC_INVALID", $"'{text}' is not the MAC address of one device, such as 02:56:4e:10:00:01");
    }

    private static bool TryReadNetwork(string name, [NotNullWhen(true)] out string? id)
    {
        const string Prefix = "networks/";
        id = name.StartsWith(Prefix, StringComparison.Ordinal) && NetworkPattern().IsMatch(name[Prefix.Length..]) ? name[Prefix.Length..] : null;
        return id is not null;
    }

    [GeneratedRegex(@"\A[a-z][a-z0-9-]{0,31}\z")]
    private static partial Regex IdPattern();

    [GeneratedRegex(@"\A[a-z][a-z0-9-]{0,14}\z")]
    private static partial Regex NetworkPattern();

    [GeneratedRegex(@"\A[A-Za-z0-9_.-]{1,15}\z")]
    private static partial Regex InterfacePattern();
}

public enum GuestProblem
{
    Invalid,
    AlreadyExists,
    NotFound,
    Precondition,
    Unavailable,
}

/// <summary>What was asked of a guest cannot be had.</summary>
/// <param name="reason">UPPER_SNAKE_CASE, for programs.</param>
public sealed class GuestException(GuestProblem problem, string reason, string message) : Exception(message)
{
    public GuestProblem Problem { get; } = problem;

    public string Reason { get; } = reason;

    public static GuestException Invalid(string reason, string message) => new(GuestProblem.Invalid, reason, message);

    public static GuestException NotFound(string id) => new(GuestProblem.NotFound, "GUEST_NOT_FOUND", $"there is no guest '{id}'");
}
