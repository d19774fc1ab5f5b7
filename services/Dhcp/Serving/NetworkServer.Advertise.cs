using VNetMesh.Dhcp.Protocol;
using VNetMesh.Dhcp.RouterAdvertisements;
using VNetMesh.Links;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Serving;

/// <content>Router advertisements: IPv6 frames to the <see cref="RouterAdvertiser"/>, and what it wants sent.</content>
public sealed partial class NetworkServer
{
    private readonly RouterAdvertiser _advertiser;

    /// <summary>Takes over what is to be advertised; null: nothing. On the loop's thread.</summary>
    public void Advertise(AdvertisementSettings? settings)
    {
        if (_advertiser.Configure(settings, EventLoop.Now) && settings is not null)
            LogAdvertising(Network, settings.Prefix, settings.LeadsOut);
    }

    private static bool IsIpv6(ReadOnlySpan<byte> record) =>
        record.Length >= VirtioNetHeader.Length && EthernetView.TryParse(record[VirtioNetHeader.Length..], out EthernetView ethernet) && ethernet.Type == EtherType.Ipv6;

    private void ReceiveIpv6(ReadOnlySpan<byte> record, long now)
    {
        DropCause? cause = DropCause.Malformed;
        VirtioNetHeader offload = VirtioNetHeader.Read(record);
        if (EthernetView.TryParse(record[VirtioNetHeader.Length..], out EthernetView ethernet) && offload.IsConsistentWith(record.Length - VirtioNetHeader.Length)
            && !ethernet.Source.IsMulticast && !ethernet.Source.IsZero)
        {
            bool isOurs = ethernet.Destination == Mac || ethernet.Destination == Ipv6Address.AllRouters.GroupMac;
            cause = isOurs && offload.GsoKind == VirtioNetHeader.GsoNone ? _advertiser.Receive(ethernet.Payload, ethernet.Source, offload.NeedsChecksum, now) : DropCause.NotForUs;
        }
        if (cause is { } why)
            Counters.Count(why);
    }

    private void SendAdvertisements(long now)
    {
        foreach (Advertisement advertisement in _advertiser.Tick(now))
        {
            int length = advertisement.Message.Length;
            SendFrame(EthernetView.HeaderLength + Ipv6Header.Length + length, frame =>
            {
                EthernetView.Write(frame, advertisement.ToMac, Mac, EtherType.Ipv6);
                new Ipv6Header(advertisement.Source, advertisement.To, IpProtocol.Icmpv6, length) { HopLimit = 255 }.Write(frame[EthernetView.HeaderLength..]);
                advertisement.Message.Write(frame[(EthernetView.HeaderLength + Ipv6Header.Length)..], advertisement.Source, advertisement.To);
                return frame.Length;
            });
        }
    }

    [LoggerMessage(LogLevel.Information, "{Network}: advertising {Prefix}, leading out: {LeadsOut}")]
    private partial void LogAdvertising(string network, Ipv6Prefix prefix, bool leadsOut);
}
