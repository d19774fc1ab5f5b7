using VNetMesh.Hosting;

WebApplicationBuilder builder = ServiceHost.CreateBuilder(args, "switch", "VNetMesh.Switch");
WebApplication app = builder.Build();
app.MapCommon();
await app.RunServiceAsync();
return 0;
