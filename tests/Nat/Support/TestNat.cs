using System.Diagnostics.Metrics;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging.Abstractions;
using VNetMesh.Links;
using VNetMesh.Nat.Dns;
using VNetMesh.Nat.Flows;
using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Observability;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tests.Support;

/// <summary>A gateway on a loop of its own, for tests: 192.168.108.2 of 192.168.108.0/24.</summary>
internal sealed class TestNat : IDisposable
{
    public static readonly Ipv4Address GatewayAddress = Ipv4Address.Parse("192.168.108.2");
    public static readonly MacAddress GatewayMac = MacAddress.Parse("02:56:4e:00:00:02");
    private readonly ServiceProvider _services = new ServiceCollection().AddMetrics().BuildServiceProvider();

    /// <param name="netns">Where the loop's thread, and so every host socket, lives; null: where the test does.</param>
    public TestNat(string? netns = null, DestinationPolicy? policy = null, NatLimits? limits = null, string resolvConf = "/nonexistent", int mtu = 1500)
    {
        Loop = new EventLoop("nat-test", Faults.Add);
        Shared = new NatShared(Loop, limits ?? new NatLimits(1000, 500), policy ?? new DestinationPolicy(), new FlowHub(),
            new NatMetrics(_services.GetRequiredService<IMeterFactory>()), new ResolverList(resolvConf), TimeProvider.System, NullLogger.Instance);
        Settings = new GatewaySettings("networks/vmnet8", Ipv4Subnet.Parse("192.168.108.0/24"), GatewayAddress,
            Ipv4Address.Parse("192.168.108.1"), Ipv4Address.Parse("192.168.108.254"), mtu, GatewayMac);
        if (netns is not null)
            Loop.Post(() => NamespaceLab.Enter(netns));
        Gateway = new Gateway(Settings, Shared);
        Loop.Start();
        Ask(() => Gateway.Open());
    }

    public List<Exception> Faults { get; } = [];
    public EventLoop Loop { get; }
    public NatShared Shared { get; }
    public GatewaySettings Settings { get; }
    public Gateway Gateway { get; }

    public void Ask(Action action) => Loop.InvokeAsync(() =>
    {
        action();
        return true;
    }).GetAwaiter().GetResult();

    public T Ask<T>(Func<T> function) => Loop.InvokeAsync(function).GetAwaiter().GetResult();

    public List<FlowSnapshot> Flows() => Ask(() => Gateway.Flows.List(0, 10000, EventLoop.Now));

    /// <summary>Waits until something holds, at most that long.</summary>
    public static bool Within(double seconds, Func<bool> condition)
    {
        long end = Environment.TickCount64 + (long)(seconds * 1000);
        while (!condition())
        {
            if (Environment.TickCount64 > end)
                return false;
            Thread.Sleep(5);
        }
        return true;
    }

    public void Dispose()
    {
        Ask(() => Gateway.Close("test_ended"));
        Loop.Dispose();
        Shared.Metrics.Dispose();
        _services.Dispose();
        Assert.Empty(Faults);
    }
}

/// <summary>Lets guests reach everything, this host's loopback too: where the test's servers are.</summary>
internal sealed class OpenPolicy : DestinationPolicy
{
    public override bool Allows(Ipv4Address destination) => true;
}

/// <summary>A gateway with a fake link: the test is the guest.</summary>
internal sealed class Bench : IDisposable
{
    public static readonly Ipv4Address Loopback = Ipv4Address.Parse("127.0.0.1");

    public Bench(DestinationPolicy? policy = null, LinkOffloads offloads = LinkOffloads.All, NatLimits? limits = null, string resolvConf = "/nonexistent")
    {
        Nat = new TestNat(policy: policy ?? new OpenPolicy(), limits: limits, resolvConf: resolvConf);
        Link = new FakeLink(offloads);
        Nat.Ask(() =>
        {
            Nat.Gateway.OnLinkUp(Link);
            Link.Sent.Clear(); // the announcement
        });
    }

    public TestNat Nat { get; }
    public FakeLink Link { get; }
    public DropCounters Drops => Nat.Gateway.Drops;

    /// <summary>Gives the gateway records, as one batch.</summary>
    public void Give(params byte[][] records) => Nat.Ask(() =>
    {
        foreach (byte[] record in records)
            Nat.Gateway.Receive(record, default, EventLoop.Now);
    });

    /// <summary>The next record that the gateway sends within a time; fails without.</summary>
    public byte[] Next(double seconds = 3)
    {
        byte[]? record = null;
        Assert.True(TestNat.Within(seconds, () => Nat.Ask(() => Link.Sent.TryDequeue(out record))), $"the gateway sent nothing; drops: {string.Join(", ", Drops.Seen())}");
        return record!;
    }

    /// <summary>Nothing is sent for a while.</summary>
    public void ExpectSilence(int milliseconds = 150)
    {
        Thread.Sleep(milliseconds);
        Assert.Equal(0, Nat.Ask(() => Link.Sent.Count));
    }

    public void Dispose()
    {
        Nat.Dispose();
        Link.Dispose();
    }
}
