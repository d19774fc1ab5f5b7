using VNetMesh.Agent.Devices;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Tests.Devices;

public sealed class MacAddressesTests
{
    [Fact]
    public void The_address_is_the_prefix_and_the_first_octets_of_the_ports_hash() =>
        // printf networks/vmnet8/ports/web1 | sha256sum
        Assert.Equal(MacAddress.Parse("02:56:4e:47:6b:7c"), MacAddresses.ForPort("networks/vmnet8/ports/web1"));

    [Fact]
    public void It_is_of_one_device_locally_administered_and_differs_by_port()
    {
        MacAddress[] addresses = [.. Enumerable.Range(0, 100).Select(i => MacAddresses.ForPort($"networks/vmnet8/ports/web{i}"))];
        Assert.All(addresses, address => Assert.True(address is { IsLocallyAdministered: true, IsMulticast: false }));
        Assert.Equal(100, addresses.Distinct().Count());
    }
}
