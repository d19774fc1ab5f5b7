namespace VNetMesh.Packets.Tests;

/// <summary>RFC 1071, 4.1, word for word: 16-bit words in network order, one after the other.</summary>
internal static class NaiveChecksum
{
    public static ushort Sum(params byte[][] parts)
    {
        uint sum = 0;
        byte[] data = [.. parts.SelectMany(part => part)];
        for (int i = 0; i + 1 < data.Length; i += 2)
            sum += (uint)((data[i] << 8) | data[i + 1]);
        if (data.Length % 2 == 1)
            sum += (uint)(data[^1] << 8);
        while (sum >> 16 != 0)
            sum = (sum & 0xFFFF) + (sum >> 16);
        return (ushort)sum;
    }

    public static ushort Compute(params byte[][] parts) => (ushort)~Sum(parts);
}
