using VNetMesh.Cli.Commands;
using VNetMesh.Cli.Connections;
using VNetMesh.Cli.Rendering;
using VNetMesh.V1;

namespace VNetMesh.Cli.Tests;

/// <summary>What people and pipes get to read.</summary>
public sealed class RenderingTests
{
    private static readonly Network Vmnet8 = new()
    {
        Name = "networks/vmnet8",
        Kind = NetworkKind.Nat,
        Ipv4Subnet = "192.168.108.0/24",
        Ipv4HostAddress = "192.168.108.1",
        Ipv4Gateway = "192.168.108.2",
        Mtu = 1500,
        Dhcpv4 = new Dhcpv4Settings { Enabled = true, RangeStart = "192.168.108.128", RangeEnd = "192.168.108.253" },
        Counters = new TrafficCounters { RxBytes = 27_400_000, Drops = { ["queue_full"] = 3, ["too_long"] = 4 } },
    };

    [Fact]
    public void ANetworkTableInAPipeHasPlainColumns()
    {
        string text = Render(output => NetworkCommands.WriteTable(output, [Vmnet8, new Network { Name = "networks/vmnet0", Kind = NetworkKind.Bridged, Mtu = 1500 }]));
        Assert.Equal(
            """
            NETWORK  KIND     SUBNET            HOST           GATEWAY        DHCP                  MTU   RECEIVED  DROPS
            vmnet8   nat      192.168.108.0/24  192.168.108.1  192.168.108.2  192.168.108.128–.253  1500  27 MB     7
            vmnet0   bridged  –                 –              –              off                   1500  0 B       0

            """, text);
    }

    [Fact]
    public void AFlowShowsItsThreeEndsAndItsWay()
    {
        var flow = new Flow
        {
            Name = "networks/vmnet8/flows/7",
            Protocol = Protocol.Tcp,
            Guest = new Endpoint { Address = "192.168.108.128", Port = 40000 },
            Remote = new Endpoint { Address = "192.0.2.80", Port = 80 },
            Host = new Endpoint { Address = "192.0.2.1", Port = 51000 },
            State = FlowState.HalfClosed,
            BytesToRemote = 999,
            BytesToGuest = 1_500,
        };
        string text = Render(output => NatCommands.WriteTable(output, [flow]));
        Assert.Contains("vmnet8   tcp       192.168.108.128:40000  →  192.0.2.80:80  192.0.2.1:51000  half-closed  999 B  1.5 kB", text, StringComparison.Ordinal);
    }

    [Fact]
    public void AnEmptyTableSaysSo() => Assert.Equal("No leases.\n", Render(output => DhcpCommands.WriteTable(output, [])));

    [Fact]
    public void JsonIsAnArrayWithEveryField()
    {
        string text = Render(output => output.WriteJson<Network>([Vmnet8, Vmnet8]));
        System.Text.Json.JsonElement array = System.Text.Json.JsonDocument.Parse(text).RootElement;
        Assert.Equal(2, array.GetArrayLength());
        Assert.Equal("NETWORK_KIND_NAT", array[0].GetProperty("kind").GetString());
        Assert.False(array[0].GetProperty("isolatePorts").GetBoolean());
        Assert.Equal("[]\n", Render(output => output.WriteJson<Network>([])));
    }

    [Theory]
    [InlineData(0, "0 B")]
    [InlineData(999, "999 B")]
    [InlineData(1_000, "1.0 kB")]
    [InlineData(9_940, "9.9 kB")]
    [InlineData(27_400_000, "27 MB")]
    [InlineData(999_600, "1.0 MB")]
    [InlineData(ulong.MaxValue, "18447 PB")]
    public void BytesAreRounded(ulong bytes, string expected) => Assert.Equal(expected, Units.Bytes(bytes));

    [Theory]
    [InlineData(0.35, "350 ms")]
    [InlineData(12.9, "12 s")]
    [InlineData(250, "4 min 10 s")]
    [InlineData(7_500, "2 h 5 min")]
    [InlineData(273_600, "3 d 4 h")]
    [InlineData(-1, "0 s")]
    public void TimesAreRounded(double seconds, string expected) => Assert.Equal(expected, Units.Time(TimeSpan.FromSeconds(seconds)));

    [Theory]
    [InlineData("vmnet8", "networks/vmnet8")]
    [InlineData("networks/vmnet8", "networks/vmnet8")]
    public void NetworksMayBeShort(string typed, string full) => Assert.Equal(full, Names.Network(typed));

    [Theory]
    [InlineData("vmnet8/web1", "networks/vmnet8/ports/web1")]
    [InlineData("networks/vmnet8/ports/web1", "networks/vmnet8/ports/web1")]
    public void PortsMayBeShort(string typed, string full) => Assert.Equal(full, Names.Child(typed, "ports"));

    private static string Render(Action<Output> write)
    {
        using var writer = new StringWriter { NewLine = "\n" };
        write(new Output(writer, isTerminal: false, width: int.MaxValue));
        return writer.ToString().ReplaceLineEndings("\n");
    }
}
