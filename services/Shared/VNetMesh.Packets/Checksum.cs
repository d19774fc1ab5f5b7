using System.Buffers.Binary;
using System.Numerics;
using System.Runtime.InteropServices;

namespace VNetMesh.Packets;

/// <summary>
/// The Internet checksum (RFC 1071), as a running sum. Sums are kept in the machine's byte order and
/// folded late: one's complement addition does not care (RFC 1071, 2(B)).
/// </summary>
public static class Checksum
{
    /// <summary>Adds bytes to a running sum. All but the last call must pass an even number of bytes.</summary>
    public static ulong Add(ulong sum, ReadOnlySpan<byte> data)
    {
        // Adding 64-bit words with end-around carry is the same sum modulo 2^16-1.
        ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(data);
        if (Vector.IsHardwareAccelerated && data.Length >= 256)
            return AddVectors(sum, data);
        foreach (ulong word in words)
        {
            sum += word;
            if (sum < word)
                sum++;
        }
        return AddTail(sum, data[(words.Length * 8)..]);
    }

    /// <summary>The checksum field's value for a sum: folded to 16 bits and complemented, to be written in network order.</summary>
    public static ushort Finish(ulong sum) => (ushort)~Fold(sum);

    /// <summary>The sum folded to 16 bits, not complemented; what a partial checksum field holds.</summary>
    public static ushort Fold(ulong sum)
    {
        sum = (sum & 0xFFFF_FFFF) + (sum >> 32);
        sum = (sum & 0xFFFF_FFFF) + (sum >> 32);
        uint folded = (uint)sum;
        folded = (folded & 0xFFFF) + (folded >> 16);
        folded = (folded & 0xFFFF) + (folded >> 16);
        return BitConverter.IsLittleEndian ? BinaryPrimitives.ReverseEndianness((ushort)folded) : (ushort)folded;
    }

    public static ushort Compute(ReadOnlySpan<byte> data) => Finish(Add(0, data));

    /// <summary>True when data that includes its checksum field sums to all ones.</summary>
    public static bool IsValid(ReadOnlySpan<byte> data, ulong sum = 0) => Fold(Add(sum, data)) == 0xFFFF;

    /// <summary>The pseudo header of TCP and UDP over IPv4 (RFC 9293, 3.1; RFC 768).</summary>
    public static ulong PseudoHeader(Ipv4Address source, Ipv4Address destination, byte protocol, int length)
    {
        Span<byte> header = stackalloc byte[12];
        source.Write(header);
        destination.Write(header[4..]);
        header[8] = 0;
        header[9] = protocol;
        BinaryPrimitives.WriteUInt16BigEndian(header[10..], (ushort)length);
        return Add(0, header);
    }

    /// <summary>The pseudo header over IPv6 (RFC 8200, 8.1). Addresses are 16 octets each.</summary>
    public static ulong PseudoHeaderV6(ReadOnlySpan<byte> source, ReadOnlySpan<byte> destination, byte protocol, int length)
    {
        Span<byte> header = stackalloc byte[40];
        source[..16].CopyTo(header);
        destination[..16].CopyTo(header[16..]);
        BinaryPrimitives.WriteUInt32BigEndian(header[32..], (uint)length);
        BinaryPrimitives.WriteUInt32BigEndian(header[36..], protocol);
        return Add(0, header);
    }

    private static ulong AddVectors(ulong sum, ReadOnlySpan<byte> data)
    {
        // 32-bit lanes widened to 64 bits cannot overflow within any packet, so no carries are lost.
        ReadOnlySpan<Vector<uint>> vectors = MemoryMarshal.Cast<byte, Vector<uint>>(data);
        Vector<ulong> low = default, high = default;
        foreach (Vector<uint> vector in vectors)
        {
            Vector.Widen(vector, out Vector<ulong> first, out Vector<ulong> second);
            low += first;
            high += second;
        }
        ulong total = Vector.Sum(low + high);
        sum += total;
        if (sum < total)
            sum++;
        return Add(sum, data[(vectors.Length * Vector<byte>.Count)..]);
    }

    private static ulong AddTail(ulong sum, ReadOnlySpan<byte> tail)
    {
        if (tail.IsEmpty)
            return sum;
        Span<byte> padded = stackalloc byte[8];
        padded.Clear();
        tail.CopyTo(padded);
        ulong word = MemoryMarshal.Read<ulong>(padded);
        sum += word;
        return sum < word ? sum + 1 : sum;
    }
}
