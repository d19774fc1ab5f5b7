using VNetMesh.Packets;

namespace VNetMesh.Switch.Tests.Support;

/// <summary>Records for tests.</summary>
internal static class Frames
{
    public static readonly MacAddress A = MacAddress.Parse("02:56:4e:00:00:0a");
    public static readonly MacAddress B = MacAddress.Parse("02:56:4e:00:00:0b");
    public static readonly MacAddress C = MacAddress.Parse("02:56:4e:00:00:0c");

    public static byte[] Record(MacAddress destination, MacAddress source, int payload = 46, VirtioNetHeader header = default)
    {
        byte[] record = new byte[VirtioNetHeader.Length + EthernetView.HeaderLength + payload];
        header.BufferCount = 1;
        header.Write(record);
        EthernetView.Write(record.AsSpan(VirtioNetHeader.Length), destination, source, 0x88B5); // IEEE 802 local experimental
        return record;
    }

    public static MacAddress Station(int number) => new(0x0256_4E00_0000UL + (ulong)number);
}
