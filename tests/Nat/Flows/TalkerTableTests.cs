using VNetMesh.Nat.Flows;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tests.Flows;

public sealed class TalkerTableTests
{
    private readonly TalkerTable _table = new();

    [Fact]
    public void A_guest_keeps_its_place_and_what_it_counted()
    {
        Talker first = _table.Begin(Guest(1));
        first.ToRemote += 10;
        _table.End(first);
        Assert.Same(first, _table.Begin(Guest(1)));
        Assert.Equal([(10L, "transmit"), (0L, "receive")], Assert.Single(_table.List()).Ways);
    }

    [Fact]
    public void Guests_beyond_the_places_are_summed()
    {
        for (int i = 0; i < TalkerTable.MaxPlaces; i++)
            _table.Begin(Guest(i));
        Talker late = _table.Begin(Guest(200)), later = _table.Begin(Guest(201));
        Assert.Same(late, later);
        Assert.Equal("other", late.Name);
        Assert.Equal(TalkerTable.MaxPlaces + 1, _table.List().Count);
    }

    [Fact]
    public void The_guest_that_was_silent_longest_gives_way()
    {
        Talker[] all = [.. Enumerable.Range(0, TalkerTable.MaxPlaces).Select(i => _table.Begin(Guest(i)))];
        _table.End(all[7]);
        _table.End(all[3]);
        Assert.Equal(Guest(200).ToString(), _table.Begin(Guest(200)).Name);
        Assert.DoesNotContain(all[7], _table.List());
        Assert.Contains(all[3], _table.List());
        Assert.Equal(TalkerTable.MaxPlaces, _table.List().Count);
    }

    private static Ipv4Address Guest(int number) => new((uint)(0xC0A8_6C00 + number));
}
