using System.Runtime.InteropServices;

namespace VNetMesh.Agent.Uplinks;

/// <summary>What SharpPcap has of libpcap and does not give out.</summary>
internal static unsafe class Libpcap
{
    private static readonly string[] Names = ["libpcap.so.1", "libpcap.so.0.8", "libpcap.so.0", "libpcap.so"];

    /// <summary>pcap_get_selectable_fd(3): readable when there are frames.</summary>
    /// <exception cref="IOException">libpcap is not installed, or has no such descriptor.</exception>
    public static int SelectableDescriptor(nint capture)
    {
        foreach (string name in Names)
        {
            if (!NativeLibrary.TryLoad(name, out nint library) || !NativeLibrary.TryGetExport(library, "pcap_get_selectable_fd", out nint function))
                continue;
            int descriptor = ((delegate* unmanaged<nint, int>)function)(capture);
            return descriptor >= 0 ? descriptor : throw new IOException("libpcap has no descriptor to wait on for this interface");
        }
        throw new IOException("libpcap is not installed: install the package libpcap0.8");
    }
}
