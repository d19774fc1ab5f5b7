using VNetMesh.Hosting;
using VNetMesh.Switch;
using VNetMesh.Switch.Capturing;
using VNetMesh.Switch.Forwarding;
using VNetMesh.Switch.Handoff;
using VNetMesh.Switch.Observability;
using VNetMesh.Switch.Registry;
using VNetMesh.Switch.Rpc;

if (HealthCommand.IsAsked(args))
    return await HealthCommand.RunAsync("switch");
WebApplicationBuilder builder = ServiceHost.CreateBuilder(args, "switch", SwitchTelemetry.Name);
builder.Services.AddSingleton(services => new NetworkStore(Path.Combine(services.GetRequiredService<RuntimePaths>().State("switch"), "registry.db")));
builder.Services.AddSingleton<NetworkRegistry>();
builder.Services.AddSingleton<DeclarationReconciler>();
builder.Services.AddSingleton<ForwardingSamples>();
builder.Services.AddSingleton<ForwardingPlane>();
builder.Services.AddSingleton<PortDirectory>();
builder.Services.AddSingleton<HandoffTokens>();
builder.Services.AddSingleton<Captures>();
builder.Services.AddSingleton<SwitchMetrics>();
builder.Services.AddHostedService<SwitchStartup>();
builder.Services.AddHostedService<HandoffServer>();

WebApplication app = builder.Build();
app.Services.GetRequiredService<SwitchMetrics>();
app.MapCommon();
app.MapGrpcService<NetworkRpc>();
app.MapGrpcService<PortRpc>();
app.MapGrpcService<CaptureRpc>();
await app.RunServiceAsync();
return 0;
