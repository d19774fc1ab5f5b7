using VNetMesh.Dhcp.Observability;
using VNetMesh.Dhcp.Rpc;
using VNetMesh.Hosting;

WebApplicationBuilder builder = ServiceHost.CreateBuilder(args, "dhcp", DhcpTelemetry.Name);
builder.Services.AddDhcp(builder.Configuration);
WebApplication app = builder.Build();
app.MapGrpcService<DhcpRpc>();
app.MapCommon();
await app.RunServiceAsync();
return 0;
