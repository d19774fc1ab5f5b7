using CsCheck;
using VNetMesh.Packets.Offload;

namespace VNetMesh.Packets.Tests.Offload;

public sealed class ChecksumCompletionTests
{
    [Fact]
    public void Completes_what_is_partial() => LargeFrame.Any.Sample(model =>
    {
        model = model with { SegmentSize = ushort.MaxValue };
        byte[] frame = model.Large();
        VirtioNetHeader header = model.Header;
        Assert.Equal(OffloadFault.None, ChecksumCompletion.Complete(frame, header));
        byte[] expected = model.Segments().Single();
        // Zero and all ones are one number; completion writes the latter for TCP too, as the kernel does.
        int field = header.ChecksumStart + header.ChecksumOffset;
        if (expected[field] == 0 && expected[field + 1] == 0)
            expected[field] = expected[field + 1] = 0xFF;
        Assert.Equal(Convert.ToHexString(expected), Convert.ToHexString(frame));
    }, iter: 500);

    [Fact]
    public void Leaves_what_is_complete()
    {
        byte[] frame = new byte[60];
        Assert.Equal(OffloadFault.None, ChecksumCompletion.Complete(frame, new VirtioNetHeader { ChecksumStart = 9999 }));
        Assert.All(frame, octet => Assert.Equal(0, octet));
    }

    [Theory]
    [InlineData(0, 10)]
    [InlineData(13, 2)]
    [InlineData(14, 45)]
    [InlineData(58, 1)]
    [InlineData(60, 0)]
    [InlineData(65535, 65535)]
    public void Refuses_a_place_outside_of_the_packet(ushort start, ushort offset) =>
        Assert.Equal(OffloadFault.ChecksumPlaceInvalid,
            ChecksumCompletion.Complete(new byte[60], new VirtioNetHeader { Flags = VirtioNetHeader.FlagNeedsChecksum, ChecksumStart = start, ChecksumOffset = offset }));

    [Fact]
    public void Random_places_never_throw() =>
        Gen.Select(Gen.Byte.Array[0, 200], Gen.UShort[0, 300], Gen.UShort[0, 300]).Sample((frame, start, offset) =>
        {
            var header = new VirtioNetHeader { Flags = VirtioNetHeader.FlagNeedsChecksum, ChecksumStart = start, ChecksumOffset = offset };
            bool isInside = start >= 14 && start + offset + 2 <= frame.Length;
            return ChecksumCompletion.Complete(frame, header) == OffloadFault.None == isInside;
        });
}
