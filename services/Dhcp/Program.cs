using VNetMesh.Hosting;

WebApplicationBuilder builder = ServiceHost.CreateBuilder(args, "dhcp", "VNetMesh.Dhcp");
WebApplication app = builder.Build();
app.MapCommon();
await app.RunServiceAsync();
return 0;
