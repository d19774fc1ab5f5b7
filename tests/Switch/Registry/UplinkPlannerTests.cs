using VNetMesh.Switch.Registry;

namespace VNetMesh.Switch.Tests.Registry;

public sealed class UplinkPlannerTests
{
    [Theory]
    [InlineData("eth0")]
    [InlineData("auto")]
    [InlineData("enp0s31f6.100")]
    public void ABridgedNetworkHasAnUplinkByTcUnlessToldOtherwise(string uplink)
    {
        NetworkDefinition network = NetworkPlanner.Complete(new NetworkDraft { Id = "lan", Kind = NetworkKind.Bridged, Uplink = uplink }, []);
        Assert.Equal((uplink, UplinkDriver.Tc), (network.Uplink, network.UplinkDriver));
    }

    [Theory]
    [InlineData("eth 0")]
    [InlineData("a/b")]
    [InlineData("..")]
    [InlineData("sixteen-octets--")]
    public void ANameThatTheKernelWouldNotTakeIsRefused(string uplink) =>
        AssertRefused(new NetworkDraft { Id = "lan", Kind = NetworkKind.Bridged, Uplink = uplink });

    [Fact]
    public void OtherKindsHaveNone()
    {
        AssertRefused(new NetworkDraft { Id = "lan", Kind = NetworkKind.Nat, Uplink = "eth0" });
        AssertRefused(new NetworkDraft { Id = "lan", Kind = NetworkKind.HostOnly, UplinkDriver = UplinkDriver.Pcap });
        NetworkDefinition network = NetworkPlanner.Complete(new NetworkDraft { Id = "lan", Kind = NetworkKind.Isolated }, []);
        Assert.Equal(("", UplinkDriver.Unspecified), (network.Uplink, network.UplinkDriver));
    }

    [Fact]
    public void TheFileSaysItToo()
    {
        DeclaredNetwork declared = Assert.Single(NetworkDeclarations.Parse("networks: { vmnet0: { uplink: eth0, uplink_driver: pcap } }"));
        NetworkDraft draft = declared.Apply(new NetworkDraft { Uplink = "auto" });
        Assert.Equal(("eth0", UplinkDriver.Pcap), (draft.Uplink, draft.UplinkDriver));
        Assert.Equal("", Assert.Single(NetworkDeclarations.Parse("networks: { vmnet0: { uplink: none } }")).Apply(draft).Uplink);
    }

    private static void AssertRefused(NetworkDraft draft) => Assert.Equal("UPLINK_INVALID", Assert.Throws<RegistryException>(() => NetworkPlanner.Complete(draft, [])).Reason);
}
