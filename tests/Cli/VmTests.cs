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
        VmCommands.Arguments(Machine, 1500, "virtio-net-pci"));

    [Fact]
    public void Another_MTU_is_told_to_devices_that_can_be_told()
    {
        Assert.EndsWith(",host_mtu=9000", VmCommands.Arguments(Machine, 9000, "virtio-net-pci"), StringComparison.Ordinal);
        Assert.EndsWith("mac=02:56:4e:00:00:01", VmCommands.Arguments(Machine, 9000, "e1000"), StringComparison.Ordinal);
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
