using System.Text;
using VNetMesh.Cli.Commands;
using VNetMesh.Cli.Connections;
using VNetMesh.V1;

namespace VNetMesh.Cli.Tests;

/// <summary>What QEMU is told, and what a container engine says.</summary>
public sealed class VmTests
{
    private static readonly Guest Machine = new() { Name = "guests/web1", Mac = "02:56:4e:00:00:01", VmSocket = "/run/a,b/vm/web1.sock" };

    [Fact]
    public void The_arguments_name_socket_and_address() => Assert.Equal(
        "-netdev stream,id=web1,server=off,addr.type=unix,addr.path=/run/a,,b/vm/web1.sock -device virtio-net-pci,netdev=web1,mac=02:56:4e:00:00:01",
        string.Join(' ', VmCommands.Arguments(Machine, 1500, "virtio-net-pci")));

    [Fact]
    public void The_arguments_name_both_places_of_datagrams() => Assert.Equal(
        "dgram,id=web1,local.type=unix,local.path=/run/a,,b/vm/web1.sock.peer,remote.type=unix,remote.path=/run/a,,b/vm/web1.sock",
        VmCommands.Arguments(new Guest(Machine) { VmLink = VmLink.Datagram }, 1500, "virtio-net-pci")[1]);

    [Fact]
    public void The_arguments_name_the_TAPs_descriptor() => Assert.Equal(
        ["-netdev", "tap,id=web1,fd=7,vhost=off", "-device", "virtio-net-pci,netdev=web1,mac=02:56:4e:00:00:01"],
        VmCommands.Arguments(Machine, 1500, "virtio-net-pci", 7));

    [Theory]
    [InlineData("vm run web1 --network vmnet8 -- qemu -m 1", "web1", "qemu -m 1")]
    [InlineData("vm run --network vmnet8 -- qemu --mac x", "", "qemu --mac x")]
    public void What_stands_behind_two_dashes_is_the_command(string line, string name, string command)
    {
        using var services = new Services();
        System.CommandLine.ParseResult parsed = RootCommands.Create(services, Rendering.Output.ForConsole()).Parse(line.Split(' '));
        Assert.Empty(parsed.Errors);
        (string? found, string[] words) = VmRun.Split(parsed);
        Assert.Equal(name, found ?? "");
        Assert.Equal(command, string.Join(' ', words));
    }

    [Theory]
    [InlineData("vm run web1 --network vmnet8")]
    [InlineData("vm run web1 --network vmnet8 --")]
    [InlineData("vm run web1 web2 --network vmnet8 -- qemu")]
    public void A_run_without_a_command_is_refused(string line)
    {
        using var services = new Services();
        System.CommandLine.ParseResult parsed = RootCommands.Create(services, Rendering.Output.ForConsole()).Parse(line.Split(' '));
        Assert.Equal(ExitCode.Usage, Assert.Throws<CliException>(() => VmRun.Split(parsed)).ExitCode);
    }

    [Theory]
    [InlineData("", "vm1")]
    [InlineData("vm1:ready", "vm2")]
    [InlineData("vm1:starting", "vm1")]
    [InlineData("vm1:other,vm2:netns", "vm3")]
    public void A_VM_without_a_name_gets_the_first_that_is_idle(string there, string expected)
    {
        IEnumerable<Guest> guests = there.Split(',', StringSplitOptions.RemoveEmptyEntries).Select(text => text.Split(':')).Select(parts => new Guest
        {
            Name = "guests/" + parts[0],
            Network = parts[1] == "other" ? "networks/vmnet1" : "networks/vmnet8",
            Kind = parts[1] == "netns" ? GuestKind.Netns : GuestKind.Vm,
            State = parts[1] == "ready" ? GuestState.Ready : GuestState.Starting,
        });
        Assert.Equal(expected, VmRun.Choose([.. guests], "networks/vmnet8"));
    }

    [Fact]
    public void Another_MTU_is_told_to_devices_that_can_be_told()
    {
        Assert.EndsWith(",host_mtu=9000", VmCommands.Arguments(Machine, 9000, "virtio-net-pci")[^1], StringComparison.Ordinal);
        Assert.EndsWith("mac=02:56:4e:00:00:01", VmCommands.Arguments(Machine, 9000, "e1000")[^1], StringComparison.Ordinal);
    }

    [Fact]
    public void A_containers_process_is_read_from_the_engines_answer() =>
        Assert.Equal(4711, ContainerEngine.ReadProcess("box", Encoding.UTF8.GetBytes("""{"Id":"f","State":{"Status":"running","Running":true,"Pid":4711}}""")));

    [Theory]
    [InlineData("""{"State":{"Status":"exited","Pid":0}}""", ExitCode.Refused)]
    [InlineData("""{"State":{}}""", ExitCode.Failed)]
    [InlineData("""[]""", ExitCode.Failed)]
    [InlineData("""hello""", ExitCode.Failed)]
    public void What_is_no_running_container_is_refused(string answer, int exitCode) =>
        Assert.Equal(exitCode, Assert.Throws<CliException>(() => ContainerEngine.ReadProcess("box", Encoding.UTF8.GetBytes(answer))).ExitCode);
}
