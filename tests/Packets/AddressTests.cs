using System.Net;
using CsCheck;

namespace VNetMesh.Packets.Tests;

public sealed class AddressTests
{
    [Theory]
    [InlineData("")]
    [InlineData("192.0.2")]
    [InlineData("192.0.2.1.1")]
    [InlineData("192.0.2.256")]
    [InlineData("192.0.2.01")]
    [InlineData("192.0.2.-1")]
    [InlineData("192.0.2. 1")]
    [InlineData("192.0..1")]
    [InlineData("0x7f.0.0.1")]
    [InlineData(".0.0.0")]
    public void What_is_no_ipv4_address_is_refused(string text)
    {
        Assert.False(Ipv4Address.TryParse(text, out _));
        Assert.Throws<FormatException>(() => Ipv4Address.Parse(text));
    }

    [Theory]
    [InlineData("02:00:5e:10:00:01", true)]
    [InlineData("02-00-5E-10-00-01", true)]
    [InlineData("02005e100001", false)]
    [InlineData("02:00:5e:10:00:0", false)]
    [InlineData("02:00:5e:10:00:0g", false)]
    [InlineData("02.00.5e.10.00.01", false)]
    [InlineData("+2:00:5e:10:00:01", false)]
    [InlineData(null, false)]
    public void Mac_addresses_are_read_in_two_ways(string? text, bool isOne)
    {
        Assert.Equal(isOne, MacAddress.TryParse(text, out MacAddress address));
        Assert.Equal(isOne ? 0x02005E100001UL : 0, address.Value);
    }

    [Fact]
    public void Kinds_of_addresses()
    {
        Assert.True(Ipv4Address.Parse("127.255.0.1").IsLoopback && !Ipv4Address.Parse("128.0.0.1").IsLoopback);
        Assert.True(Ipv4Address.Parse("224.0.0.1").IsMulticast && Ipv4Address.Parse("239.255.255.255").IsMulticast && !Ipv4Address.Parse("240.0.0.1").IsMulticast);
        Assert.True(Ipv4Address.Parse("169.254.1.1").IsLinkLocal && Ipv4Address.Broadcast.IsBroadcast && Ipv4Address.Any.IsAny);
        Assert.True(Ipv4Address.Parse("0.1.2.3").IsReserved && Ipv4Address.Parse("250.0.0.1").IsReserved && !Ipv4Address.Parse("192.0.2.1").IsReserved);
        Assert.True(MacAddress.Parse("01:00:5e:00:00:01").IsMulticast && MacAddress.Broadcast.IsBroadcast && MacAddress.Broadcast.IsMulticast);
        Assert.True(MacAddress.Parse("02:56:4e:00:00:01").IsLocallyAdministered && !MacAddress.Parse("00:56:4e:00:00:01").IsLocallyAdministered);
        Assert.True(default(MacAddress).IsZero);
    }

    /// <summary>Against the runtime's own arithmetic of prefixes.</summary>
    [Fact]
    public void Subnets_hold_what_the_runtime_says() => Gen.Select(Gen.UInt, Gen.Int[0, 32], Gen.UInt).Sample((base_, length, other) =>
    {
        var subnet = new Ipv4Subnet(new Ipv4Address(base_), length);
        var address = new Ipv4Address(length > 0 && other % 2 == 0 ? subnet.Network.Value | (other & ~subnet.Mask.Value) : other);
        var oracle = IPNetwork.Parse(subnet.ToString());
        return oracle.Contains(address.ToIPAddress()) == subnet.Contains(address)
            && Ipv4Subnet.Parse(subnet.ToString()) == subnet
            && subnet.Broadcast.Value - (ulong)subnet.Network.Value + 1 == (ulong)subnet.Size
            && subnet.ContainsHost(address) == (subnet.Contains(address) && address != subnet.Network && address != subnet.Broadcast);
    });

    [Fact]
    public void Subnets_overlap_when_they_share_an_address() => Gen.Select(Gen.UInt, Gen.Int[0, 32], Gen.UInt, Gen.Int[0, 32]).Sample((first, firstLength, second, secondLength) =>
    {
        var left = new Ipv4Subnet(new Ipv4Address(first), firstLength);
        var right = new Ipv4Subnet(new Ipv4Address(second % 3 == 0 ? first ^ (second >> 16) : second), secondLength);
        bool share = Math.Max(left.Network.Value, right.Network.Value) <= Math.Min(left.Broadcast.Value, right.Broadcast.Value);
        return left.Overlaps(right) == share && right.Overlaps(left) == share;
    });

    [Theory]
    [InlineData("192.0.2.0")]
    [InlineData("192.0.2.0/33")]
    [InlineData("192.0.2.0/-1")]
    [InlineData("192.0.2.1/24")]
    [InlineData("192.0.2.0/")]
    [InlineData("/24")]
    public void What_is_no_subnet_is_refused(string text) => Assert.False(Ipv4Subnet.TryParse(text, out _));
}
