using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using Grpc.Core;
using VNetMesh.Cli.Connections;
using VNetMesh.V1;

namespace VNetMesh.Cli.Doctor;

/// <summary>Why one guest does not get out: from its namespace to the server at the far end.</summary>
/// <param name="to">A server to connect to; null: none is tried.</param>
internal sealed class GuestChecks(Services services, Guest guest, Network network, IPEndPoint? to)
{
    private static readonly TimeSpan DnsLimit = TimeSpan.FromSeconds(6);
    private static readonly TimeSpan DialLimit = TimeSpan.FromSeconds(5);

    private readonly GuestNamespace _inside = new(guest.Netns);

    private string Id => Names.Short(guest.Name);

    private string NetworkId => Names.Short(network.Name);

    /// <summary>Where packets for elsewhere go; null: nothing leads out.</summary>
    private string? Gateway => network.Kind == NetworkKind.Nat ? network.Ipv4Gateway : InstanceChecks.LeadsOut(network) ? network.Ipv4HostAddress : null;

    public Check[] All() => [new("namespace", NamespaceAsync), new("port", PortAsync), new("lease", LeaseAsync), new("gateway", GatewayAsync), new("dns", DnsAsync), new("dial", DialAsync)];

    private Task<Finding> NamespaceAsync(CancellationToken cancellation)
    {
        if (!_inside.Exists)
            return Result(Finding.Bad($"{guest.Netns} is gone", $"plug it in again: vnet guest rm {Id}, vnet guest add {Id} …"));
        (int code, string output) = _inside.Run("ip", "-j", "link", "show", "dev", guest.Interface);
        if (code != 0)
            return Result(Finding.Bad($"there is no {guest.Interface} in it: {output.Trim().ReplaceLineEndings(" ")}", "the agent makes it anew within seconds; see: vnet log show agent"));
        using JsonDocument links = JsonDocument.Parse(output);
        bool isUp = links.RootElement.EnumerateArray().Any(link => link.GetProperty("flags").EnumerateArray().Any(flag => flag.GetString() == "UP"));
        return Result(isUp
            ? Finding.Good($"{guest.Interface} is up in {guest.Netns}")
            : Finding.Bad($"{guest.Interface} is down", $"set it up: {Advice("ip", "link", "set", guest.Interface, "up")}"));
    }

    private async Task<Finding> PortAsync(CancellationToken cancellation)
    {
        Port port;
        try
        {
            port = (await services.Ports.GetPortAsync(new GetPortRequest { Name = $"{network.Name}/ports/{Id}" }, deadline: Services.Soon, cancellationToken: cancellation)).Port;
        }
        catch (RpcException exception) when (exception.StatusCode == StatusCode.NotFound)
        {
            return Finding.Bad("the switch has no port for it", "the agent makes it anew within seconds; see: vnet log show agent");
        }
        return port.State == PortState.Up
            ? Finding.Good($"up; {port.Counters.RxFrames} frames from it, {port.Counters.TxFrames} to it")
            : Finding.Bad($"its port is {Rendering.Units.Name(port.State)}", "the agent hands its device over again within seconds; see: vnet log show agent");
    }

    private async Task<Finding> LeaseAsync(CancellationToken cancellation)
    {
        string[] addresses = Addresses();
        bool byDhcp = network.Dhcpv4 is { Enabled: true } && !guest.NoDhcp;
        if (addresses.Length == 0)
        {
            return byDhcp
                ? Finding.Bad($"it has no address; {await LastWordAsync(cancellation)}", $"see the exchange: vnet trace {Id}; ask again: {Advice("udhcpc", "-i", guest.Interface, "-n", "-q")}")
                : Finding.Bad("it has no address, and none comes by DHCP", $"give it one: {Advice("ip", "addr", "add", "ADDRESS/PREFIX", "dev", guest.Interface)}");
        }
        if (IPNetwork.TryParse(network.Ipv4Subnet, out IPNetwork subnet) && !addresses.Any(address => subnet.Contains(IPAddress.Parse(address))))
            return Finding.Bad($"its address {addresses[0]} is not of {network.Ipv4Subnet}", $"take it away, and let DHCP give it another: {Advice("ip", "addr", "flush", "dev", guest.Interface)}");
        if (!byDhcp)
            return Finding.Good($"{addresses[0]}, not by DHCP");
        IReadOnlyList<Lease> leases = await Commands.DhcpCommands.AllAsync(services, network.Name, cancellation);
        Lease? own = leases.FirstOrDefault(lease => lease.Mac == guest.Mac && lease.State == LeaseState.Bound);
        if (own is null)
            return Finding.Bad($"it has {addresses[0]}, but no lease; {await LastWordAsync(cancellation)}", "another guest may get the same address: let its DHCP client ask again, or reserve it: vnet reservation add");
        return addresses.Contains(own.Ipv4Address)
            ? Finding.Good($"{own.Ipv4Address}, for {Rendering.Units.Time(own.ExpireTime.ToDateTime() - DateTime.UtcNow)} more")
            : Finding.Bad($"it has {addresses[0]}, but its lease is for {own.Ipv4Address}", "let its DHCP client ask again");
    }

    /// <summary>As they are now: what the agent says of them may be some seconds old.</summary>
    private string[] Addresses()
    {
        (int code, string output) = _inside.Run("ip", "-j", "-4", "addr", "show", "dev", guest.Interface);
        if (code != 0)
            return [];
        using JsonDocument links = JsonDocument.Parse(output);
        return [.. links.RootElement.EnumerateArray()
            .SelectMany(link => link.TryGetProperty("addr_info", out JsonElement all) ? all.EnumerateArray() : [])
            .Select(address => address.GetProperty("local").GetString()!)];
    }

    private async Task<string> LastWordAsync(CancellationToken cancellation)
    {
        ListExchangesResponse response = await services.Dhcp.ListExchangesAsync(new ListExchangesRequest { Parent = network.Name, Mac = guest.Mac, PageSize = 1 }, deadline: Services.Soon, cancellationToken: cancellation);
        return response.Events.Count == 0
            ? "dhcp has heard nothing from it"
            : $"dhcp's last word to its {response.Events[^1].Message} was {response.Events[^1].Decision}{(response.Events[^1].Reason.Length > 0 ? $" ({response.Events[^1].Reason})" : "")}";
    }

    private Task<Finding> GatewayAsync(CancellationToken cancellation)
    {
        if (Gateway is not { Length: > 0 } gateway)
            return Result(Finding.Skipped($"nothing leads out of {NetworkId}"));
        (_, string routes) = _inside.Run("ip", "-4", "route", "show", "default");
        string[] words = routes.Split([' ', '\n'], StringSplitOptions.RemoveEmptyEntries);
        string? via = words.SkipWhile(word => word != "via").Skip(1).FirstOrDefault();
        if (via != gateway)
            return Result(Finding.Bad(via is null ? "it has no default route" : $"its default route is by way of {via}", $"set it: {Advice("ip", "route", "replace", "default", "via", gateway)}"));
        (int code, _) = _inside.Run("ping", "-n", "-c", "1", "-W", "2", gateway);
        return Result(code == 0
            ? Finding.Good($"{gateway} answers")
            : Finding.Bad($"{gateway} does not answer", $"see what becomes of its frames, while it pings: vnet capture {NetworkId} --port {Id} --filter 'arp or icmp'"));
    }

    private Task<Finding> DnsAsync(CancellationToken cancellation)
    {
        if (network.Kind != NetworkKind.Nat)
            return Result(Finding.Skipped($"nobody of ours answers for names on {NetworkId}"));
        int? code = _inside.AskDns(IPAddress.Parse(network.Ipv4Gateway), DnsLimit);
        string why = "the host's nameservers do not answer" + (InstanceChecks.HasDefaultRoute() ? "" : ", and the host has no default route");
        const string Advice = "see which nameservers nat asks, and try them on the host: vnet nat gateways, dig @ADDRESS . NS";
        return Result(code switch
        {
            null => Finding.Bad($"{network.Ipv4Gateway} gives no answer within {DnsLimit.TotalSeconds:0} s: {why}", Advice),
            // 0: no error; 3: no such name (RFC 1035, 4.1.1). Either is an answer.
            0 or 3 => Finding.Good($"{network.Ipv4Gateway} resolves"),
            2 => Finding.Bad($"{network.Ipv4Gateway} answers with a server failure: {why}", Advice),
            5 => Finding.Good($"{network.Ipv4Gateway} passes on; the host's nameserver refuses to tell of the root"),
            _ => Finding.Bad($"{network.Ipv4Gateway} answers with code {code}", Advice),
        });
    }

    private Task<Finding> DialAsync(CancellationToken cancellation)
    {
        if (to is null)
            return Result(Finding.Skipped("nothing to try; name a server with --to ADDRESS:PORT"));
        SocketError? failure = _inside.Dial(to, DialLimit);
        if (failure is null)
            return Result(Finding.Good($"{to} takes a connection"));
        if (failure == SocketError.ConnectionRefused)
            return Result(Finding.Bad($"{to} refuses the connection", "the way is open, but nothing listens there, or a firewall says no: look at the server"));
        SocketError? fromHost = GuestNamespace.DialFromHere(to, DialLimit);
        return Result(fromHost is null
            ? Finding.Bad($"{to} cannot be reached from it ({Words(failure)}), but from the host it can", $"see what became of it: vnet trace {Id}")
            : Finding.Bad($"{to} cannot be reached from it ({Words(failure)}), nor from the host ({Words(fromHost)})", $"it is not VNetMesh: look at the host's routes and firewall (ip route get {to.Address}), and at the server"));
    }

    private static string Words(SocketError? error) => error switch
    {
        SocketError.TimedOut => "no answer",
        SocketError.HostUnreachable => "no way to the host",
        SocketError.NetworkUnreachable => "no way to the network",
        SocketError.ConnectionRefused => "refused",
        SocketError.ConnectionReset => "reset",
        _ => error?.ToString() ?? "",
    };

    private string Advice(params string[] command) => string.Join(' ', _inside.Command(command));

    private static Task<Finding> Result(Finding finding) => Task.FromResult(finding);
}
