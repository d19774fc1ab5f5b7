using System.Diagnostics;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using VNetMesh.Agent.Devices;
using VNetMesh.Agent.Egress;
using VNetMesh.Agent.Guests;
using VNetMesh.Agent.HostChanges;
using VNetMesh.Agent.Namespaces;
using VNetMesh.Agent.Observability;
using VNetMesh.Agent.Uplinks;
using VNetMesh.Agent.Tests.Support;
using VNetMesh.Native;
using VNetMesh.Hosting;

namespace VNetMesh.Agent.Tests;

/// <summary>The loop in this process, with a switch that only counts; its guests are in real namespaces.</summary>
public sealed class ReconcilerTests
{
    private static readonly NetworkSpec Isolated = new("lab", null, false, null, false, 1500, 1);

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_guests_creation_is_one_trace_of_device_hand_off_and_addressing()
    {
        if (DhcpClient.FindProgram() is null)
            Assert.Skip(DhcpClient.MissingProgram);
        using var lab = new HostLab();
        var spans = new List<Activity>();
        using var listener = new ActivityListener
        {
            ShouldListenTo = source => source.Name == AgentTelemetry.Name,
            Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllDataAndRecorded,
            ActivityStopped = span =>
            {
                lock (spans)
                    spans.Add(span);
            },
        };
        ActivitySource.AddActivityListener(listener);
        await RunAsync(lab, async (reconciler, feed, fabric) =>
        {
            await reconciler.CreateGuestAsync(new GuestDraft($"{lab.Prefix}-web1", "networks/lab", "", "", "", NoDhcp: false), default, Cancellation);
            await HostLab.UntilAsync("it is ready", () =>
            {
                // What a lease would do; again, as the client takes all addresses away when it begins.
                HostLab.Ip($"{lab.Prefix}-web1", "addr", "replace", "192.0.2.10/24", "dev", "eth0");
                return Task.FromResult(feed.Current.Values.Single().Status == GuestStatus.Ready);
            });
            Assert.Equal(1, fabric.Connected);
        });
        Activity root = Assert.Single(spans, span => span.OperationName == "agent.guest.create" && (string?)span.GetTagItem("vnetmesh.guest") == $"guests/{lab.Prefix}-web1");
        string[] children = [.. spans.Where(span => span.ParentSpanId == root.SpanId && span.TraceId == root.TraceId).Select(span => span.OperationName).Order(StringComparer.Ordinal)];
        Assert.Equal(["agent.device.create", "agent.dhcp_client.start", "agent.guest.addressing", "agent.handoff"], children);
    }

    [Fact]
    public async Task Only_what_changed_at_the_switch_is_handed_over_again()
    {
        using var lab = new HostLab();
        await RunAsync(lab, async (reconciler, feed, fabric) =>
        {
            await reconciler.CreateGuestAsync(new GuestDraft($"{lab.Prefix}-web1", "networks/lab", "", "", "", NoDhcp: true), default, Cancellation);
            string port = $"networks/lab/ports/{lab.Prefix}-web1";
            Assert.Equal(1, fabric.Connected);
            await reconciler.PortIsAsync(port, isUp: true, Cancellation);
            await reconciler.PortsAreAsync(new HashSet<string> { port }, new HashSet<string> { port }, () => { }, Cancellation);
            await reconciler.ListDevicesAsync(Cancellation);
            Assert.Equal(1, fabric.Connected);

            await reconciler.PortIsAsync(port, isUp: false, Cancellation);
            await HostLab.UntilAsync("handed over again", () => Task.FromResult(fabric.Connected == 2));

            // The switch forgot it, and has a port of ours that nobody wants.
            await reconciler.PortsAreAsync(new HashSet<string> { "networks/lab/ports/old" }, new HashSet<string>(), () => { }, Cancellation);
            await HostLab.UntilAsync("handed over again", () => Task.FromResult(fabric.Connected == 3 && fabric.Deleted.SequenceEqual(["networks/lab/ports/old"])));

            // A switch that refuses is tried again.
            fabric.Refuses = true;
            await reconciler.PortIsAsync(port, isUp: false, Cancellation);
            await HostLab.UntilAsync("it is said", () => Task.FromResult(feed.Current.Values.Single() is { Status: GuestStatus.Degraded, Conditions: ["refused for the test"] }));
            fabric.Refuses = false;
            await HostLab.UntilAsync("it is well again", () => Task.FromResult(feed.Current.Values.Single().Status == GuestStatus.Ready));
        });
    }

    private static async Task RunAsync(HostLab lab, Func<Reconciler, GuestFeed, CountingFabric, Task> body)
    {
        await using ServiceProvider services = new ServiceCollection()
            .AddSingleton<ILoggerFactory>(NullLoggerFactory.Instance)
            .AddSingleton(typeof(ILogger<>), typeof(NullLogger<>))
            .AddSingleton(TimeProvider.System)
            .AddMetrics()
            .AddSingleton(new RuntimePaths(Path.Combine(lab.Scratch, "run"), Path.Combine(lab.Scratch, "state")))
            .AddSingleton(_ => HostNamespaces.Find())
            .AddSingleton(_ => AgentDatabase.Open(Path.Combine(lab.Scratch, "state", "agent")))
            .AddSingleton<CountingFabric>().AddSingleton<IFabric>(provider => provider.GetRequiredService<CountingFabric>())
            .AddSingleton<HostAccess>().AddSingleton<ChangeJournal>().AddSingleton<GuestStore>().AddSingleton<GuestFeed>().AddSingleton<AgentMetrics>()
            .AddSingleton<DeviceSet>().AddSingleton<EgressKeeper>().AddSingleton<HostAdapters>().AddSingleton(_ => UnixChannel.Create(Path.Combine(lab.Scratch, "run", "switch.sock"))).AddSingleton<PcapUplinks>().AddSingleton<UplinkKeeper>().AddSingleton<PingGroups>().AddSingleton<DhcpClient>().AddSingleton<VmDoors>().AddSingleton<VmKeeper>().AddSingleton<VmTapKeeper>().AddSingleton<GuestKeeper>().AddSingleton<Reconciler>()
            .BuildServiceProvider();
        Reconciler reconciler = services.GetRequiredService<Reconciler>();
        using var end = CancellationTokenSource.CreateLinkedTokenSource(Cancellation);
        Task loop = Task.Run(() => reconciler.RunAsync(end.Token), Cancellation);
        try
        {
            await reconciler.NetworksAreAsync([Isolated], Cancellation);
            await body(reconciler, services.GetRequiredService<GuestFeed>(), services.GetRequiredService<CountingFabric>());
        }
        finally
        {
            await reconciler.ReleaseAllAsync(CancellationToken.None);
            await end.CancelAsync();
            await loop;
        }
    }

    private sealed class CountingFabric : IFabric
    {
        public int Connected { get; private set; }

        public List<string> Deleted { get; } = [];

        public bool Refuses { get; set; }

        public bool IsReachable => true;

        public Task ConnectAsync(PortSpec port, TapQueue queue, CancellationToken cancellation)
        {
            if (Refuses)
                throw new FabricException("refused for the test", isUnavailable: false);
            Connected++;
            return Task.CompletedTask;
        }

        public Task ConnectAsync(PortSpec port, FileDescriptor connection, CancellationToken cancellation) => throw new FabricException("there are no VMs in this test", isUnavailable: false);

        public Task DeleteAsync(string port, CancellationToken cancellation)
        {
            Deleted.Add(port);
            return Task.CompletedTask;
        }

        public Task<NetworkSpec> ChooseNextSubnetAsync(NetworkSpec network, CancellationToken cancellation) => throw new FabricException("there are no subnets in this test", isUnavailable: false);
    }
}
