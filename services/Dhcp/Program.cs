using VNetMesh.Dhcp.Observability;
using VNetMesh.Dhcp.Rpc;
using VNetMesh.Hosting;

if (HealthCommand.IsAsked(args))
    return await HealthCommand.RunAsync("dhcp");
WebApplicationBuilder builder = ServiceHost.CreateBuilder(args, "dhcp", DhcpTelemetry.Name);
builder.Services.AddDhcp(builder.Configuration);
WebApplication app = builder.Build();
app.MapGrpcService<DhcpRpc>();
app.MapCommon();
await app.RunServiceAsync();
return 0;
