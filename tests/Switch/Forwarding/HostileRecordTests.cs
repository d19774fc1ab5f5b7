using CsCheck;
using VNetMesh.Links;
using VNetMesh.Packets;
using VNetMesh.Switch.Forwarding;
using VNetMesh.Switch.Registry;
using VNetMesh.Switch.Tests.Support;

namespace VNetMesh.Switch.Tests.Forwarding;

/// <summary>Any bytes may come: nothing throws, and every record is either passed on or counted under a cause.</summary>
public sealed class HostileRecordTests : ILinkObserver
{
    private static readonly byte[] KnownTypes = [0, 1, 3, 4, 5, 0x81];

    private static readonly Gen<VirtioNetHeader> Headers =
        from flags in Gen.Byte
        from type in Gen.OneOf(Gen.Int[0, 5].Select(kind => KnownTypes[kind]), Gen.Byte)
        from length in Gen.UShort
        from size in Gen.OneOf(Gen.UShort[0, 2000], Gen.UShort)
        from start in Gen.OneOf(Gen.UShort[0, 100], Gen.UShort)
        from offset in Gen.OneOf(Gen.UShort[0, 40], Gen.UShort)
        select new VirtioNetHeader { Flags = flags, GsoType = type, HeaderLength = length, GsoSize = size, ChecksumStart = start, ChecksumOffset = offset };

    private static readonly Gen<byte[]> Framed =
        from header in Headers
        from destination in Gen.Int[0, 5]
        from source in Gen.Int[0, 5]
        from body in Gen.Byte.Array[0, 3000]
        select Compose(header, destination, source, body);

    private static readonly Gen<byte[]> Records = Gen.Frequency((1, Gen.Byte.Array[0, 200]), (4, Framed));

    [Fact]
    public void EveryRecordIsForwardedOrCounted() => Records.Array[1, 20].Sample(records =>
    {
        var forwarder = new NetworkForwarder("networks/test", new ForwardingSettings(1500, 1_000_000, 16, 4, false), null, this);
        ForwardingPort[] ports = [.. Enumerable.Range(0, 3).Select(i => forwarder.CreatePort("networks/test/ports/" + i, PortRole.Guest))];
        FakeLink[] links = [new(), new(LinkOffloads.None), new(LinkOffloads.Checksum)];
        for (int i = 0; i < 3; i++)
        {
            forwarder.AddPort(ports[i]);
            forwarder.Connect(ports[i], links[i], i + 1, null);
        }
        long now = 0;
        foreach (byte[] record in records)
        {
            long before = Outcomes(forwarder);
            links[0].Inbox.Enqueue(record);
            forwarder.Serve(ports[0], now += 100_000);
            Assert.True(Outcomes(forwarder) > before);
        }
        Assert.Equal(records.Length, forwarder.Counters.RxFrames);
        // What takes no large segments and no partial checksums gets none, and nothing above the MTU.
        Assert.All(links[1].Sent, sent => Assert.True(VirtioNetHeader.Read(sent) is { NeedsChecksum: false, GsoType: 0 } && sent.Length <= 12 + 1500 + 18));
    }, iter: 2000);

    void ILinkObserver.OnLinkLost(ForwardingPort port, long connection, string reason) => Assert.Fail(reason);

    private static long Outcomes(NetworkForwarder forwarder) => forwarder.Counters.TxFrames + DropCauses.All.ToArray().Sum(forwarder.Counters.Drops);

    private static byte[] Compose(VirtioNetHeader header, int destination, int source, byte[] body)
    {
        byte[] record = new byte[VirtioNetHeader.Length + 14 + body.Length];
        header.Write(record);
        body.CopyTo(record, VirtioNetHeader.Length + 14);
        EthernetView.Write(record.AsSpan(VirtioNetHeader.Length), destination == 0 ? MacAddress.Broadcast : Frames.Station(destination), Frames.Station(source), EtherType.Ipv4);
        return record;
    }
}
