using VNetMesh.Hosting;

WebApplicationBuilder builder = ServiceHost.CreateBuilder(args, "nat", "VNetMesh.Nat");
WebApplication app = builder.Build();
app.MapCommon();
await app.RunServiceAsync();
return 0;
