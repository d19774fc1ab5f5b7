using VNetMesh.Cli.Commands;
using VNetMesh.V1;

namespace VNetMesh.Cli.Tests;

/// <summary>Which guest makes room when a container is plugged in again.</summary>
public sealed class ContainerGuestsTests
{
    [Theory]
    [InlineData("box", GuestState.Degraded, "/proc/7/ns/net", true)]
    [InlineData("box", GuestState.Degraded, "/proc/8/ns/net", false)]
    [InlineData("box", GuestState.Ready, "/proc/7/ns/net", true)]
    [InlineData("box", GuestState.Ready, "/proc/8/ns/net", false)]
    [InlineData("other", GuestState.Degraded, "/proc/7/ns/net", false)]
    [InlineData("", GuestState.Degraded, "/run/netns/box", false)]
    public void Only_a_guest_of_the_same_container_in_another_namespace(string container, GuestState state, string netns, bool makesRoom) =>
        Assert.Equal(makesRoom, ContainerGuests.IsOfEarlierRun(new Guest { Container = container, State = state, Netns = netns }, "box", "8"));
}
