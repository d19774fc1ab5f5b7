using System.Globalization;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;
using VNetMesh.V1;

namespace VNetMesh.Cli.Apply;

/// <summary>
/// Writes what the services have as a file that `vnet apply` takes back without a difference. What may be empty is written as
/// such, so that the file brings a changed instance back as well.
/// </summary>
internal static class Exporter
{
    public static string Write(InstanceState state)
    {
        var yaml = new Yaml();
        yaml.Comment("Written by vnet export. docs/vnetmesh.yaml.md says what the fields mean; vnet apply brings an instance to it.");
        yaml.Begin(0, "networks");
        foreach (Network network in state.Networks)
            WriteNetwork(yaml, network, state);
        if (state.Guests.Count > 0)
            yaml.Begin(0, "guests");
        foreach (Guest guest in state.Guests)
            WriteGuest(yaml, guest);
        return yaml.ToString();
    }

    private static void WriteNetwork(Yaml yaml, Network network, InstanceState state)
    {
        yaml.Begin(1, Names.Short(network.Name));
        yaml.Field(2, "kind", network.Kind == NetworkKind.Nat ? "nat" : Units.Name(network.Kind));
        yaml.Field(2, "ipv4_subnet", network.Ipv4Subnet, evenEmpty: network.Kind == NetworkKind.Isolated);
        yaml.Field(2, "ipv4_subnet_auto", network.Ipv4Subnet.Length == 0 ? "" : network.Ipv4SubnetAuto ? "true" : "false");
        yaml.Field(2, "ipv4_host_address", network.Ipv4HostAddress);
        yaml.Field(2, "ipv4_gateway", network.Ipv4Gateway);
        yaml.Field(2, "egress", network.Kind == NetworkKind.HostOnly ? Units.Name(network.Egress) : "");
        yaml.Field(2, "ipv6_prefix", network.Ipv6Prefix, evenEmpty: true);
        yaml.Field(2, "uplink", network.Uplink, evenEmpty: network.Kind == NetworkKind.Bridged);
        yaml.Field(2, "uplink_driver", network.Kind == NetworkKind.Bridged ? Units.Name(network.UplinkDriver) : "");
        yaml.Field(2, "mtu", Number(network.Mtu));
        yaml.Field(2, "isolate_ports", network.IsolatePorts ? "true" : "false");
        yaml.Field(2, "mac_ageing", Yaml.Time(network.MacAgeing.ToTimeSpan()));
        yaml.Field(2, "max_macs", Number(network.MaxMacs));
        yaml.Field(2, "max_macs_per_port", Number(network.MaxMacsPerPort));
        if (network.Dhcpv4 is { } dhcp)
            WriteDhcp(yaml, network, dhcp);
        string prefix = network.Name + "/";
        WriteReservations(yaml, [.. state.Reservations.Where(reservation => reservation.Name.StartsWith(prefix, StringComparison.Ordinal))]);
        WriteForwards(yaml, [.. state.Forwards.Where(forward => forward.Name.StartsWith(prefix, StringComparison.Ordinal))]);
    }

    private static void WriteDhcp(Yaml yaml, Network network, Dhcpv4Settings dhcp)
    {
        yaml.Begin(2, "dhcpv4");
        yaml.Field(3, "enabled", dhcp.Enabled ? "true" : "false");
        yaml.Field(3, "range_start", dhcp.RangeStart);
        yaml.Field(3, "range_end", dhcp.RangeEnd);
        yaml.Field(3, "server_address", dhcp.ServerAddress);
        yaml.Field(3, "default_lease", Yaml.Time(dhcp.DefaultLease.ToTimeSpan()));
        yaml.Field(3, "max_lease", Yaml.Time(dhcp.MaxLease.ToTimeSpan()));
        yaml.Field(3, "domain", dhcp.Domain, evenEmpty: true);
        // What follows from the network is left to follow from it.
        string[] defaults = [network.Ipv4Gateway.Length > 0 ? network.Ipv4Gateway : network.Ipv4HostAddress];
        yaml.List(3, "dns_servers", dhcp.DnsServers.SequenceEqual(defaults) ? [] : dhcp.DnsServers);
        yaml.List(3, "routers", dhcp.Routers.SequenceEqual(defaults) ? [] : dhcp.Routers);
    }

    private static void WriteReservations(Yaml yaml, List<Reservation> reservations)
    {
        if (reservations.Count > 0)
            yaml.Begin(2, "reservations");
        foreach (Reservation reservation in reservations)
        {
            yaml.Begin(3, Names.Short(reservation.Name));
            yaml.Field(4, "mac", reservation.Mac);
            yaml.Field(4, "client_id", reservation.ClientId);
            yaml.Field(4, "ipv4_address", reservation.Ipv4Address);
            yaml.Field(4, "hostname", reservation.Hostname);
        }
    }

    private static void WriteForwards(Yaml yaml, List<PortForward> forwards)
    {
        if (forwards.Count > 0)
            yaml.Begin(2, "forwards");
        foreach (PortForward forward in forwards)
        {
            yaml.Begin(3, Names.Short(forward.Name));
            yaml.Field(4, "protocol", Units.Name(forward.Protocol));
            yaml.Field(4, "listen", Endpoints.Show(forward.Listen));
            yaml.Field(4, "guest", Endpoints.Show(forward.Guest));
        }
    }

    private static void WriteGuest(Yaml yaml, Guest guest)
    {
        yaml.Begin(1, Names.Short(guest.Name));
        yaml.Field(2, "network", Names.Short(guest.Network));
        yaml.Field(2, "mac", guest.Mac);
        // One that the agent made is made again; another is somebody else's to provide.
        yaml.Field(2, "netns", guest.NetnsCreated ? "" : guest.Netns);
        yaml.Field(2, "interface", guest.Interface);
        yaml.Field(2, "no_dhcp", guest.NoDhcp ? "true" : "");
    }

    private static string Number(uint value) => value.ToString(CultureInfo.InvariantCulture);
}
