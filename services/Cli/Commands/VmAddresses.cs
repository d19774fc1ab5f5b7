using Grpc.Core;
using VNetMesh.Cli.Connections;
using VNetMesh.V1;

namespace VNetMesh.Cli.Commands;

/// <summary>The addresses of VMs, as the lease table has them.</summary>
internal static class VmAddresses
{
    /// <summary>Fills in what is bound to a VM's MAC address on its network. Without dhcp nothing is.</summary>
    public static async Task FillAsync(Services services, IReadOnlyList<Guest> guests, CancellationToken cancellation)
    {
        List<Guest> machines = [.. guests.Where(guest => guest.Kind == GuestKind.Vm)];
        if (machines.Count == 0)
            return;
        IReadOnlyList<Lease> leases;
        try
        {
            leases = await DhcpCommands.AllAsync(services, Names.NetworkOrAll(null), cancellation);
        }
        catch (RpcException)
        {
            return;
        }
        foreach (Guest machine in machines)
        {
            machine.Ipv4Addresses.AddRange(leases
                .Where(lease => lease.State == LeaseState.Bound && lease.Mac == machine.Mac && Names.NetworkOf(lease.Name) == Names.Short(machine.Network))
                .Select(lease => lease.Ipv4Address));
        }
    }
}
