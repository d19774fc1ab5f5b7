using VNetMesh.Hosting;

WebApplicationBuilder builder = ServiceHost.CreateBuilder(args, "agent", "VNetMesh.Agent");
WebApplication app = builder.Build();
app.MapCommon();
await app.RunServiceAsync();
return 0;
