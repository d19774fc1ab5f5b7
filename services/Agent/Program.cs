using VNetMesh.Agent;
using VNetMesh.Agent.Devices;
using VNetMesh.Agent.Egress;
using VNetMesh.Agent.Guests;
using VNetMesh.Agent.HostChanges;
using VNetMesh.Agent.Namespaces;
using VNetMesh.Agent.Observability;
using VNetMesh.Agent.Rpc;
using VNetMesh.Agent.Uplinks;
using VNetMesh.Hosting;

if (args is [ReleaseCommand.Name])
    return ReleaseCommand.Run(RuntimePaths.FromEnvironment(), Console.Out, Console.Error);
if (HealthCommand.IsAsked(args))
    return await HealthCommand.RunAsync("agent");

WebApplicationBuilder builder = ServiceHost.CreateBuilder(args, "agent", AgentTelemetry.Name);
IServiceCollection services = builder.Services;
services.AddSingleton(_ => HostNamespaces.Find());
services.AddSingleton<HostAccess>();
services.AddSingleton(provider => AgentDatabase.Open(provider.GetRequiredService<RuntimePaths>().State("agent")));
services.AddSingleton<ChangeJournal>();
services.AddSingleton<GuestStore>();
services.AddSingleton<GuestFeed>();
services.AddSingleton<AgentMetrics>();
services.AddSingleton(provider => UnixChannel.Create(provider.GetRequiredService<RuntimePaths>().Socket("switch")));
services.AddSingleton<SwitchClient>();
services.AddSingleton<IFabric>(provider => provider.GetRequiredService<SwitchClient>());
services.AddSingleton<DeviceSet>();
services.AddSingleton<EgressKeeper>();
services.AddSingleton<HostAdapters>();
services.AddSingleton<PcapUplinks>();
services.AddSingleton<UplinkKeeper>();
services.AddSingleton<PingGroups>();
services.AddSingleton<DhcpClient>();
services.AddSingleton<VmDoors>();
services.AddSingleton<VmKeeper>();
services.AddSingleton<VmTapKeeper>();
services.AddSingleton<GuestKeeper>();
services.AddSingleton<Reconciler>();
services.AddHostedService<AgentWorker>();
services.AddHostedService<OtlpRelay>();

WebApplication app = builder.Build();
app.MapCommon();
app.MapGrpcService<AgentRpc>();
try
{
    await app.RunServiceAsync();
}
catch (DatabaseInUseException exception)
{
    Console.Error.WriteLine(exception.Message);
    return 2;
}
return Environment.ExitCode;
