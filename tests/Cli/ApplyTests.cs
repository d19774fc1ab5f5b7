using VNetMesh.Cli.Apply;
using VNetMesh.Declarations;
using VNetMesh.V1;

namespace VNetMesh.Cli.Tests;

/// <summary>The file: how it is read, written, and compared. What the services make of it is tested end to end.</summary>
public sealed class ApplyTests
{
    private static readonly Network Lab = new()
    {
        Name = "networks/lab",
        Kind = NetworkKind.Nat,
        Ipv4Subnet = "10.44.0.0/24",
        Ipv4HostAddress = "10.44.0.1",
        Ipv4Gateway = "10.44.0.2",
        Mtu = 1500,
        MacAgeing = Google.Protobuf.WellKnownTypes.Duration.FromTimeSpan(TimeSpan.FromSeconds(300)),
        MaxMacs = 8192,
        MaxMacsPerPort = 256,
        Egress = NetworkEgress.None,
        Revision = 7,
        Dhcpv4 = new Dhcpv4Settings
        {
            Enabled = true,
            RangeStart = "10.44.0.128",
            RangeEnd = "10.44.0.253",
            ServerAddress = "10.44.0.254",
            DefaultLease = Google.Protobuf.WellKnownTypes.Duration.FromTimeSpan(TimeSpan.FromSeconds(90)),
            MaxLease = Google.Protobuf.WellKnownTypes.Duration.FromTimeSpan(TimeSpan.FromDays(1)),
            DnsServers = { "10.44.0.2" },
            Routers = { "10.44.0.3" },
        },
    };

    [Fact]
    public void What_is_exported_is_read_back_as_it_was()
    {
        var reservation = new Reservation { Name = "networks/lab/reservations/web1", Mac = "02:00:5e:10:00:01", Ipv4Address = "10.44.0.10", Hostname = "say \"hi\"" };
        var forward = new PortForward { Name = "networks/lab/forwards/web", Protocol = Protocol.Udp, Listen = new Endpoint { Port = 53 }, Guest = new Endpoint { Address = "10.44.0.10", Port = 53 } };
        var guest = new Guest { Name = "guests/web1", Network = "networks/lab", Mac = "02:00:5e:10:00:01", Netns = "/run/netns/web1", NetnsCreated = true, Interface = "eth0" };
        string text = Exporter.Write(new InstanceState([Lab], [reservation], [forward], [guest]));

        DeclarationFile file = DeclarationReader.Parse(text);
        NetworkDeclaration declared = Assert.Single(file.Networks);
        (Network read, _) = NetworkPlan.ToMessage(declared.Network);
        // The nameserver is the gateway, as it comes: it is left to follow from the network. The router is not.
        Assert.Equal("dhcpv4.dns_servers: 10.44.0.2 → (none)", Assert.Single(NetworkPlan.Differences(Lab, With(read, egress: NetworkEgress.None))));
        Assert.Equal(("02:00:5e:10:00:01", "say \"hi\""), (Assert.Single(declared.Reservations).Text("mac"), declared.Reservations[0].Text("hostname")));
        Assert.Equal(("udp", "127.0.0.1:53", "10.44.0.10:53"), (Assert.Single(declared.Forwards).Text("protocol"), declared.Forwards[0].Text("listen"), declared.Forwards[0].Text("guest")));
        Assert.Null(Assert.Single(file.Guests).Text("netns")); // it is made again
    }

    [Fact]
    public void Differences_are_told_field_by_field()
    {
        Network other = Lab.Clone();
        (other.Mtu, other.Revision, other.Dhcpv4.Domain, other.Dhcpv4.Enabled) = (9000, 8, "lab.example", false);
        other.Dhcpv4.Routers.Add("10.44.0.4");
        Assert.Equal(
            ["mtu: 1500 → 9000", "dhcpv4.enabled: true → false", "dhcpv4.domain: (none) → lab.example", "dhcpv4.routers: 10.44.0.3 → 10.44.0.3, 10.44.0.4"],
            NetworkPlan.Differences(Lab, other));
        Assert.Empty(NetworkPlan.Differences(Lab, Lab.Clone()));
    }

    [Fact]
    public void The_mask_names_what_the_file_sets()
    {
        DeclaredItem network = DeclarationReader.Parse("networks: {lab: {kind: host-only, egress: routed, mac_ageing: 10m, dhcpv4: {max_lease: 2h, dns_servers: [192.0.2.1, 192.0.2.2]}}}").Networks[0].Network;
        (Network message, Google.Protobuf.WellKnownTypes.FieldMask mask) = NetworkPlan.ToMessage(network);
        Assert.Equal(["kind", "egress", "mac_ageing", "dhcpv4.max_lease", "dhcpv4.dns_servers"], mask.Paths);
        Assert.Equal((NetworkKind.HostOnly, NetworkEgress.Routed, 600L, 7200L, true), (message.Kind, message.Egress, message.MacAgeing.Seconds, message.Dhcpv4.MaxLease.Seconds, message.Dhcpv4.Enabled));
        Assert.Equal(["192.0.2.1", "192.0.2.2"], message.Dhcpv4.DnsServers);
    }

    [Theory]
    [InlineData("networks:\n  lab:\n    mtu: big\n", "line 3: 'big' is not a number: write digits alone")]
    [InlineData("networks:\n  lab:\n    isolate_ports: yes\n", "line 3: 'yes' is neither true nor false")]
    [InlineData("networks:\n  lab:\n    mac_ageing: 5 min\n", "line 3: '5 min' is not a time: write one such as 90, 90s, 30m, 2h or 1d")]
    [InlineData("networks:\n  lab:\n    dhcpv4:\n      routers: 10.0.0.1\n", "line 4: a list is expected here: write [one, another]")]
    [InlineData("networks:\n  lab:\n    dhcpv4:\n      range_begin: 10.0.0.1\n", "line 4: 'range_begin' is not known here; known are enabled, range_start")]
    [InlineData("networks:\n  lab: {mtu: [1]}\n", "line 2: a single value is expected here")]
    [InlineData("networks:\n\tlab: {}\n", "line 2: a tab indents this line: write spaces")]
    [InlineData("guest: {}\n", "line 1: 'guest' is not known here; did you mean 'guests'?")]
    public void Mistakes_are_named_with_their_line_and_what_to_write(string text, string message) =>
        Assert.StartsWith(message, Assert.Throws<DeclarationException>(() => DeclarationReader.Parse(text)).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData("")]
    [InlineData("networks:\n")]
    [InlineData("networks: {}\nguests: ~\n")]
    public void An_empty_file_declares_nothing(string text)
    {
        DeclarationFile file = DeclarationReader.Parse(text);
        Assert.Empty(file.Networks);
        Assert.Empty(file.Guests);
    }

    [Theory]
    [InlineData("0.0.0.0:80", "0.0.0.0", 80)]
    [InlineData("80", "127.0.0.1", 80)]
    [InlineData(":80", "127.0.0.1", 80)]
    public void Endpoints_are_read(string text, string address, uint port) => Assert.Equal(new Endpoint { Address = address, Port = port }, Endpoints.Read(text, addressRequired: false));

    [Theory]
    [InlineData("10.0.0.1:0")]
    [InlineData("10.0.0.1:65536")]
    [InlineData("80")]
    [InlineData("")]
    public void Others_are_not(string text) => Assert.Null(Endpoints.Read(text, addressRequired: true));

    private static Network With(Network network, NetworkEgress egress)
    {
        network.Egress = egress;
        return network;
    }
}
