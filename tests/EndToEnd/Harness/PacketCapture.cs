using System.Collections.Concurrent;
using PacketDotNet;
using SharpPcap;
using SharpPcap.LibPcap;

namespace VNetMesh.EndToEnd.Tests.Harness;

/// <summary>A frame and when the kernel saw it.</summary>
public sealed record CapturedFrame(DateTime Time, Packet Packet);

/// <summary>Captures and sends frames on a device in a namespace (libpcap by SharpPcap; decoded by PacketDotNet).</summary>
public sealed class PacketCapture : IDisposable
{
    private readonly LibPcapLiveDevice _device;
    private readonly ConcurrentQueue<CapturedFrame> _frames = new();
    private bool _capturing;

    private PacketCapture(LibPcapLiveDevice device) => _device = device;

    /// <summary>Frames so far, oldest first.</summary>
    public IReadOnlyList<CapturedFrame> Frames => [.. _frames];

    public IEnumerable<(DateTime Time, IPv4Packet Ip, TcpPacket Tcp)> TcpSegments => Frames
        .Select(frame => (frame.Time, frame.Packet.Extract<IPv4Packet>(), frame.Packet.Extract<TcpPacket>()))
        .Where(segment => segment.Item2 is not null && segment.Item3 is not null);

    /// <summary>Captures what passes the filter (pcap-filter(7)), both directions.</summary>
    public static PacketCapture Start(NetworkNamespace within, string device, string filter)
    {
        PacketCapture capture = Open(within, device);
        capture._device.Filter = filter;
        capture._device.OnPacketArrival += (_, arrival) =>
        {
            RawCapture raw = arrival.GetPacket();
            capture._frames.Enqueue(new CapturedFrame(raw.Timeval.Date, Packet.ParsePacket(raw.LinkLayerType, raw.Data)));
        };
        capture._device.StartCapture();
        capture._capturing = true;
        return capture;
    }

    /// <summary>Opens the device to send alone.</summary>
    public static PacketCapture Open(NetworkNamespace within, string device) => within.Enter(() =>
    {
        LibPcapLiveDevice found = LibPcapLiveDeviceList.New().FirstOrDefault(candidate => candidate.Name == device)
            ?? throw new InvalidOperationException($"no device {device}");
        // The descriptor is of the namespace in which it is opened.
        found.Open(new DeviceConfiguration { Mode = DeviceModes.Promiscuous | DeviceModes.MaxResponsiveness, ReadTimeout = 50, Snaplen = 65600 });
        return new PacketCapture(found);
    });

    /// <summary>Sends a frame of 14 bytes or more.</summary>
    public void Send(ReadOnlySpan<byte> frame) => _device.SendPacket(frame);

    public void Dispose()
    {
        if (_capturing)
            _device.StopCapture();
        _device.Dispose();
    }
}
