using System.Runtime.InteropServices;

namespace VNetMesh.Agent.Uplinks;

/// <summary>
/// What SharpPcap has of libpcap and does not give out: the descriptor to wait on, and a read that never waits
/// (PcapDevice.GetNextPacket polls for half a second, also in non-blocking mode).
/// </summary>
internal static unsafe class Libpcap
{
    private static readonly string[] Names = ["libpcap.so.1", "libpcap.so.0.8", "libpcap.so.0", "libpcap.so"];
    private static readonly Lazy<nint> Library = new(Load);
    private static readonly Lazy<nint> NextEx = new(() => NativeLibrary.GetExport(Library.Value, "pcap_next_ex"));

    public enum ReadResult
    {
        Packet,
        Nothing,
        Failed,
    }

    /// <summary>pcap_get_selectable_fd(3): readable when there are frames.</summary>
    /// <exception cref="IOException">libpcap is not installed, or has no such descriptor.</exception>
    public static int SelectableDescriptor(nint capture)
    {
        int descriptor = ((delegate* unmanaged<nint, int>)NativeLibrary.GetExport(Library.Value, "pcap_get_selectable_fd"))(capture);
        return descriptor >= 0 ? descriptor : throw new IOException("libpcap has no descriptor to wait on for this interface");
    }

    /// <summary>pcap_next_ex(3) of a capture in non-blocking mode.</summary>
    /// <param name="frame">Valid until the next call.</param>
    public static ReadResult TryRead(nint capture, out ReadOnlySpan<byte> frame)
    {
        frame = default;
        PacketHeader* header;
        byte* data;
        int result = ((delegate* unmanaged<nint, PacketHeader**, byte**, int>)NextEx.Value)(capture, &header, &data);
        if (result == 1)
            frame = new ReadOnlySpan<byte>(data, (int)header->CapturedLength);
        return result switch { 1 => ReadResult.Packet, 0 => ReadResult.Nothing, _ => ReadResult.Failed };
    }

    private static nint Load()
    {
        foreach (string name in Names)
        {
            if (NativeLibrary.TryLoad(name, out nint library))
                return library;
        }
        throw new IOException("libpcap is not installed: install the package libpcap0.8");
    }

    /// <summary>struct pcap_pkthdr of a 64-bit system.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct PacketHeader
    {
        public long Seconds;
        public long Microseconds;
        public uint CapturedLength;
        public uint Length;
    }
}
