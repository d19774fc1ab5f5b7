using System.Diagnostics;
using System.Globalization;
using Grpc.Core;
using Spectre.Console;
using VNetMesh.Cli.Commands;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;
using VNetMesh.Cli.Supervision;
using VNetMesh.Hosting;
using VNetMesh.V1;

namespace VNetMesh.Cli.Demo;

/// <summary>The networks at work: each step does something, looks whether it worked, and says so.</summary>
internal sealed class DemoScenario(Services services, Output output)
{
    private static readonly (string Id, string Network)[] Guests = [("web1", "vmnet8"), ("web2", "vmnet8"), ("lab1", "vmnet1")];

    private readonly DemoWan _wan = new(services.Paths);
    private readonly Dictionary<string, Guest> _made = [];

    public async Task RunAsync(CancellationToken cancellation)
    {
        await StepAsync("services are up: switch, dhcp, nat, agent", async () =>
        {
            await new Lifecycle(services).UpAsync(cancellation);
            return "";
        });
        foreach ((string id, string network) in Guests)
            await StepAsync($"guest {id} on {network} has an address by DHCP", () => AddGuestAsync(id, network, cancellation));
        await StepAsync("a web server stands outside, in a namespace of its own", () =>
        {
            _wan.Create();
            return Task.FromResult($"http://{DemoWan.ServerAddress}:{DemoWan.Port}");
        });
        await StepAsync("web1 fetches from it through NAT", FetchAsync);
        await StepAsync("web1 and web2 ping each other", () => PingBothWaysAsync(cancellation));
        await StepAsync("lab1 reaches the host", () => PingAsync("lab1", HostAddress("vmnet1", cancellation)));
        await StepAsync("lab1 does not reach the outside", () => FetchMustFail("lab1"));
        await ShowAsync(cancellation);
    }

    public async Task CleanAsync(CancellationToken cancellation)
    {
        DemoWan.RemoveRecorded(services.Paths);
        foreach ((string id, _) in Guests)
        {
            try
            {
                await services.Agent.DeleteGuestAsync(new DeleteGuestRequest { Name = Names.Guest(id) }, deadline: DateTime.UtcNow.AddSeconds(30), cancellationToken: cancellation);
            }
            catch (RpcException exception) when (exception.StatusCode == StatusCode.NotFound)
            {
                // It is gone already.
            }
        }
    }

    private async Task StepAsync(string what, Func<Task<string>> step)
    {
        var clock = Stopwatch.StartNew();
        if (output.IsTerminal)
            output.Writer.Write($"  … {what}\r");
        try
        {
            string detail = await step();
            string time = clock.ElapsedMilliseconds < 1000 ? $"{clock.ElapsedMilliseconds.ToString(CultureInfo.InvariantCulture)} ms" : string.Create(CultureInfo.InvariantCulture, $"{clock.Elapsed.TotalSeconds:0.0} s");
            string line = $"{what}{(detail.Length > 0 ? ": " + detail : "")} ({time})";
            if (output.IsTerminal)
                AnsiConsole.MarkupLine($"  [green]✔[/] {Markup.Escape(line)}");
            else
                output.Writer.WriteLine($"  ✔ {line}");
        }
        catch (Exception exception) when (exception is CliException or RpcException)
        {
            output.Writer.WriteLine($"  ✘ {what}");
            throw;
        }
    }

    private async Task<string> AddGuestAsync(string id, string network, CancellationToken cancellation)
    {
        Guest guest;
        try
        {
            guest = await GuestCommands.AddAsync(services, id, new Guest { Network = Names.Network(network) }, GuestCommands.WaitMilliseconds, cancellation);
        }
        catch (RpcException exception) when (RpcErrors.ReasonOf(exception) == "GUEST_EXISTS")
        {
            // A demo ran before: its guests serve again.
            guest = (await services.Agent.GetGuestAsync(new GetGuestRequest { Name = Names.Guest(id) }, deadline: Services.Soon, cancellationToken: cancellation)).Guest;
            if (Names.Short(guest.Network) != network)
                throw new CliException(ExitCode.Refused, $"a guest {id} exists already on {Names.Short(guest.Network)}; remove it with: vnet guest rm {id}");
        }
        if (guest.Ipv4Addresses.Count == 0)
            throw new CliException(ExitCode.Failed, $"{id} got no address: {string.Join("; ", guest.Conditions)}");
        _made[id] = guest;
        return guest.Ipv4Addresses[0];
    }

    private Task<string> FetchAsync()
    {
        string answer = InGuest("web1", "curl", "-sS", "--max-time", "10", $"http://{DemoWan.ServerAddress}:{DemoWan.Port}/").Trim();
        if (!answer.Contains(DemoWan.HostAddress, StringComparison.Ordinal))
            throw new CliException(ExitCode.Failed, $"the web server should have seen the host's address {DemoWan.HostAddress}, but said: {answer}");
        return Task.FromResult($"“{answer}”");
    }

    private async Task<string> PingBothWaysAsync(CancellationToken cancellation)
    {
        await PingAsync("web2", Task.FromResult(AddressOf("web1")));
        cancellation.ThrowIfCancellationRequested();
        return await PingAsync("web1", Task.FromResult(AddressOf("web2")));
    }

    private async Task<string> PingAsync(string guest, Task<string> address)
    {
        string target = await address;
        string answer = InGuest(guest, "ping", "-c", "3", "-i", "0.2", "-W", "2", target);
        string summary = answer.Trim().Split('\n')[^1];
        // "rtt min/avg/max/mdev = 0.1/0.2/0.3/0.0 ms"
        string[] times = summary.Split(" = ")[^1].Split('/');
        return times.Length > 2 ? $"{target}, {times[1]} ms" : target;
    }

    private async Task<string> HostAddress(string network, CancellationToken cancellation)
    {
        GetNetworkResponse response = await services.Networks.GetNetworkAsync(new GetNetworkRequest { Name = Names.Network(network) }, deadline: Services.Soon, cancellationToken: cancellation);
        return response.Network.Ipv4HostAddress;
    }

    private Task<string> FetchMustFail(string guest)
    {
        (int code, string text, string error) = Shell.Try("nsenter", "--net=" + _made[guest].Netns, "curl", "-sS", "--max-time", "2", $"http://{DemoWan.ServerAddress}:{DemoWan.Port}/");
        return code != 0 ? Task.FromResult(error.Trim()) : throw new CliException(ExitCode.Failed, $"{guest} reached the outside, which a host-only network must not allow: {text}");
    }

    private string InGuest(string guest, params string[] command) => Shell.Run(["nsenter", "--net=" + _made[guest].Netns, .. command]);

    private string AddressOf(string guest) => _made[guest].Ipv4Addresses[0].Split('/')[0];

    private async Task ShowAsync(CancellationToken cancellation)
    {
        // A connection that is open while we look.
        using var slow = Process.Start(new ProcessStartInfo("nsenter", ["--net=" + _made["web1"].Netns, "curl", "-sN", "--max-time", "20", $"http://{DemoWan.ServerAddress}:{DemoWan.Port}/slow"])
        {
            RedirectStandardOutput = true,
        });
        if (slow is not null)
            await slow.StandardOutput.ReadLineAsync(cancellation);
        Title("Networks");
        NetworkCommands.WriteTable(output, await NetworkCommands.AllAsync(services, cancellation));
        Title("Ports");
        PortCommands.WriteTable(output, await PortCommands.AllAsync(services, "networks/-", cancellation));
        Title("Leases");
        DhcpCommands.WriteTable(output, await DhcpCommands.AllAsync(services, "networks/-", cancellation));
        Title("NAT flows");
        IReadOnlyList<Flow> flows = await NatCommands.AllFlowsAsync(services, "networks/-", cancellation);
        NatCommands.WriteTable(output, flows);
        if (slow is { HasExited: false })
            slow.Kill();
        if (flows.Count == 0)
            throw new CliException(ExitCode.Failed, "web1 holds a connection open, but nat shows no flow");
        Title("What to try next");
        output.Writer.WriteLine($"""
              ip netns exec web1 curl http://{DemoWan.ServerAddress}:{DemoWan.Port}/
              ip netns exec web1 ping {AddressOf("web2")}
              vnet guest add db1 --network vmnet8        another guest
              vnet port show vmnet8/web1                 its counters
              vnet nat forward add vmnet8/www --listen 8088 --guest {AddressOf("web1")}:80
              vnet host changes                          what was changed on this host
              vnet status                                the services
              vnet down                                  take all of it away again
            """);
    }

    private void Title(string title)
    {
        output.Writer.WriteLine();
        if (output.IsTerminal)
            AnsiConsole.MarkupLine($"[bold]{title}[/]");
        else
            output.Writer.WriteLine(title);
    }
}
