using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>The example client in Python: a guest that is nothing but a gRPC client.</summary>
public sealed class AttachClientTests(SharedInstance shared) : SharedInstanceTest(shared)
{
    private const string Python = "/usr/bin/python3";

    [Fact]
    public async Task A_client_in_Python_answers_arp_and_ping()
    {
        if (!Directory.Exists("/usr/lib/python3/dist-packages/grpc") || !Directory.Exists("/usr/lib/python3/dist-packages/grpc_tools"))
            Assert.Skip("needs Debian's python3-grpcio and python3-grpc-tools (./test.sh installs them)");
        await using TestGuest guest = await Instance.AddGuestAsync("py", "vmnet8");
        await using BackgroundCommand client = BackgroundCommand.Start("env", "VNETMESH_RUN_DIR=" + Instance.RunDirectory, Python, ScriptPath(),
            "--network", "vmnet8", "--address", "192.168.108.100", "--port", "python");
        await Wait.UntilAsync(TimeSpan.FromSeconds(15), "the client attaches", () => client.Output.Contains("attached as networks/vmnet8/ports/python", StringComparison.Ordinal)
            || (client.HasExited ? throw new InvalidOperationException(client.Output) : false));

        // From its device a guest gets large packets and partial checksums; the client gets neither.
        foreach (string size in new[] { "56", "57", "1472" })
        {
            CommandResult ping = (await guest.RunAsync("ping", "-c", "3", "-i", "0.2", "-W", "2", "-s", size, "192.168.108.100")).EnsureSuccess();
            Assert.Contains("3 received", ping.Output, StringComparison.Ordinal);
        }
        Assert.Contains("02:56:4e:50:59:01", (await guest.RunAsync("ip", "neigh", "show", "192.168.108.100")).Output, StringComparison.Ordinal);
        // Another address is nobody's.
        Assert.NotEqual(0, (await guest.RunAsync("ping", "-c", "1", "-W", "1", "192.168.108.101")).ExitCode);

        NetworkNamespace.Kill(client.ProcessId, 15);
        Assert.True(await client.WaitAsync(TimeSpan.FromSeconds(5)) == 0, client.Output);
        await Wait.UntilAsync(TimeSpan.FromSeconds(5), "its port goes with it", async () => (await Instance.VnetAsync("port", "show", "vmnet8/python")).ExitCode == 5);
    }

    private static string ScriptPath()
    {
        string? folder = AppContext.BaseDirectory;
        while (folder is not null && !File.Exists(Path.Combine(folder, "VNetMesh.sln")))
            folder = Path.GetDirectoryName(folder);
        return Path.Combine(folder ?? throw new InvalidOperationException("VNetMesh.sln is in no folder above the tests"), "tests", "Python", "attach_client.py");
    }
}
