using VNetMesh.Benchmarks.Load;
using VNetMesh.Benchmarks.Results;
using VNetMesh.Benchmarks.Systems;

namespace VNetMesh.Benchmarks.Rows;

/// <summary>One gRPC client on the Attach stream, and a guest with a TAP on the same network.</summary>
internal static class AttachRows
{
    private const string Group = "attach";
    private static readonly string[] Ours = [SystemNames.VNetMesh];

    public static IEnumerable<Row> All() =>
    [
        Send(1514, "attach-send-1514"), Receive(1514, "attach-receive-1514"),
        Send(60, "attach-send-60"), Receive(60, "attach-receive-60"),
    ];

    private static Row Send(int size, string name) => new(name, Ours, Metrics(name, $"client→guest, {size:#,0}-byte frames"), async (lab, _, settings, cancellation) =>
    {
        VNetMeshInstance instance = await lab.VNetMeshAsync();
        return Values(await AttachLoad.SendAsync(instance, await instance.GuestAsync("a", "vmnet8", cancellation), size, settings.Seconds, cancellation), size);
    });

    private static Row Receive(int size, string name) => new(name, Ours, Metrics(name, $"guest→client, {size:#,0}-byte frames"), async (lab, _, settings, cancellation) =>
    {
        VNetMeshInstance instance = await lab.VNetMeshAsync();
        return Values(await AttachLoad.ReceiveAsync(instance, await instance.GuestAsync("a", "vmnet8", cancellation), size, settings.Seconds, cancellation), size);
    });

    private static Metric[] Metrics(string name, string title) => [new Metric(name, Group, title, "1/s", true), new Metric(name + "-bytes", Group, "  of bytes", "MB/s", true)];

    private static double?[] Values(double framesPerSecond, int size) => [framesPerSecond, framesPerSecond * size / 1e6];
}
