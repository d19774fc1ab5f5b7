using System.Diagnostics;
using Grpc.Core;
using Grpc.Net.Client;
using VNetMesh.Hosting;
using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.V1;

namespace VNetMesh.Nat.Tests.Support;

/// <summary>The real switch and the real nat in a lab's host namespace, and a guest on vmnet8 by a handed-over TAP.</summary>
internal sealed class Services : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("vnm").FullName;
    private readonly FileDescriptor _tap;

    public Services(NamespaceLab lab)
    {
        Lab = lab;
        Executable("Switch", "vnetmesh-switch");
        StartSwitch();
        StartNat();
        SwitchChannel = UnixChannel.Create(Path.Combine(_directory, "run", "switch.sock"));
        NatChannel = UnixChannel.Create(Path.Combine(_directory, "run", "nat.sock"));
        Nat = new NatService.NatServiceClient(NatChannel);
        Network network = Answer(() => new NetworkService.NetworkServiceClient(SwitchChannel).GetNetwork(new GetNetworkRequest { Name = "networks/vmnet8" }).Network);
        string prefix = network.Ipv4Subnet[..network.Ipv4Subnet.LastIndexOf('.')];
        _tap = lab.AddGuestTap(1, $"{prefix}.10/24", network.Ipv4Gateway);
        Gateway = network.Ipv4Gateway;
        HandOver();
        Assert.True(TestNat.Within(10, () => Answer(() => Nat.ListGateways(new ListGatewaysRequest()).Gateways).Any(gateway => gateway.Network == "networks/vmnet8" && gateway.LinkUp)));
    }

    public NamespaceLab Lab { get; }
    public string Gateway { get; }
    public Process SwitchProcess { get; private set; } = null!;
    public Process NatProcess { get; private set; } = null!;
    public NatService.NatServiceClient Nat { get; }
    private GrpcChannel SwitchChannel { get; }
    private GrpcChannel NatChannel { get; }

    public void StartSwitch() => SwitchProcess = Lab.Start(Lab.Host, Command("Switch", "vnetmesh-switch"));

    public void StartNat() => NatProcess = Lab.Start(Lab.Host, Command("Nat", "vnetmesh-nat"));

    /// <summary>What nat tells Prometheus.</summary>
    public string Metrics() => NamespaceLab.In(Lab.Host, $"curl -sS --unix-socket {_directory}/run/nat.metrics.sock http://localhost/metrics").Output;

    /// <summary>Registers the guest's port and gives the switch its TAP, as the agent does.</summary>
    public void HandOver()
    {
        var ports = new PortService.PortServiceClient(SwitchChannel);
        RegisterPortResponse registered = Answer(() => ports.RegisterPort(new RegisterPortRequest
        {
            Parent = "networks/vmnet8",
            PortId = "guest",
            Port = new Port { Transport = PortTransport.Tap, Owner = "test", Offloads = new Offloads { Checksum = true, Tso4 = true, Tso6 = true } },
        }));
        HandoffClient.HandOverTap(Path.Combine(_directory, "run", "handoff.sock"), registered.HandoffToken.Span, _tap, LinkOffloads.All);
    }

    public void Dispose()
    {
        NatChannel.Dispose();
        SwitchChannel.Dispose();
        foreach (Process process in new[] { NatProcess, SwitchProcess })
        {
            if (!process.HasExited)
                process.Kill();
            process.WaitForExit();
        }
        _tap.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    /// <summary>Asks until the service is there.</summary>
    public static T Answer<T>(Func<T> ask)
    {
        for (int i = 0; ; i++)
        {
            try
            {
                return ask();
            }
            catch (RpcException exception) when (exception.StatusCode == StatusCode.Unavailable && i < 200)
            {
                Thread.Sleep(50);
            }
        }
    }

    private string Command(string project, string name) =>
        $"env VNETMESH_RUN_DIR={_directory}/run VNETMESH_STATE_DIR={_directory}/state VNETMESH_CONFIG={_directory}/none {Executable(project, name)}";

    private static string Executable(string project, string name)
    {
        var here = new DirectoryInfo(AppContext.BaseDirectory);
        string path = Path.Combine(here.Parent!.Parent!.FullName, project, here.Name, name);
        if (!File.Exists(path))
            Assert.Skip($"{project} is not built in this configuration");
        return path;
    }
}
