using System.CommandLine;
using Grpc.Core;
using VNetMesh.Cli.Commands;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;
using VNetMesh.Hosting;
using VNetMesh.V1;

namespace VNetMesh.Cli.Tests;

/// <summary>Parsing, field masks, and errors as exit codes.</summary>
public sealed class CommandTests
{
    [Theory]
    [InlineData("network ls --json")]
    [InlineData("network create lab --kind nat --subnet 10.44.0.0/24 --isolate-ports true")]
    [InlineData("network update vmnet8 --mtu 9000")]
    [InlineData("network rm lab --force")]
    [InlineData("port ls vmnet8")]
    [InlineData("mac ls vmnet8")]
    [InlineData("lease ls")]
    [InlineData("nat flows vmnet8 --json")]
    [InlineData("nat forward add vmnet8/www --listen 8080 --guest 192.168.108.128:80")]
    [InlineData("guest add web1 --network vmnet8 --mac 02:00:5e:10:00:01 --no-dhcp")]
    [InlineData("guest add web1 --network vmnet8 --netns 4711")]
    [InlineData("guest rm web1 web2")]
    [InlineData("reservation add vmnet8/web1 --address 192.168.108.10 --mac 02:00:5e:10:00:01")]
    [InlineData("host changes")]
    [InlineData("demo --clean")]
    public void IsUnderstood(string line) => Assert.Empty(Parse(line).Errors);

    [Theory]
    [InlineData("guest add web1")]
    [InlineData("network create lab")]
    [InlineData("network create lab --kind magic")]
    [InlineData("network update vmnet8 --mtu many")]
    [InlineData("mac ls")]
    [InlineData("frobnicate")]
    public void IsRefused(string line) => Assert.NotEmpty(Parse(line).Errors);

    [Fact]
    public void AnUpdateNamesWhatWasGivenAndNothingElse()
    {
        var command = new Command("update");
        var options = new NetworkOptions(command, withKind: false);
        var network = new Network { Name = "networks/vmnet8" };
        List<string> paths = options.Apply(command.Parse("--mtu 9000 --lease 600 --dns 192.0.2.53 --dns 192.0.2.54 --dhcp false"), network);
        Assert.Equal(["mtu", "dhcpv4.default_lease", "dhcpv4.dns_servers", "dhcpv4.enabled"], paths);
        Assert.Equal(9000u, network.Mtu);
        Assert.Equal(600, network.Dhcpv4.DefaultLease.Seconds);
        Assert.Equal(["192.0.2.53", "192.0.2.54"], network.Dhcpv4.DnsServers);
        Assert.False(network.Dhcpv4.Enabled);
    }

    [Theory]
    [InlineData(StatusCode.InvalidArgument, 2)]
    [InlineData(StatusCode.PermissionDenied, 3)]
    [InlineData(StatusCode.Unavailable, 4)]
    [InlineData(StatusCode.NotFound, 5)]
    [InlineData(StatusCode.AlreadyExists, 6)]
    [InlineData(StatusCode.FailedPrecondition, 7)]
    [InlineData(StatusCode.ResourceExhausted, 7)]
    [InlineData(StatusCode.Aborted, 7)]
    [InlineData(StatusCode.Internal, 1)]
    [InlineData(StatusCode.Unknown, 1)]
    [InlineData(StatusCode.DeadlineExceeded, 1)]
    public void AStatusHasItsExitCode(StatusCode status, int exitCode) => Assert.Equal(exitCode, ErrorMap.ExitCodeOf(status));

    [Fact]
    public void AnErrorIsOneLineWithItsReason()
    {
        RpcException exception = RpcErrors.FailedPrecondition("SUBNET_OVERLAPS", "10.0.0.0/8 overlaps networks/lab;\nchoose another", ("network", "networks/lab"));
        Assert.Equal("10.0.0.0/8 overlaps networks/lab; choose another [SUBNET_OVERLAPS]", ErrorMap.MessageOf(exception));
    }

    [Fact]
    public async Task ServicesThatAreNotThereAreExitCodeFour()
    {
        int code = await Program.RunAsync(() => throw new RpcException(new Status(StatusCode.Unavailable, "connect failed")));
        Assert.Equal(ExitCode.NotRunning, code);
    }

    private static ParseResult Parse(string line)
    {
        using var services = new Services();
        return RootCommands.Create(services, new Output(TextWriter.Null, isTerminal: false, width: 80)).Parse(line);
    }
}
