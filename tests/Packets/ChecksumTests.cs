using CsCheck;

namespace VNetMesh.Packets.Tests;

public sealed class ChecksumTests
{
    /// <summary>RFC 1071, 3: the example's eight octets sum to ddf2.</summary>
    [Fact]
    public void Sums_the_example_of_the_rfc()
    {
        byte[] example = [0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7];
        Assert.Equal(0xDDF2, Checksum.Fold(Checksum.Add(0, example)));
        Assert.Equal(0x220D, Checksum.Compute(example));
    }

    [Fact]
    public void Agrees_with_the_naive_sum_at_every_length_and_alignment()
    {
        var random = new Random(1);
        byte[] buffer = new byte[400];
        for (int length = 0; length <= 300; length++)
        {
            random.NextBytes(buffer);
            for (int offset = 0; offset < 9; offset++)
                Assert.Equal(NaiveChecksum.Compute(buffer[offset..(offset + length)]), Checksum.Compute(buffer.AsSpan(offset, length)));
        }
    }

    [Theory]
    [InlineData(1499)]
    [InlineData(65535)]
    [InlineData(65553)]
    [InlineData(1 << 20)]
    public void Agrees_with_the_naive_sum_where_carries_are_many(int length)
    {
        byte[] ones = new byte[length];
        Array.Fill(ones, (byte)0xFF);
        Assert.Equal(NaiveChecksum.Sum(ones[..Math.Min(length, 65553)]), Checksum.Fold(Checksum.Add(0, ones.AsSpan(0, Math.Min(length, 65553)))));
        byte[] random = new byte[length];
        new Random(length).NextBytes(random);
        // The naive sum's 32 bits hold 64 KiB of any octets.
        ulong whole = 0;
        ushort naive = 0;
        foreach (byte[] chunk in random.Chunk(65534))
        {
            whole = Checksum.Add(whole, chunk);
            naive = NaiveChecksum.Sum([(byte)(naive >> 8), (byte)naive], chunk);
        }
        Assert.Equal(naive, Checksum.Fold(whole));
    }

    [Fact]
    public void Sums_of_parts_are_the_sum_of_the_whole() =>
        Gen.Select(Gen.Byte.Array[0, 700], Gen.Int[0, 350]).Sample((data, half) =>
        {
            int cut = Math.Min(half * 2, data.Length & ~1);
            return Checksum.Fold(Checksum.Add(Checksum.Add(0, data.AsSpan(0, cut)), data.AsSpan(cut))) == NaiveChecksum.Sum(data);
        });

    [Fact]
    public void A_checksum_in_its_place_makes_the_data_valid_and_any_flipped_bit_does_not() =>
        Gen.Select(Gen.Byte.Array[4, 200], Gen.Int[0, 1599]).Sample((data, bit) =>
        {
            data[0] = data[1] = 0;
            ushort checksum = Checksum.Compute(data);
            (data[0], data[1]) = ((byte)(checksum >> 8), (byte)checksum);
            bool valid = Checksum.IsValid(data);
            data[bit / 8 % data.Length] ^= (byte)(1 << (bit % 8));
            return valid && !Checksum.IsValid(data);
        });

    [Fact]
    public void Pseudo_headers_are_those_of_the_rfcs()
    {
        Ipv4Address source = Ipv4Address.Parse("192.0.2.1"), destination = Ipv4Address.Parse("198.51.100.7");
        byte[] v4 = [192, 0, 2, 1, 198, 51, 100, 7, 0, 6, 0x12, 0x34];
        Assert.Equal(NaiveChecksum.Sum(v4), Checksum.Fold(Checksum.PseudoHeader(source, destination, 6, 0x1234)));
        byte[] from = [.. Enumerable.Range(1, 16).Select(i => (byte)i)], to = [.. Enumerable.Range(101, 16).Select(i => (byte)i)];
        Assert.Equal(NaiveChecksum.Sum(from, to, [0, 1, 0x02, 0x03, 0, 0, 0, 17]), Checksum.Fold(Checksum.PseudoHeaderV6(from, to, 17, 0x10203)));
    }

    [Fact]
    public void Allocates_nothing()
    {
        byte[] data = new byte[1500];
        Checksum.Compute(data);
        long before = GC.GetAllocatedBytesForCurrentThread();
        ushort all = 0;
        for (int i = 0; i < 1000; i++)
            all |= Checksum.Finish(Checksum.Add(Checksum.PseudoHeader(Ipv4Address.Any, Ipv4Address.Broadcast, 6, 1480), data));
        Assert.Equal(before, GC.GetAllocatedBytesForCurrentThread());
        Assert.NotEqual(0, all);
    }
}
