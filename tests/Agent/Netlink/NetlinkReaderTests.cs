using CsCheck;
using VNetMesh.Agent.Netlink;
using VNetMesh.Native;

namespace VNetMesh.Agent.Tests.Netlink;

public sealed class NetlinkReaderTests
{
    // What a kernel answered to RTM_GETLINK for a TAP, with the attributes that do not matter left out.
    private static readonly byte[] TapLink =
    [
        0x58, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x05, 0x00, 0x00, 0x00, 0x39, 0x30, 0x00, 0x00,
        0x00, 0x00, 0x01, 0x00, // AF_UNSPEC, ARPHRD_ETHER
        0x02, 0x00, 0x00, 0x00, // interface 2
        0x43, 0x10, 0x01, 0x00, // UP, BROADCAST, RUNNING, MULTICAST, LOWER_UP
        0x00, 0x00, 0x00, 0x00,
        0x09, 0x00, 0x03, 0x00, 0x65, 0x74, 0x68, 0x30, 0x00, 0x00, 0x00, 0x00, // IFLA_IFNAME "eth0"
        0x08, 0x00, 0x04, 0x00, 0xDC, 0x05, 0x00, 0x00,                         // IFLA_MTU 1500
        0x0A, 0x00, 0x01, 0x00, 0x02, 0x56, 0x4E, 0x01, 0x02, 0x03, 0x00, 0x00, // IFLA_ADDRESS
        0x0C, 0x00, 0x12, 0x80,                                                 // IFLA_LINKINFO, nested
        0x08, 0x00, 0x01, 0x00, 0x74, 0x75, 0x6E, 0x00,                         // IFLA_INFO_KIND "tun"
        0x09, 0x00, 0x14, 0x00, 0x76, 0x6E, 0x65, 0x74, 0x00, 0x00, 0x00, 0x00, // IFLA_IFALIAS "vnet"
    ];

    [Fact]
    public void A_link_is_read()
    {
        var reader = new NetlinkReader(TapLink);
        Assert.True(reader.TryNext(out NetlinkMessage message));
        Assert.Equal(5u, message.Sequence);
        LinkInfo link = Assert.IsType<LinkInfo>(LinkInfo.Parse(message));
        Assert.Equal(new LinkInfo(2, "eth0", Packets.MacAddress.Parse("02:56:4e:01:02:03"), 1500, true, "tun", "vnet") { HardwareType = LinuxRtnetlink.ARPHRD_ETHER, HasCarrier = true }, link);
        Assert.False(reader.TryNext(out _));
    }

    [Fact]
    public void An_error_is_read_with_the_kernels_own_words()
    {
        byte[] error =
        [
            0x34, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x03, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // NLMSG_ERROR; CAPPED, ACK_TLVS
            0xEF, 0xFF, 0xFF, 0xFF, // -17: EEXIST
            0x20, 0x00, 0x00, 0x00, 0x14, 0x00, 0x05, 0x06, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // header of the request
            0x0E, 0x00, 0x01, 0x00, 0x69, 0x73, 0x20, 0x74, 0x68, 0x65, 0x72, 0x65, 0x2E, 0x00, 0x00, 0x00, // NLMSGERR_ATTR_MSG "is there."
        ];
        var reader = new NetlinkReader(error);
        Assert.True(reader.TryNext(out NetlinkMessage message));
        Assert.True(message.TryGetError(out int errno, out string text));
        Assert.Equal((NativeErrno.EEXIST, "is there."), (errno, text));
    }

    [Theory]
    [InlineData(15)] // shorter than its own header
    [InlineData(0)]
    [InlineData(1000)] // longer than what there is
    public void A_message_whose_length_does_not_fit_ends_the_walk(ushort length)
    {
        byte[] bytes = [.. TapLink];
        (bytes[0], bytes[1]) = ((byte)length, (byte)(length >> 8));
        var reader = new NetlinkReader(bytes);
        Assert.False(reader.TryNext(out _));
    }

    [Fact]
    public void Nothing_that_comes_throws_or_reads_beyond_its_end()
    {
        Gen<byte[]> mutated = Gen.Select(Gen.Int[0, TapLink.Length - 1].Array[1, 6], Gen.Byte.Array[6], Gen.Int[0, TapLink.Length], (places, values, length) =>
        {
            byte[] bytes = [.. TapLink];
            for (int i = 0; i < places.Length; i++)
                bytes[places[i]] = values[i];
            return bytes[..length];
        });
        Gen.OneOf(mutated, Gen.Byte.Array[0, 200]).Sample(bytes =>
        {
            var reader = new NetlinkReader(bytes);
            int messages = 0;
            while (reader.TryNext(out NetlinkMessage message))
            {
                _ = LinkInfo.Parse(message);
                _ = AddressInfo.Parse(message);
                _ = RouteInfo.Parse(message);
                _ = message.TryGetError(out _, out _);
                messages++;
            }
            Assert.True(messages <= bytes.Length / LinuxNetlink.NLMSG_HDRLEN);
        }, iter: 20_000);
    }
}
