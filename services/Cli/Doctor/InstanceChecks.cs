using VNetMesh.Cli.Commands;
using VNetMesh.Cli.Connections;
using VNetMesh.V1;

namespace VNetMesh.Cli.Doctor;

/// <summary>What every guest depends on: services, networks, devices, address pools, gateways, and the host's own way out.</summary>
/// <param name="network">Only what belongs to this network; null: all of them.</param>
internal sealed class InstanceChecks(Services services, string? network)
{
    private const string RouteTable = "/proc/net/route";

    public Check[] BeforeGuests() => [new("services", ServicesAsync), new("networks", NetworksAsync), new("devices", DevicesAsync), new("dhcp", DhcpAsync), new("nat", NatAsync)];

    public Check Host() => new("host", HostAsync);

    private async Task<Finding> ServicesAsync(CancellationToken cancellation)
    {
        List<ServiceStatus> all = await ServiceStatus.ReadAsync(services, cancellation);
        if (all.TrueForAll(service => service.State == "stopped"))
            return Finding.Bad("no service is running", "start them: vnet up");
        if (all.Find(service => service.State != "healthy") is { } sick)
            return Finding.Bad($"{sick.Name} is {sick.State}{(sick.LastExit is null ? "" : $" (it ended last with {sick.LastExit})")}", $"see why: vnet log show {sick.Name}");
        return Finding.Good($"all {all.Count} are healthy");
    }

    private async Task<Finding> NetworksAsync(CancellationToken cancellation)
    {
        Network[] all = [.. (await NetworkCommands.AllAsync(services, cancellation)).Where(one => IsMeant(one.Name))];
        foreach (Network one in all)
        {
            if (one.Conditions.Count > 0)
                return Finding.Bad($"{Names.Short(one.Name)}: {one.Conditions[0]}", $"see all of it: vnet network show {Names.Short(one.Name)}");
        }
        return Finding.Good(all.Length == 1 ? $"nothing stands in {Names.Short(all[0].Name)}'s way" : $"nothing stands in the way of the {all.Length}");
    }

    private async Task<Finding> DevicesAsync(CancellationToken cancellation)
    {
        ListDevicesResponse response = await services.Agent.ListDevicesAsync(new ListDevicesRequest(), deadline: Services.Soon, cancellationToken: cancellation);
        Device[] all = [.. response.Devices.Where(device => IsMeant("networks/" + Names.NetworkOf(device.Port)))];
        foreach (Device device in all)
        {
            if (device.Condition.Length > 0 || !device.Connected)
                return Finding.Bad($"{device.Interface} of {Names.Short(device.Port)} on {Names.NetworkOf(device.Port)}: {(device.Condition.Length > 0 ? device.Condition : "the switch does not have it")}",
                    "the agent tries again by itself; see: vnet device ls, vnet log show agent");
        }
        return Finding.Good($"the switch has all {all.Length}");
    }

    private async Task<Finding> DhcpAsync(CancellationToken cancellation)
    {
        ListPoolsResponse response = await services.Dhcp.ListPoolsAsync(new ListPoolsRequest(), deadline: Services.Soon, cancellationToken: cancellation);
        Pool[] all = [.. response.Pools.Where(pool => IsMeant(pool.Network))];
        foreach (Pool pool in all)
        {
            string name = Names.Short(pool.Network);
            if (!pool.LinkUp)
                return Finding.Bad($"dhcp is not connected to {name}", "see why: vnet log show dhcp");
            if (pool.Size > 0 && pool.Bound + pool.Offered + pool.Declined >= pool.Size)
                return Finding.Bad($"all {pool.Size} addresses of {name} are taken", $"give it a larger range or shorter leases: vnet network update {name} --dhcp-start … --lease …; see who has them: vnet lease ls {name}");
        }
        return all.Length == 0 ? Finding.Skipped("dhcp serves no network here") : Finding.Good($"has addresses to give on {string.Join(", ", all.Select(pool => Names.Short(pool.Network)))}");
    }

    private async Task<Finding> NatAsync(CancellationToken cancellation)
    {
        ListGatewaysResponse response = await services.Nat.ListGatewaysAsync(new ListGatewaysRequest(), deadline: Services.Soon, cancellationToken: cancellation);
        Gateway[] all = [.. response.Gateways.Where(gateway => IsMeant(gateway.Network))];
        foreach (Gateway gateway in all)
        {
            string name = Names.Short(gateway.Network);
            if (!gateway.LinkUp)
                return Finding.Bad($"the gateway of {name} is not connected", "see why: vnet log show nat");
            if (gateway.TcpFlows + gateway.UdpFlows + gateway.IcmpFlows >= gateway.MaxFlows)
                return Finding.Bad($"the gateway of {name} has all the {gateway.MaxFlows} connections that it may have", $"see who has them: vnet nat flows {name}");
            if (gateway.DnsServers.Count == 0)
                return Finding.Bad("the host has no nameserver that nat could ask", "write one into the host's /etc/resolv.conf: nameserver ADDRESS");
        }
        return all.Length == 0 ? Finding.Skipped("no network here has a gateway of nat's") : Finding.Good($"its gateways are connected; they ask {string.Join(", ", all[0].DnsServers)}");
    }

    /// <summary>Of this process's own network, which is the host's.</summary>
    public static bool HasDefaultRoute() =>
        // Destination and mask, in columns 2 and 8 (proc(5)).
        File.ReadLines(RouteTable).Skip(1).Select(line => line.Split('\t')).Any(columns => columns.Length > 7 && columns[1] == "00000000" && columns[7] == "00000000");

    private async Task<Finding> HostAsync(CancellationToken cancellation)
    {
        IReadOnlyList<Network> all = await NetworkCommands.AllAsync(services, cancellation);
        if (!all.Any(one => IsMeant(one.Name) && LeadsOut(one)))
            return Finding.Skipped("nothing leads out by way of the host");
        return HasDefaultRoute()
            ? Finding.Good("has a default route")
            : Finding.Bad("the host has no default route: guests reach what the host is connected to, and no further", "connect the host, or set one: ip route add default via ADDRESS");
    }

    /// <summary>Whether guests get out of it by the host's IPv4.</summary>
    public static bool LeadsOut(Network network) => network.Kind == NetworkKind.Nat || network.Egress is NetworkEgress.Snat or NetworkEgress.Routed;

    private bool IsMeant(string name) => network is null || network == name;
}
