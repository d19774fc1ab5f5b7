using VNetMesh.Benchmarks.Running;

namespace VNetMesh.Benchmarks.Systems;

/// <summary>The kernel's own bridge, each guest on it by veth.</summary>
internal static class KernelBridge
{
    public static async Task<SwitchPath> StartAsync(Task<Site> siteTask, CancellationToken cancellation)
    {
        Site site = await siteTask;
        NetworkNamespace left = await site.AddNamespaceAsync("a", cancellation), right = await site.AddNamespaceAsync("b", cancellation);
        await Shell.RunAsync(cancellation, "sh", "-c", $"""
            set -e
            ip -n {site.Host.Name} link add br0 type bridge
            ip -n {site.Host.Name} link set br0 up
            ip link add eth0 netns {left.Name} type veth peer name left netns {site.Host.Name}
            ip link add eth0 netns {right.Name} type veth peer name right netns {site.Host.Name}
            ip -n {site.Host.Name} link set left master br0 up
            ip -n {site.Host.Name} link set right master br0 up
            """);
        return await VdeSwitch.AddressAsync(left, right, "eth0", "eth0", [], cancellation);
    }
}
