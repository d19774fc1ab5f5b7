using Grpc.Core;
using VNetMesh.Cli.Connections;
using VNetMesh.Declarations;
using VNetMesh.Hosting;
using VNetMesh.V1;

namespace VNetMesh.Cli.Apply;

/// <summary>
/// The steps from what is to what a file says, in the order in which they can be done: what goes, goes first; networks before
/// what lies on them. Networks are planned by asking the switch what a change would come to, so that its defaults and its refusals
/// are known before anything is changed, and a file that was applied has no differences.
/// </summary>
internal sealed class ApplyPlanner(Services services, DeclarationFile file, InstanceState state, bool prune)
{
    private static readonly string[] Overlaps = ["SUBNET_OVERLAPS", "IPV6_PREFIX_OVERLAPS"];
    private readonly List<ApplyStep> _removals = [];
    private readonly List<ApplyStep> _others = [];
    private readonly HashSet<string> _changedNetworks = new(StringComparer.Ordinal);
    private readonly HashSet<string> _removedNetworks = new(StringComparer.Ordinal);

    /// <summary>What a service would refuse.</summary>
    public List<ApplyRefusal> Refusals { get; } = [];

    /// <exception cref="CliException">A declaration contradicts itself, or the instance.</exception>
    public async Task<IReadOnlyList<ApplyStep>> PlanAsync(CancellationToken cancellation)
    {
        FindRemovedNetworks();
        // Guests first: a network with guests on it does not go.
        PlanGuests();
        foreach (NetworkDeclaration declared in file.Networks)
        {
            await PlanNetworkAsync(declared.Network, cancellation);
            PlanReservations(declared);
            PlanForwards(declared);
        }
        RemoveNetworks();
        string[] order = ["network", "reservation", "forward", "guest"];
        return
        [
            .. _removals.OrderByDescending(step => Array.IndexOf(order, step.What.Split(' ')[0])),
            .. _others.OrderBy(step => Array.IndexOf(order, step.What.Split(' ')[0])),
        ];
    }

    private void FindRemovedNetworks()
    {
        if (prune)
            _removedNetworks.UnionWith(state.Networks.Select(network => network.Name).Except(file.Networks.Select(declared => "networks/" + declared.Network.Id)));
    }

    private async Task PlanNetworkAsync(DeclaredItem declared, CancellationToken cancellation)
    {
        (Network wanted, Google.Protobuf.WellKnownTypes.FieldMask mask) = NetworkPlan.ToMessage(declared);
        Network? current = state.Networks.FirstOrDefault(network => network.Name == wanted.Name);
        string what = "network " + declared.Id;
        try
        {
            if (current is null)
            {
                var request = new CreateNetworkRequest { NetworkId = declared.Id, Network = wanted, ValidateOnly = true };
                Network result = (await services.Networks.CreateNetworkAsync(request, deadline: Services.Soon, cancellationToken: cancellation)).Network;
                string[] shown = ["kind", "ipv4_subnet", "ipv6_prefix", .. mask.Paths];
                AddNetwork('+', what, declared, [.. NetworkPlan.Fields(result).Where(line => shown.Contains(line.Split(':')[0]))], wanted, mask);
            }
            else if (mask.Paths.Count > 0)
            {
                var request = new UpdateNetworkRequest { Network = wanted, UpdateMask = mask, ValidateOnly = true };
                Network result = (await services.Networks.UpdateNetworkAsync(request, deadline: Services.Soon, cancellationToken: cancellation)).Network;
                if (NetworkPlan.Differences(current, result) is { Count: > 0 } differences)
                    AddNetwork('~', what, declared, differences, wanted, mask);
            }
        }
        catch (RpcException exception) when (exception.StatusCode is StatusCode.InvalidArgument or StatusCode.FailedPrecondition or StatusCode.ResourceExhausted)
        {
            // What it overlaps with may be on its way out.
            if (Overlaps.Contains(RpcErrors.ReasonOf(exception)) && _removedNetworks.Count > 0)
                AddNetwork(current is null ? '+' : '~', what, declared, [], wanted, mask);
            else
                Refusals.Add(new ApplyRefusal(what, declared.Line, exception));
        }
    }

    private void AddNetwork(char sign, string what, DeclaredItem declared, IReadOnlyList<string> details, Network wanted, Google.Protobuf.WellKnownTypes.FieldMask mask)
    {
        _changedNetworks.Add(wanted.Name);
        // What was made up for the plan is made up anew when it is carried out.
        string[] told = [.. details.Select(line => wanted.Ipv6Prefix == "auto" && line.StartsWith("ipv6_prefix:", StringComparison.Ordinal) ? "ipv6_prefix: made up at random" : line)];
        _others.Add(new ApplyStep(sign, what, declared.Line, told, async cancellation =>
        {
            if (sign == '+')
                await services.Networks.CreateNetworkAsync(new CreateNetworkRequest { NetworkId = declared.Id, Network = wanted }, deadline: Services.Soon, cancellationToken: cancellation);
            else
                await services.Networks.UpdateNetworkAsync(new UpdateNetworkRequest { Network = wanted, UpdateMask = mask }, deadline: Services.Soon, cancellationToken: cancellation);
        }));
    }

    private void RemoveNetworks()
    {
        foreach (string network in _removedNetworks.Order(StringComparer.Ordinal))
        {
            _removals.Add(new ApplyStep('-', "network " + Names.Short(network), 0, [], async cancellation =>
                await services.Networks.DeleteNetworkAsync(new DeleteNetworkRequest { Name = network }, deadline: Services.Soon, cancellationToken: cancellation)));
        }
    }

    private void PlanReservations(NetworkDeclaration declared)
    {
        string network = "networks/" + declared.Network.Id;
        Dictionary<string, Reservation> current = state.Reservations.Where(reservation => reservation.Name.StartsWith(network + "/", StringComparison.Ordinal)).ToDictionary(reservation => Names.Short(reservation.Name));
        foreach (DeclaredItem item in declared.Reservations)
        {
            var wanted = new Reservation
            {
                Mac = item.Text("mac")?.ToLowerInvariant().Replace('-', ':') ?? "",
                ClientId = item.Text("client_id")?.ToLowerInvariant() ?? "",
                Ipv4Address = item.Text("ipv4_address") ?? "",
                Hostname = item.Text("hostname") ?? "",
            };
            string[] details = Lines([("mac", wanted.Mac), ("client_id", wanted.ClientId), ("ipv4_address", wanted.Ipv4Address), ("hostname", wanted.Hostname)]);
            bool exists = current.Remove(item.Id, out Reservation? was);
            if (exists && (was!.Mac, was.ClientId, was.Ipv4Address, was.Hostname) == (wanted.Mac, wanted.ClientId, wanted.Ipv4Address, wanted.Hostname))
                continue;
            AddReplaceable(exists, $"reservation {declared.Network.Id}/{item.Id}", item.Line, details,
                async cancellation => await services.Dhcp.DeleteReservationAsync(new DeleteReservationRequest { Name = $"{network}/reservations/{item.Id}" }, deadline: Services.Soon, cancellationToken: cancellation),
                cancellation => FollowAsync(network, () => services.Dhcp.CreateReservationAsync(new CreateReservationRequest { Parent = network, ReservationId = item.Id, Reservation = wanted }, deadline: Services.Soon, cancellationToken: cancellation).ResponseAsync, cancellation));
        }
        foreach (Reservation left in current.Values.Where(_ => prune))
        {
            _removals.Add(new ApplyStep('-', $"reservation {declared.Network.Id}/{Names.Short(left.Name)}", 0, [], async cancellation =>
                await services.Dhcp.DeleteReservationAsync(new DeleteReservationRequest { Name = left.Name }, deadline: Services.Soon, cancellationToken: cancellation)));
        }
    }

    private void PlanForwards(NetworkDeclaration declared)
    {
        string network = "networks/" + declared.Network.Id;
        Dictionary<string, PortForward> current = state.Forwards.Where(forward => forward.Name.StartsWith(network + "/", StringComparison.Ordinal)).ToDictionary(forward => Names.Short(forward.Name));
        foreach (DeclaredItem item in declared.Forwards)
        {
            var wanted = new PortForward
            {
                Protocol = item.Text("protocol") == "udp" ? Protocol.Udp : Protocol.Tcp,
                Listen = Endpoints.Read(item.Text("listen") ?? "", addressRequired: false) ?? throw Missing(item, "forward", "listen: [ADDRESS:]PORT, e.g. 0.0.0.0:8080"),
                Guest = Endpoints.Read(item.Text("guest") ?? "", addressRequired: true) ?? throw Missing(item, "forward", "guest: ADDRESS:PORT, e.g. 192.168.108.10:80"),
            };
            bool exists = current.Remove(item.Id, out PortForward? was);
            (Protocol, string, string) Key(PortForward forward) => (forward.Protocol, Endpoints.Show(forward.Listen), Endpoints.Show(forward.Guest));
            if (exists && Key(was!) == Key(wanted))
                continue;
            AddReplaceable(exists, $"forward {declared.Network.Id}/{item.Id}", item.Line, Lines([("protocol", Rendering.Units.Name(wanted.Protocol)), ("listen", Endpoints.Show(wanted.Listen)), ("guest", Endpoints.Show(wanted.Guest))]),
                async cancellation => await services.Nat.DeletePortForwardAsync(new DeletePortForwardRequest { Name = $"{network}/forwards/{item.Id}" }, deadline: Services.Soon, cancellationToken: cancellation),
                cancellation => FollowAsync(network, () => services.Nat.CreatePortForwardAsync(new CreatePortForwardRequest { Parent = network, ForwardId = item.Id, PortForward = wanted }, deadline: Services.Soon, cancellationToken: cancellation).ResponseAsync, cancellation));
        }
        foreach (PortForward left in current.Values.Where(_ => prune))
        {
            _removals.Add(new ApplyStep('-', $"forward {declared.Network.Id}/{Names.Short(left.Name)}", 0, [], async cancellation =>
                await services.Nat.DeletePortForwardAsync(new DeletePortForwardRequest { Name = left.Name }, deadline: Services.Soon, cancellationToken: cancellation)));
        }
    }

    private void PlanGuests()
    {
        Dictionary<string, Guest> current = state.Guests.ToDictionary(guest => Names.Short(guest.Name));
        foreach (DeclaredItem item in file.Guests)
        {
            string network = Names.Network(item.Text("network") ?? throw Missing(item, "guest", "network: NAME"));
            var wanted = new Guest { Network = network, Mac = item.Text("mac")?.ToLowerInvariant() ?? "", Netns = item.Text("netns") ?? "", Interface = item.Text("interface") ?? "", NoDhcp = item.Truth("no_dhcp") ?? false };
            bool exists = current.Remove(item.Id, out Guest? was);
            if (exists && IsAsDeclared(was!, wanted, item))
                continue;
            AddReplaceable(exists, "guest " + item.Id, item.Line, Lines([("network", Names.Short(network)), ("mac", wanted.Mac), ("netns", wanted.Netns), ("interface", wanted.Interface), ("no_dhcp", wanted.NoDhcp ? "true" : "")]),
                cancellation => RemoveGuestAsync("guests/" + item.Id, cancellation),
                cancellation => FollowAsync(network, () => Commands.GuestCommands.AddAsync(services, item.Id, wanted, 0, cancellation), cancellation));
        }
        foreach (Guest left in current.Values.Where(guest => prune || _removedNetworks.Contains(guest.Network)))
            _removals.Add(new ApplyStep('-', "guest " + Names.Short(left.Name), 0, [], cancellation => RemoveGuestAsync(left.Name, cancellation)));
    }

    /// <summary>In all that the file says of it.</summary>
    private static bool IsAsDeclared(Guest was, Guest wanted, DeclaredItem item) =>
        was.Network == wanted.Network
        && (wanted.Mac.Length == 0 || was.Mac == wanted.Mac)
        && (wanted.Interface.Length == 0 || was.Interface == wanted.Interface)
        && (item.Truth("no_dhcp") is null || was.NoDhcp == wanted.NoDhcp)
        && (wanted.Netns.Length == 0 ? was.NetnsCreated || item.Text("netns") is null : was.Netns == PathOf(wanted.Netns));

    private static string PathOf(string netns) => netns.StartsWith('/') ? netns : netns.All(char.IsAsciiDigit) ? $"/proc/{netns}/ns/net" : "/run/netns/" + netns;

    private async Task RemoveGuestAsync(string name, CancellationToken cancellation) =>
        await services.Agent.DeleteGuestAsync(new DeleteGuestRequest { Name = name }, deadline: DateTime.UtcNow.AddSeconds(30), cancellationToken: cancellation);

    /// <summary>There is no changing of these: one that is to be another is removed and made again.</summary>
    private void AddReplaceable(bool exists, string what, long line, IReadOnlyList<string> details, Func<CancellationToken, Task> remove, Func<CancellationToken, Task> make) =>
        _others.Add(new ApplyStep(exists ? '~' : '+', what, line, details, async cancellation =>
        {
            if (exists)
                await remove(cancellation);
            await make(cancellation);
        }));

    /// <summary>The other services learn of a network that was just made or changed a moment later.</summary>
    private async Task FollowAsync<T>(string network, Func<Task<T>> call, CancellationToken cancellation)
    {
        string[] tooEarly = ["NETWORK_NOT_FOUND", "ADDRESS_OUTSIDE_SUBNET", "ADDRESS_RESERVED"];
        for (DateTime until = DateTime.UtcNow.AddSeconds(5); ; await Task.Delay(50, cancellation))
        {
            try
            {
                await call();
                return;
            }
            catch (RpcException exception) when (_changedNetworks.Contains(network) && DateTime.UtcNow < until && tooEarly.Contains(RpcErrors.ReasonOf(exception)))
            {
                // Once more.
            }
        }
    }

    private static string[] Lines(IEnumerable<(string Name, string Value)> fields) => [.. fields.Where(field => field.Value.Length > 0).Select(field => $"{field.Name}: {field.Value}")];

    private static CliException Missing(DeclaredItem item, string kind, string what) => new(ExitCode.Usage, $"line {item.Line}: the {kind} '{item.Id}' needs '{what}'");
}
