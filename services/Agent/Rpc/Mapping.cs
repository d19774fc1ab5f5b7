using Google.Protobuf.WellKnownTypes;
using Grpc.Core;
using VNetMesh.Agent.Egress;
using VNetMesh.Agent.Guests;
using VNetMesh.Agent.HostChanges;
using VNetMesh.Agent.Uplinks;
using VNetMesh.Hosting;
using VNetMesh.V1;
using GuestVmLink = VNetMesh.Agent.Guests.VmLink;
using PortRole = VNetMesh.Agent.Devices.PortRole;
using VmLink = VNetMesh.V1.VmLink;

namespace VNetMesh.Agent.Rpc;

/// <summary>Between the agent's own types and the contract's.</summary>
internal static class Mapping
{
    private const string Guests = "guests/";

    public static GuestDraft Draft(CreateGuestRequest request)
    {
        Guest guest = request.Guest ?? new Guest();
        return new GuestDraft(request.GuestId, guest.Network, guest.Mac, guest.Netns, guest.Interface, guest.NoDhcp)
        {
            IsVm = guest.Kind == GuestKind.Vm,
            VmLink = guest.VmLink switch
            {
                VmLink.Unspecified or VmLink.Stream => GuestVmLink.Stream,
                VmLink.Tap => GuestVmLink.Tap,
                VmLink.Datagram => GuestVmLink.Datagram,
                _ => throw RpcErrors.InvalidArgument("VM_LINK_INVALID", "vm_link must be STREAM, TAP or DATAGRAM"),
            },
            Container = guest.Container,
        };
    }

    public static string GuestId(string name) => name.StartsWith(Guests, StringComparison.Ordinal)
        ? name[Guests.Length..]
        : throw RpcErrors.InvalidArgument("NAME_INVALID", $"'{name}' is not the name of a guest such as 'guests/web1'");

    public static Guest ToProto(GuestView guest)
    {
        var result = new Guest
        {
            Name = guest.Spec.Name,
            Network = "networks/" + guest.Spec.NetworkId,
            Mac = guest.Spec.Mac,
            Netns = guest.Spec.Netns,
            Interface = guest.Spec.Interface,
            NoDhcp = guest.Spec.NoDhcp,
            State = guest.Status switch
            {
                GuestStatus.Ready => GuestState.Ready,
                GuestStatus.Degraded => GuestState.Degraded,
                _ => GuestState.Starting,
            },
            Kind = guest.Spec.IsVm ? GuestKind.Vm : GuestKind.Netns,
            VmLink = !guest.Spec.IsVm ? VmLink.Unspecified : guest.Spec.VmLink switch
            {
                GuestVmLink.Tap => VmLink.Tap,
                GuestVmLink.Datagram => VmLink.Datagram,
                _ => VmLink.Stream,
            },
            VmSocket = guest.Socket,
            Container = guest.Spec.Container,
            NetnsCreated = guest.Spec.MakesNetns,
            DhcpClientPid = (uint)guest.ClientPid,
            CreateTime = Timestamp.FromDateTimeOffset(guest.Spec.Created),
        };
        result.Ipv4Addresses.AddRange(guest.Addresses);
        result.Conditions.AddRange(guest.Conditions);
        return result;
    }

    public static ChangeType ToProto(GuestEvent change) => change switch
    {
        GuestEvent.Created => ChangeType.Created,
        GuestEvent.Updated => ChangeType.Updated,
        _ => ChangeType.Deleted,
    };

    public static Device ToProto(DeviceView device)
    {
        var result = new Device
        {
            Name = $"devices/{device.Port.Id}@{device.Port.NetworkId}",
            Kind = device.Port.Role switch
            {
                PortRole.Host => DeviceKind.HostAdapter,
                PortRole.Uplink => DeviceKind.Uplink,
                _ => DeviceKind.GuestTap,
            },
            Interface = device.Interface,
            Netns = device.Netns,
            Port = device.Port.Name,
            Mac = device.Mac,
            Mtu = device.Mtu,
            Connected = device.IsConnected,
            Condition = device.Condition,
        };
        result.Ipv4Addresses.AddRange(device.Addresses);
        return result;
    }

    public static V1.Egress ToProto(EgressStatus status) => new()
    {
        Network = status.Network,
        Revision = status.Revision,
        Active = status.IsActive,
        Interfaces = { status.Interfaces },
        Routes = { status.Routes },
        Conditions = { status.Conditions },
    };

    public static V1.Uplink ToProto(UplinkStatus status)
    {
        var result = new V1.Uplink
        {
            Network = status.Network,
            Revision = status.Revision,
            Interface = status.Interface,
            Active = status.IsActive,
            Conditions = { status.Conditions },
        };
        foreach ((string cause, long count) in status.Drops)
            result.Drops.Add(cause, (ulong)count);
        return result;
    }

    public static RpcException ToRpc(UplinkException exception) =>
        RpcErrors.Create(exception.Reason == "UPLINK_NOT_FOUND" ? StatusCode.NotFound : StatusCode.FailedPrecondition, exception.Reason, exception.Message);

    public static V1.HostChange ToProto(JournalEntry entry) => new()
    {
        Id = (ulong)entry.Id,
        Kind = (HostChangeKind)(int)entry.Change.Kind,
        Target = entry.Change.Target,
        Detail = entry.Change.Describe(),
        Before = entry.Change.Before,
        Owner = entry.Change.Owner,
        Time = Timestamp.FromDateTimeOffset(entry.Time),
    };

    public static RpcException ToRpc(GuestException exception)
    {
        StatusCode code = exception.Problem switch
        {
            GuestProblem.Invalid => StatusCode.InvalidArgument,
            GuestProblem.AlreadyExists => StatusCode.AlreadyExists,
            GuestProblem.NotFound => StatusCode.NotFound,
            GuestProblem.Unavailable => StatusCode.Unavailable,
            _ => StatusCode.FailedPrecondition,
        };
        return RpcErrors.Create(code, exception.Reason, exception.Message);
    }
}
