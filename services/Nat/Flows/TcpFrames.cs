using System.Buffers.Binary;
using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Tcp;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Flows;

/// <summary>Segments to a guest, as records of the link: large ones whole where the link takes them, else cut here.</summary>
internal static class TcpFrames
{
    private const int IpEnd = EthernetView.HeaderLength + Ipv4Header.Length;

    /// <returns>False: the link had no room.</returns>
    public static bool Send(FrameSender sender, MacAddress to, in TcpFlowKey key, in TcpSegmentOut segment, ReadOnlySpan<byte> first, ReadOnlySpan<byte> second)
    {
        if (segment.PayloadLength > segment.SegmentSize && !sender.AcceptsLargeSegments)
            return SendCut(sender, to, key, segment, first, second);
        var header = new TcpHeader(key.RemotePort, key.GuestPort, segment.Sequence, segment.Acknowledgment, segment.Flags, segment.Window);
        int headerLength = TcpView.MinHeaderLength + segment.Options.Length;
        var ip = new Ipv4Header(key.Remote, key.Guest, IpProtocol.Tcp, headerLength + segment.PayloadLength);
        if (!sender.TryBegin(to, ip, out Span<byte> payload))
            return false;
        header.Write(payload, segment.Options);
        first.CopyTo(payload[headerLength..]);
        second.CopyTo(payload[(headerLength + first.Length)..]);
        if (!sender.AcceptsPartialChecksums)
        {
            CompleteChecksum(payload, ip);
            return sender.Send(payload);
        }
        BinaryPrimitives.WriteUInt16BigEndian(payload[TcpView.ChecksumOffset..], Checksum.Fold(Checksum.PseudoHeader(ip.Source, ip.Destination, ip.Protocol, ip.PayloadLength)));
        bool large = segment.PayloadLength > segment.SegmentSize;
        return sender.Send(payload, new VirtioNetHeader
        {
            Flags = VirtioNetHeader.FlagNeedsChecksum,
            GsoType = large ? VirtioNetHeader.GsoTcpv4 : VirtioNetHeader.GsoNone,
            GsoSize = large ? (ushort)segment.SegmentSize : (ushort)0,
            HeaderLength = (ushort)(IpEnd + headerLength),
            ChecksumStart = IpEnd,
            ChecksumOffset = TcpView.ChecksumOffset,
            BufferCount = 1,
        });
    }

    /// <summary>Writes the checksum of a segment whose checksum field is zero.</summary>
    public static void CompleteChecksum(Span<byte> segment, in Ipv4Header ip) =>
        BinaryPrimitives.WriteUInt16BigEndian(segment[TcpView.ChecksumOffset..],
            Checksum.Finish(Checksum.Add(Checksum.PseudoHeader(ip.Source, ip.Destination, ip.Protocol, segment.Length), segment)));

    // What the link cannot take of it is as if it had been lost on the way: TCP sends it again.
    private static bool SendCut(FrameSender sender, MacAddress to, in TcpFlowKey key, in TcpSegmentOut whole, ReadOnlySpan<byte> first, ReadOnlySpan<byte> second)
    {
        for (int offset = 0; offset < whole.PayloadLength; offset += whole.SegmentSize)
        {
            int length = Math.Min(whole.SegmentSize, whole.PayloadLength - offset);
            bool last = offset + length == whole.PayloadLength;
            TcpSegmentOut piece = whole;
            piece.Sequence = whole.Sequence.Add(offset);
            piece.PayloadLength = length;
            if (!last)
                piece.Flags &= ~(TcpFlags.Fin | TcpFlags.Psh);
            ReadOnlySpan<byte> head = first[Math.Min(offset, first.Length)..Math.Min(offset + length, first.Length)];
            int rest = Math.Max(0, offset - first.Length);
            ReadOnlySpan<byte> tail = second.Slice(rest, length - head.Length);
            if (!Send(sender, to, key, piece, head, tail))
                return offset > 0;
        }
        return true;
    }
}
