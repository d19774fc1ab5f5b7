using System.CommandLine;
using System.Globalization;
using System.Runtime.InteropServices;
using Grpc.Health.V1;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;
using VNetMesh.Cli.Supervision;

namespace VNetMesh.Cli.Commands;

/// <summary>up, down, status, and the hidden supervise.</summary>
internal static class LifeCommands
{
    public static Command Up(Services services)
    {
        var command = new Command("up", "Start the services and return once all are healthy; does nothing when they are");
        command.SetAction(async (_, cancellation) =>
        {
            bool started = await new Lifecycle(services).UpAsync(cancellation);
            Console.Error.WriteLine(started ? "vnet: the services are up" : "vnet: the services are up already");
            return ExitCode.Ok;
        });
        return command;
    }

    public static Command Down(Services services)
    {
        var command = new Command("down", "Stop the services and remove every device, rule and namespace that they made");
        command.SetAction(async (_, cancellation) =>
        {
            bool stopped = await new Lifecycle(services).DownAsync(cancellation);
            Console.Error.WriteLine(stopped ? "vnet: the services are down, and the host is as it was" : "vnet: the services are not running");
            return ExitCode.Ok;
        });
        return command;
    }

    public static Command Status(Services services, Output output)
    {
        var command = new Command("status", "Show each service's process, state, uptime and restarts; exit code 4 unless all are healthy");
        Option<bool> json = RootCommands.JsonOption();
        command.Add(json);
        command.SetAction(async (parsed, cancellation) =>
        {
            List<ServiceStatus> all = await ServiceStatus.ReadAsync(services, cancellation);
            if (parsed.GetValue(json))
                output.Writer.WriteLine(System.Text.Json.JsonSerializer.Serialize(all, StatusJson.Default.ListServiceStatus));
            else
                output.WriteTable(["service", "pid", "state", "uptime", "restarts", "last exit"], [.. all.Select(Row)], "");
            if (!parsed.GetValue(json) && all.Any(service => service.State == "healthy") && SupervisorState.Read(services.Paths.RunDirectory) is null)
                output.Writer.WriteLine($"run by {Lifecycle.Others}, not by vnet up");
            return all.All(service => service.State == "healthy") ? ExitCode.Ok : ExitCode.NotRunning;
        });
        return command;
    }

    public static Command Supervise(Services services)
    {
        var command = new Command("supervise", "Run the services in the foreground, starting again what ends") { Hidden = true };
        command.SetAction(_ =>
        {
            using var supervisor = new Supervisor(services.Paths.RunDirectory, ServiceCommands.All(services.Paths), TimeProvider.System);
            using PosixSignalRegistration terminate = OnSignal(PosixSignal.SIGTERM, supervisor);
            using PosixSignalRegistration interrupt = OnSignal(PosixSignal.SIGINT, supervisor);
            supervisor.Run();
            return ExitCode.Ok;
        });
        return command;
    }

    private static PosixSignalRegistration OnSignal(PosixSignal signal, Supervisor supervisor) => PosixSignalRegistration.Create(signal, context =>
    {
        context.Cancel = true;
        supervisor.Stop();
    });

    private static string[] Row(ServiceStatus service) =>
    [
        service.Name,
        service.Pid == 0 ? "–" : service.Pid.ToString(CultureInfo.InvariantCulture),
        service.State,
        service.Pid == 0 ? "–" : Units.Time(TimeSpan.FromSeconds(service.UptimeSeconds)),
        service.Restarts.ToString(CultureInfo.InvariantCulture),
        service.LastExit ?? "–",
    ];
}

/// <param name="Name">switch, dhcp, nat or agent.</param>
/// <param name="Pid">0: no process.</param>
/// <param name="State">healthy, starting (a process that does not serve yet), restarting (the supervisor starts it again soon), or stopped.</param>
/// <param name="UptimeSeconds">Of the process.</param>
/// <param name="Restarts">Since `vnet up`.</param>
/// <param name="LastExit">How it ended last, if it has.</param>
internal sealed record ServiceStatus(string Name, int Pid, string State, double UptimeSeconds, int Restarts, string? LastExit)
{
    public static async Task<List<ServiceStatus>> ReadAsync(Services services, CancellationToken cancellation)
    {
        SupervisorState? supervisor = SupervisorState.Read(services.Paths.RunDirectory);
        bool supervised = supervisor is { Identity.IsAlive: true };
        Task<ServiceStatus>[] all = [.. Services.Names.Select(name => ReadOneAsync(services, name, supervised ? supervisor : null, cancellation))];
        return [.. await Task.WhenAll(all)];
    }

    private static async Task<ServiceStatus> ReadOneAsync(Services services, string name, SupervisorState? supervisor, CancellationToken cancellation)
    {
        ServiceState? state = supervisor?.Services.Find(service => service.Name == name);
        HealthCheckResponse.Types.ServingStatus? health = await services.HealthAsync(name, cancellation);
        bool serves = health == HealthCheckResponse.Types.ServingStatus.Serving;
        // Without our supervisor (under Docker or systemd) health is all there is to say.
        if (state is null)
            return new ServiceStatus(name, 0, serves ? "healthy" : "stopped", 0, 0, null);
        bool alive = state.Identity.IsAlive;
        string word = alive ? serves ? "healthy" : "starting" : "restarting";
        return new ServiceStatus(name, alive ? state.Pid : 0, word, alive ? (DateTime.UtcNow - state.Started).TotalSeconds : 0, state.Restarts, state.LastExit);
    }
}

[System.Text.Json.Serialization.JsonSourceGenerationOptions(WriteIndented = true, PropertyNamingPolicy = System.Text.Json.Serialization.JsonKnownNamingPolicy.CamelCase)]
[System.Text.Json.Serialization.JsonSerializable(typeof(List<ServiceStatus>))]
internal sealed partial class StatusJson : System.Text.Json.Serialization.JsonSerializerContext;
