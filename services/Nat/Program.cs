using VNetMesh.Hosting;
using VNetMesh.Nat;
using VNetMesh.Nat.Rpc;

if (HealthCommand.IsAsked(args))
    return await HealthCommand.RunAsync("nat");
WebApplicationBuilder builder = ServiceHost.CreateBuilder(args, "nat", "VNetMesh.Nat");
builder.Services.AddNat();
WebApplication app = builder.Build();
app.MapGrpcService<NatRpcService>();
app.MapCommon();
await app.RunServiceAsync();
return 0;
