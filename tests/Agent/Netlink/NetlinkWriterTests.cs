using VNetMesh.Agent.Netlink;
using VNetMesh.Native;
using VNetMesh.Packets;

namespace VNetMesh.Agent.Tests.Netlink;

public sealed class NetlinkWriterTests
{
    [Fact]
    public void An_address_is_added_with_these_octets()
    {
        var writer = new NetlinkWriter(LinuxRtnetlink.RTM_NEWADDR, LinuxNetlink.NLM_F_ACK | LinuxNetlink.NLM_F_CREATE | LinuxNetlink.NLM_F_EXCL, NetlinkWriter.Address(7, 24))
            .Attribute(LinuxRtnetlink.IFA_LOCAL, Ipv4Address.Parse("192.168.101.1"));
        byte[] expected =
        [
            0x20, 0x00, 0x00, 0x00, // length 32
            0x14, 0x00,             // RTM_NEWADDR
            0x05, 0x06,             // REQUEST, ACK; EXCL, CREATE
            0x2A, 0x00, 0x00, 0x00, // sequence 42
            0x00, 0x00, 0x00, 0x00, // port: the kernel knows it
            0x02, 0x18, 0x00, 0x00, // AF_INET, /24, no flags, scope universe
            0x07, 0x00, 0x00, 0x00, // interface 7
            0x08, 0x00, 0x02, 0x00, // IFA_LOCAL of 8 octets
            0xC0, 0xA8, 0x65, 0x01, // in network order
        ];
        Assert.Equal(expected, writer.Finish(42).ToArray());
    }

    [Fact]
    public void A_link_is_set_up_with_these_octets()
    {
        var writer = new NetlinkWriter(LinuxRtnetlink.RTM_NEWLINK, LinuxNetlink.NLM_F_ACK, NetlinkWriter.Link(3, LinuxRtnetlink.IFF_UP, LinuxRtnetlink.IFF_UP));
        byte[] expected =
        [
            0x20, 0x00, 0x00, 0x00, 0x10, 0x00, 0x05, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
            0x00, 0x00, 0x00, 0x00, // AF_UNSPEC, any type
            0x03, 0x00, 0x00, 0x00, // interface 3
            0x01, 0x00, 0x00, 0x00, // flags: IFF_UP
            0x01, 0x00, 0x00, 0x00, // of which this one is to change
        ];
        Assert.Equal(expected, writer.Finish(1).ToArray());
    }

    [Fact]
    public void Attributes_are_padded_but_their_length_is_not()
    {
        var writer = new NetlinkWriter(LinuxRtnetlink.RTM_GETLINK, 0, NetlinkWriter.Link(0)).Attribute(LinuxRtnetlink.IFLA_IFNAME, "eth0");
        byte[] message = writer.Finish(1).ToArray();
        Assert.Equal([0x09, 0x00, 0x03, 0x00, (byte)'e', (byte)'t', (byte)'h', (byte)'0', 0x00, 0x00, 0x00, 0x00], message[32..]);
        Assert.Equal(44, message[0]);
    }

    [Fact]
    public void A_message_grows_beyond_its_first_buffer()
    {
        string alias = new('x', 250);
        var writer = new NetlinkWriter(LinuxRtnetlink.RTM_NEWLINK, 0, NetlinkWriter.Link(1)).Attribute(LinuxRtnetlink.IFLA_IFALIAS, alias).Attribute(LinuxRtnetlink.IFLA_MTU, 1500);
        var reader = new NetlinkReader(writer.Finish(9));
        Assert.True(reader.TryNext(out NetlinkMessage message));
        LinkInfo link = Assert.IsType<LinkInfo>(LinkInfo.Parse(message));
        Assert.Equal((alias, 1500u), (link.Alias, link.Mtu));
    }
}
