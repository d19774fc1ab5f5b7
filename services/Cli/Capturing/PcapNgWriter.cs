using System.Buffers.Binary;
using System.Text;

namespace VNetMesh.Cli.Capturing;

/// <summary>
/// Writes pcapng (draft-ietf-opsawg-pcapng), in the byte order of the machine's own kind, little-endian. A block goes out whole, so that a
/// reader at the other end of a pipe, or of a file that grows, never waits in the middle of one for long.
/// <code>
/// block:  type u32 | total length u32 | body, padded to 4 | total length u32
/// option: code u16 | length u16 | value, padded to 4;  the last is 0 u16 | 0 u16
/// </code>
/// </summary>
internal sealed class PcapNgWriter(Stream stream)
{
    private const uint SectionHeader = 0x0A0D_0D0A, InterfaceDescription = 1, InterfaceStatistics = 5, EnhancedPacket = 6;
    private const uint ByteOrderMagic = 0x1A2B_3C4D;
    private const ushort LinkTypeEthernet = 1;
    private const ushort EndOfOptions = 0, Comment = 1;
    private const ushort SectionApplication = 4;
    private const ushort InterfaceName = 2, InterfaceDescriptionText = 3, InterfaceTimeResolution = 9, InterfaceFilter = 11;
    private const ushort PacketFlags = 2, PacketDropCount = 4;
    private const ushort StatisticsStart = 2, StatisticsEnd = 3, StatisticsReceived = 4, StatisticsDropped = 5, StatisticsAccepted = 6, StatisticsDelivered = 8;

    /// <summary>Times count in 10⁻⁹ s.</summary>
    private const byte Nanoseconds = 9;

    private byte[] _block = new byte[2048];
    private int _length;
    private uint _interfaces;

    /// <summary>Begins the file.</summary>
    public void WriteSection(string application)
    {
        Begin(SectionHeader);
        Put32(ByteOrderMagic);
        Put16(1);
        Put16(0);
        // The section's length is not known beforehand.
        Put64(ulong.MaxValue);
        PutText(SectionApplication, application);
        End();
    }

    /// <summary>Describes an interface.</summary>
    /// <returns>Its number, for its packets.</returns>
    public uint WriteInterface(string name, string description, string filter, uint snapLength)
    {
        Begin(InterfaceDescription);
        Put16(LinkTypeEthernet);
        Put16(0);
        Put32(snapLength);
        PutText(InterfaceName, name);
        PutText(InterfaceDescriptionText, description);
        PutOption(InterfaceTimeResolution, [Nanoseconds]);
        // A filter of kind 0 is libpcap's text.
        if (filter.Length > 0)
            PutOption(InterfaceFilter, [0, .. Encoding.UTF8.GetBytes(filter)]);
        End();
        return _interfaces++;
    }

    /// <param name="time">Nanoseconds since 1970, UTC.</param>
    /// <param name="originalLength">Octets of the whole frame.</param>
    /// <param name="isOut">From the switch to the port; else from the port.</param>
    /// <param name="missed">Frames that the capture missed since the one before.</param>
    public void WritePacket(uint number, long time, ReadOnlySpan<byte> data, uint originalLength, bool isOut, string comment, ulong missed)
    {
        Begin(EnhancedPacket);
        Put32(number);
        PutTime(time);
        Put32((uint)data.Length);
        Put32(originalLength);
        PutPadded(data);
        PutText(Comment, comment);
        Span<byte> value = stackalloc byte[8];
        BinaryPrimitives.WriteUInt32LittleEndian(value, isOut ? 2u : 1u);
        PutOption(PacketFlags, value[..4]);
        if (missed > 0)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(value, missed);
            PutOption(PacketDropCount, value);
        }
        End();
    }

    /// <summary>Numbers of the capture as a whole, at its end.</summary>
    public void WriteStatistics(uint number, long start, long end, ulong received, ulong accepted, ulong dropped, string comment)
    {
        Begin(InterfaceStatistics);
        Put32(number);
        PutTime(end);
        PutText(Comment, comment);
        PutTimeOption(StatisticsStart, start);
        PutTimeOption(StatisticsEnd, end);
        PutCount(StatisticsReceived, received);
        PutCount(StatisticsDropped, dropped);
        PutCount(StatisticsAccepted, accepted);
        PutCount(StatisticsDelivered, accepted - Math.Min(dropped, accepted));
        End();
    }

    public void Flush() => stream.Flush();

    private void Begin(uint type)
    {
        _length = 0;
        Put32(type);
        Put32(0);
    }

    /// <summary>Ends the options and the block, and writes it.</summary>
    private void End()
    {
        Put16(EndOfOptions);
        Put16(0);
        uint length = (uint)_length + 4;
        Put32(length);
        BinaryPrimitives.WriteUInt32LittleEndian(_block.AsSpan(4), length);
        stream.Write(_block.AsSpan(0, _length));
    }

    private void PutText(ushort code, string text)
    {
        if (text.Length > 0)
            PutOption(code, Encoding.UTF8.GetBytes(text));
    }

    private void PutCount(ushort code, ulong count)
    {
        Span<byte> value = stackalloc byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(value, count);
        PutOption(code, value);
    }

    private void PutTimeOption(ushort code, long time)
    {
        Put16(code);
        Put16(8);
        PutTime(time);
    }

    private void PutOption(ushort code, ReadOnlySpan<byte> value)
    {
        Put16(code);
        Put16((ushort)value.Length);
        PutPadded(value);
    }

    private void PutPadded(ReadOnlySpan<byte> value)
    {
        value.CopyTo(Grow(value.Length));
        if (value.Length % 4 is > 0 and int odd)
            Grow(4 - odd).Clear();
    }

    /// <summary>The upper half of a time comes first.</summary>
    private void PutTime(long time)
    {
        Put32((uint)((ulong)time >> 32));
        Put32((uint)time);
    }

    private void Put16(ushort value) => BinaryPrimitives.WriteUInt16LittleEndian(Grow(2), value);

    private void Put32(uint value) => BinaryPrimitives.WriteUInt32LittleEndian(Grow(4), value);

    private void Put64(ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(Grow(8), value);

    private Span<byte> Grow(int octets)
    {
        if (_block.Length - _length < octets)
            Array.Resize(ref _block, Math.Max(_block.Length * 2, _length + octets));
        _length += octets;
        return _block.AsSpan(_length - octets, octets);
    }
}
