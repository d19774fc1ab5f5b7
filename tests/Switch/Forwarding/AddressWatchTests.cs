using VNetMesh.Packets;
using VNetMesh.Switch.Forwarding;

namespace VNetMesh.Switch.Tests.Forwarding;

public sealed class AddressWatchTests
{
    private const string One = "02:00:00:00:00:01";
    private const string Other = "02:00:00:00:00:02";
    private readonly AddressWatch _watch = new();

    [Fact]
    public void TwoThatTakeTurnsAreAConflictAndToldOnce()
    {
        Assert.Null(Claim("192.0.2.50", One, 0));
        Assert.Null(Claim("192.0.2.50", Other, 1));
        AddressConflict conflict = Claim("192.0.2.50", One, 2)!;
        Assert.Equal((One, Other), (conflict.Mac.ToString(), conflict.OtherMac.ToString()));
        Assert.Equal(("port of " + One, "port of " + Other), (conflict.Port, conflict.OtherPort));
        Assert.Null(Claim("192.0.2.50", Other, 3));
        Assert.Equal(conflict, Assert.Single(_watch.Conflicts));
        Assert.Equal(2, _watch.Count);
    }

    [Fact]
    public void OneThatTakesOverIsNone()
    {
        Claim("192.0.2.50", One, 0);
        Claim("192.0.2.50", Other, 1);
        Claim("192.0.2.50", Other, 2);
        Assert.Null(Claim("192.0.2.50", One, AddressWatch.Window + 3));
        Assert.Empty(_watch.Conflicts);
    }

    [Fact]
    public void ProbesClaimNothing()
    {
        Assert.Null(Claim("0.0.0.0", One, 0));
        Claim("0.0.0.0", Other, 1);
        Assert.Null(Claim("0.0.0.0", One, 2));
    }

    [Fact]
    public void AConflictEndsWhenThereAreNoSignsOfIt()
    {
        Claim("192.0.2.50", One, 0);
        Claim("192.0.2.50", Other, 1);
        Claim("192.0.2.50", One, 2);
        Claim("192.0.2.51", One, (AddressWatch.Window * 2) + 3);
        Assert.Empty(_watch.Conflicts);
    }

    [Fact]
    public void ItIsBounded()
    {
        for (uint i = 0; i < AddressWatch.MaxAddresses * 4; i++)
        {
            string address = new Ipv4Address(0x0A00_0000 + i).ToString();
            Claim(address, One, 0);
            Claim(address, Other, 1);
            Claim(address, One, 2);
        }
        Assert.Equal(AddressWatch.MaxConflicts, _watch.Conflicts.Count);
        Assert.Equal(AddressWatch.MaxAddresses, _watch.Count);
    }

    [Fact]
    public void AFrameThatIsCutShortIsNoClaim()
    {
        byte[] frame = Arp("192.0.2.50", One);
        for (int length = EthernetView.HeaderLength; length < frame.Length; length++)
            Assert.Null(_watch.Observe(frame.AsSpan(0, length), "port", 0));
        Assert.Equal(0, _watch.Count);
    }

    private AddressConflict? Claim(string address, string mac, long now) => _watch.Observe(Arp(address, mac), "port of " + mac, now);

    private static byte[] Arp(string address, string mac)
    {
        byte[] frame = new byte[EthernetView.HeaderLength + 28];
        EthernetView.Write(frame, MacAddress.Parse("ff:ff:ff:ff:ff:ff"), MacAddress.Parse(mac), EtherType.Arp);
        ((ReadOnlySpan<byte>)[0, 1, 8, 0, 6, 4, 0, 1]).CopyTo(frame.AsSpan(EthernetView.HeaderLength));
        MacAddress.Parse(mac).Write(frame.AsSpan(22));
        Ipv4Address.Parse(address).Write(frame.AsSpan(28));
        return frame;
    }
}
