using VNetMesh.Dhcp.Leases;
using VNetMesh.Dhcp.Protocol;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Tests.Support;

/// <summary>Plays messages against a core in virtual time, with a disk that takes everything at once unless told otherwise.</summary>
internal sealed class CoreScript
{
    public static readonly Ipv4Address Server = Ipv4Address.Parse("192.0.2.254");

    public CoreScript(DhcpOptions? options = null, NetworkSettings? settings = null)
    {
        Core = new DhcpCore("networks/test", options ?? new DhcpOptions { ProbeTime = TimeSpan.Zero }, (kind, lease) => Changes.Add((kind, lease.Address, lease.State)));
        Core.Configure(settings ?? Settings);
    }

    public static NetworkSettings Settings { get; } = new()
    {
        Network = "networks/test",
        Subnet = Ipv4Subnet.Parse("192.0.2.0/24"),
        RangeStart = Ipv4Address.Parse("192.0.2.128"),
        RangeEnd = Ipv4Address.Parse("192.0.2.253"),
        ServerAddress = Server,
        DefaultLease = TimeSpan.FromMinutes(30),
        MaxLease = TimeSpan.FromHours(2),
        Domain = "example.test",
        Routers = [Ipv4Address.Parse("192.0.2.2")],
        DnsServers = [Ipv4Address.Parse("192.0.2.2"), Ipv4Address.Parse("198.51.100.53")],
        Taken = [Ipv4Address.Parse("192.0.2.1")],
    };

    public DhcpCore Core { get; }
    public DateTimeOffset Now { get; set; } = DateTimeOffset.FromUnixTimeSeconds(1_800_000_000);
    public List<(LeaseChangeKind Kind, Ipv4Address Address, LeaseState State)> Changes { get; } = [];
    public List<LeaseWrite> Disk { get; } = [];

    public static Ipv4Address Address(int last) => Ipv4Address.Parse($"192.0.2.{last}");

    public static MacAddress Mac(int number) => new(0x0200_0000_0000ul + (ulong)number);

    public static DhcpMessage Message(int client, Dhcpv4MessageType type, Ipv4Address? requested = null, Ipv4Address? server = null, Ipv4Address ciaddr = default) => new()
    {
        Type = type,
        TransactionId = 7,
        Mac = Mac(client),
        From = Mac(client),
        Client = new ClientKey("hw:" + client),
        RequestedAddress = requested,
        ServerIdentifier = server,
        ClientAddress = ciaddr,
    };

    /// <summary>Hands a message over; an ACK's lease goes to disk, and the decision that then stands is given.</summary>
    public Decision Send(DhcpMessage message, bool toServer = false)
    {
        Decision decision = Core.Handle(message, toServer, Now);
        if (decision.Write is { } write)
            Disk.Add(write);
        return decision.Kind == DecisionKind.Ack ? Core.Committed(decision, Now) : decision;
    }

    public Decision Discover(int client, Ipv4Address? requested = null) => Send(Message(client, Dhcpv4MessageType.Discover, requested));

    public Decision Select(int client, Ipv4Address address, Ipv4Address? server = null) => Send(Message(client, Dhcpv4MessageType.Request, address, server ?? Server));

    public Decision Reboot(int client, Ipv4Address address) => Send(Message(client, Dhcpv4MessageType.Request, address));

    public Decision Renew(int client, Ipv4Address address) => Send(Message(client, Dhcpv4MessageType.Request, ciaddr: address), toServer: true);

    public Decision Rebind(int client, Ipv4Address address) => Send(Message(client, Dhcpv4MessageType.Request, ciaddr: address));

    public Decision Release(int client, Ipv4Address address) => Send(Message(client, Dhcpv4MessageType.Release, ciaddr: address, server: Server), toServer: true);

    public Decision Decline(int client, Ipv4Address address) => Send(Message(client, Dhcpv4MessageType.Decline, address, Server));

    /// <summary>DISCOVER and REQUEST.</summary>
    public Ipv4Address Bind(int client, Ipv4Address? requested = null)
    {
        Decision offer = Discover(client, requested);
        Assert.Equal(DecisionKind.Offer, offer.Kind);
        Expect(DecisionKind.Ack, Select(client, offer.Address), offer.Address);
        return offer.Address;
    }

    public (IReadOnlyList<Decision> Decisions, IReadOnlyList<Lease> Expired) After(TimeSpan time)
    {
        Now += time;
        return Core.Tick(Now);
    }

    public static void Expect(DecisionKind kind, Decision decision, Ipv4Address? address = null)
    {
        Assert.Equal((kind, address ?? decision.Address), (decision.Kind, decision.Address));
        Assert.NotEmpty(decision.Reason);
        Assert.Equal(kind == DecisionKind.Drop, decision.Cause is not null);
    }

    public static void ExpectDrop(DropCause cause, Decision decision) => Assert.Equal((DecisionKind.Drop, (DropCause?)cause), (decision.Kind, decision.Cause));
}
