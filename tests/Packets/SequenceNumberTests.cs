using CsCheck;

namespace VNetMesh.Packets.Tests;

/// <summary>Arithmetic modulo 2^32 (RFC 9293, 3.4).</summary>
public sealed class SequenceNumberTests
{
    private static readonly Gen<(SequenceNumber Number, int Distance)> Near = Gen.Select(Gen.UInt, Gen.Int[0, int.MaxValue]).Select(t => (new SequenceNumber(t.Item1), t.Item2));

    [Fact]
    public void OrderHoldsAcrossTheWrap()
    {
        var before = new SequenceNumber(0xFFFFFFFF);
        var after = new SequenceNumber(0);
        Assert.True(before.IsBefore(after) && after.IsAfter(before));
        Assert.Equal(1, after.Since(before));
        Assert.Equal(-1, before.Since(after));
        Assert.Equal(after, before.Add(1));
        Assert.Equal(before, after.Add(-1));
        Assert.Equal(after, SequenceNumber.Max(before, after));
        Assert.Equal(before, SequenceNumber.Min(before, after));
    }

    [Fact]
    public void WhatIsAddedIsTheDistance() => Near.Sample(t =>
    {
        SequenceNumber later = t.Number.Add(t.Distance);
        Assert.Equal(t.Distance, later.Since(t.Number));
        Assert.Equal(t.Number, later.Add(-t.Distance));
        Assert.Equal(t.Distance > 0, later.IsAfter(t.Number));
        Assert.Equal(t.Distance > 0, t.Number.IsBefore(later));
        Assert.True(later.IsAtOrAfter(t.Number) && t.Number.IsAtOrBefore(later));
        Assert.Equal(later, SequenceNumber.Max(t.Number, later));
        Assert.Equal(t.Number, SequenceNumber.Min(later, t.Number));
    });

    [Fact]
    public void AWindowHasItsFirstNumberAndNotItsEnd() => Gen.Select(Gen.UInt, Gen.UInt[1, uint.MaxValue]).Sample((first, length) =>
    {
        var start = new SequenceNumber(first);
        Assert.True(start.InWindow(start, length));
        Assert.True(new SequenceNumber(first + length - 1).InWindow(start, length));
        Assert.False(new SequenceNumber(first + length).InWindow(start, length));
        Assert.False(start.InWindow(start, 0));
    });
}
