using System.Security.Cryptography;
using System.Text.Json;
using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>A real VM on vmnet8, by QEMU's stream socket.</summary>
public sealed class VirtualMachineTests : OwnInstanceTest
{
    private static readonly TimeSpan BootLimit = TimeSpan.FromSeconds(45);

    [Fact]
    public async Task A_VM_gets_an_address_resolves_fetches_is_pinged_and_outlives_the_switch()
    {
        VirtualMachineImage image = await VirtualMachineImage.MakeAsync(Instance.ScratchDirectory);
        string arguments = (await Instance.VnetAsync("vm", "args", "web1", "--network", "vmnet8")).EnsureSuccess().Output.Trim();
        await using TestGuest peer = await Instance.AddGuestAsync("vmpeer", "vmnet8");
        string address;
        await using (VirtualMachine machine = image.Boot(Instance.Host, arguments))
        {
            address = await machine.UntilDoneAsync(BootLimit);
            Assert.Contains("VM: resolved", machine.Console, StringComparison.Ordinal);
            Assert.Contains("VM: hash " + Hash(), machine.Console, StringComparison.Ordinal);
            await AssertPingsAsync(peer, address);
            await AssertListedAsync("GUEST_STATE_READY", address);
            string changes = (await Instance.VnetAsync("host", "changes")).EnsureSuccess().Output;
            Assert.Contains("made the socket " + Instance.RunDirectory + "/vm/web1.sock", changes, StringComparison.Ordinal);

            // QEMU's side of the socket notices nothing, though QEMU 7.2 could not connect again.
            await Instance.KillAsync("switch");
            await Wait.UntilAsync(TimeSpan.FromSeconds(15), "the VM answers through the new switch", async () =>
                (await peer.RunAsync("ping", "-c", "1", "-W", "1", address)).ExitCode == 0);
            Assert.False(machine.HasExited);
        }
        await Wait.UntilAsync(TimeSpan.FromSeconds(5), "the port is free", async () => await StateAsync() == "GUEST_STATE_STARTING");

        // The port is desired state: it is there after the agent's death, and for the VM's next start.
        await Instance.KillAsync("agent");
        await Wait.UntilAsync(TimeSpan.FromSeconds(10), "the agent has the VM's port again", async () => await StateAsync() == "GUEST_STATE_STARTING");
        Assert.Equal(arguments, (await Instance.VnetAsync("vm", "args", "web1", "--network", "vmnet8")).EnsureSuccess().Output.Trim());
        await using (VirtualMachine again = image.Boot(Instance.Host, arguments))
            Assert.Equal(address, await again.UntilDoneAsync(BootLimit));

        string socket = Path.Combine(Instance.RunDirectory, "vm", "web1.sock");
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(socket));
        (await Instance.VnetAsync("vm", "rm", "web1")).EnsureSuccess();
        Assert.False(File.Exists(socket));
    }

    [Fact]
    public async Task A_VM_that_vnet_runs_has_a_TAP_and_outlives_switch_and_agent()
    {
        VirtualMachineImage image = await VirtualMachineImage.MakeAsync(Instance.ScratchDirectory);
        string name = Instance.Prefix + "-fast";
        await using TestGuest peer = await Instance.AddGuestAsync("vmpeer", "vmnet8");
        string[] run = ["env", "VNETMESH_RUN_DIR=" + Instance.RunDirectory, Instance.CommandLine, "vm", "run", name, "--network", "vmnet8", "--"];
        string address;
        await using (VirtualMachine machine = image.Boot(Instance.Host, "", run))
        {
            address = await machine.UntilDoneAsync(BootLimit);
            Assert.Contains("VM: resolved", machine.Console, StringComparison.Ordinal);
            Assert.Contains("VM: hash " + Hash(), machine.Console, StringComparison.Ordinal);
            await AssertPingsAsync(peer, address);
            await AssertListedAsync("GUEST_STATE_READY", address);

            CommandResult second = await Instance.VnetAsync("vm", "run", name, "--network", "vmnet8", "--", "true");
            Assert.Equal((7, $"vnet: '{name}' has no TAP to give: another VM runs on it\n"), (second.ExitCode, second.Error));

            await Instance.KillAsync("switch");
            await Instance.KillAsync("agent");
            await Wait.UntilAsync(TimeSpan.FromSeconds(15), "the VM answers through the new switch", async () =>
                (await peer.RunAsync("ping", "-c", "1", "-W", "1", address)).ExitCode == 0);
            Assert.False(machine.HasExited);
        }
        await Wait.UntilAsync(TimeSpan.FromSeconds(5), "the port is free", async () => await StateAsync() == "GUEST_STATE_STARTING");
        CommandResult absent = await Instance.VnetAsync("vm", "run", name, "--network", "vmnet8", "--", "no-such-program");
        Assert.Equal((5, "vnet: there is no program 'no-such-program': is it installed?\n"), (absent.ExitCode, absent.Error));

        (await Instance.VnetAsync("vm", "rm", name)).EnsureSuccess();
        Assert.False(File.Exists($"/run/netns/{name}-vm"));
        Assert.False(File.Exists(Path.Combine(Instance.RunDirectory, "vm", name + ".tap")));
    }

    [Fact]
    public async Task A_VM_by_datagrams_outlives_the_agent_and_then_the_switch()
    {
        VirtualMachineImage image = await VirtualMachineImage.MakeAsync(Instance.ScratchDirectory);
        string arguments = (await Instance.VnetAsync("vm", "args", "web1", "--network", "vmnet8", "--link", "dgram")).EnsureSuccess().Output.Trim();
        await using TestGuest peer = await Instance.AddGuestAsync("vmpeer", "vmnet8");
        await using (VirtualMachine machine = image.Boot(Instance.Host, arguments))
        {
            string address = await machine.UntilDoneAsync(BootLimit);
            Assert.Contains("VM: hash " + Hash(), machine.Console, StringComparison.Ordinal);
            await AssertPingsAsync(peer, address);
            await AssertListedAsync("GUEST_STATE_READY", address);
            foreach (string service in new[] { "agent", "switch" })
            {
                await Instance.KillAsync(service);
                await Task.Delay(1000, Cancellation);
                await Wait.UntilAsync(TimeSpan.FromSeconds(15), $"the VM answers after the {service}'s death", async () =>
                    (await peer.RunAsync("ping", "-c", "1", "-W", "1", address)).ExitCode == 0);
            }
        }
        await Wait.UntilAsync(TimeSpan.FromSeconds(5), "the port is free", async () => await StateAsync() == "GUEST_STATE_STARTING");
        (await Instance.VnetAsync("vm", "rm", "web1")).EnsureSuccess();
        Assert.False(Directory.Exists(Path.Combine(Instance.RunDirectory, "vm")));
    }

    private static string Hash()
    {
        byte[] data = new byte[VirtualMachineImage.FileLength];
        WanServers.Fill(data, 0);
        return Convert.ToHexStringLower(SHA256.HashData(data));
    }

    private static async Task AssertPingsAsync(TestGuest guest, string address)
    {
        CommandResult result = await guest.RunAsync("ping", "-c", "2", "-i", "0.2", "-W", "2", address);
        Assert.True(result.ExitCode == 0, result.ToString());
    }

    private async Task<string> StateAsync()
    {
        using JsonDocument list = await Instance.JsonAsync("vm", "ls");
        return list.RootElement.EnumerateArray().Single().GetProperty("state").GetString()!;
    }

    private async Task AssertListedAsync(string state, string address)
    {
        using JsonDocument list = await Instance.JsonAsync("guest", "ls");
        JsonElement machine = list.RootElement.EnumerateArray().Single(guest => guest.GetProperty("kind").GetString() == "GUEST_KIND_VM");
        Assert.Equal(state, machine.GetProperty("state").GetString());
        Assert.Equal(address, machine.GetProperty("ipv4Addresses")[0].GetString());
    }
}
