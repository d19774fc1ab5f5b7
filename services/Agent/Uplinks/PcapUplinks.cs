using Grpc.Net.Client;
using VNetMesh.Agent.Devices;
using VNetMesh.Agent.Netlink;
using VNetMesh.Hosting;
using VNetMesh.Links;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Uplinks;

/// <summary>The uplinks that go by libpcap: each has a thread and a port of the switch.</summary>
public sealed partial class PcapUplinks(GrpcChannel channel, RuntimePaths paths, ILogger<PcapUplinks> logger)
{
    private static readonly Dictionary<string, long> NoDrops = [];
    private readonly Dictionary<string, Running> _running = new(StringComparer.Ordinal);

    /// <summary>Starts an uplink where it does not run, or runs on what is not there any more.</summary>
    /// <exception cref="IOException">libpcap is missing, or refuses.</exception>
    public async Task EnsureAsync(NetworkSpec network, LinkInfo nic, PortDevice tap)
    {
        string owner = UplinkKeeper.OwnerOf(network);
        var key = new Key(nic.Index, nic.Name, nic.Mac, nic.Mtu, tap.Link.Index);
        if (_running.TryGetValue(owner, out Running? running) && running.Key == key && running.Uplink.Fault.Length == 0)
            return;
        await StopAsync(owner);
        _running[owner] = Start(network, key, tap);
    }

    public async Task StopAsync(string owner)
    {
        if (!_running.Remove(owner, out Running? running))
            return;
        await running.Stopping.CancelAsync();
        await running.Carrying;
        await running.Loop.InvokeAsync(() =>
        {
            running.Uplink.Stop();
            return true;
        });
        running.Loop.Dispose();
        running.Uplink.Dispose();
        running.Stopping.Dispose();
    }

    public async Task StopAllAsync()
    {
        foreach (string owner in _running.Keys.ToList())
            await StopAsync(owner);
    }

    /// <summary>Empty when all is well.</summary>
    public string ConditionOf(string owner) => _running.TryGetValue(owner, out Running? running) ? running.Uplink.Fault : "";

    public IReadOnlyDictionary<string, long> DropsOf(string owner) => _running.TryGetValue(owner, out Running? running) ? running.Uplink.Drops.ToDictionary() : NoDrops;

    private Running Start(NetworkSpec network, Key key, PortDevice tap)
    {
        TapQueue queue = TapDevice.Attach(tap.Link.Interface);
        var toHost = new TapLink(queue.Descriptor, queue.Offloads);
        var loop = new EventLoop("pcap-uplink", LogFault);
        try
        {
            var uplink = new PcapUplink(loop, key.Nic, key.Mac, (int)key.Mtu, toHost);
            loop.Start();
            var options = new PortClientOptions
            {
                Network = network.Name,
                PortId = PortSpec.UplinkId,
                Owner = FabricOwner.Name,
                IsUplink = true,
                Mac = tap.Port.Mac,
                AcceptedOffloads = LinkOffloads.All,
                RingCapacity = 4 * 1024 * 1024,
            };
            var client = new PortClient(loop, channel, paths.HandoffSocket, options, uplink, logger);
            var stopping = new CancellationTokenSource();
            return new Running(key, loop, uplink, stopping, Task.Run(() => client.RunAsync(stopping.Token)));
        }
        catch
        {
            loop.Dispose();
            toHost.Dispose();
            throw;
        }
    }

    [LoggerMessage(LogLevel.Error, "the pcap uplink met an unexpected error and goes on")]
    private partial void LogFault(Exception exception);

    private sealed record Key(int NicIndex, string Nic, MacAddress Mac, uint Mtu, int TapIndex);

    private sealed record Running(Key Key, EventLoop Loop, PcapUplink Uplink, CancellationTokenSource Stopping, Task Carrying);
}
