using VNetMesh.Nat.Timing;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Gateways;

/// <summary>ICMP errors to guests (RFC 792; RFC 1812, 4.3.2), at most <see cref="PerSecond"/> a second.</summary>
public sealed class IcmpErrors(GatewaySettings settings, FrameSender sender, DropCounters drops)
{
    public const int PerSecond = 1000;
    private const int MaxQuote = 548; // RFC 1812, 4.3.2.3: as much as fits 576 octets in all

    private TokenBucket _bucket = new(PerSecond, PerSecond / 4);

    /// <param name="quoted">The packet that caused it, from its IP header on; the first octets are quoted.</param>
    /// <param name="rest">Second word of the ICMP header: the next hop's MTU in "fragmentation needed".</param>
    /// <param name="reporter">Who found it; the gateway when nobody else is known.</param>
    public void Send(Neighbour guest, ReadOnlySpan<byte> quoted, byte type, byte code, long now, uint rest = 0, Ipv4Address reporter = default)
    {
        if (!_bucket.TryTake(now))
        {
            drops.Count(DropCause.IcmpRateLimited);
            return;
        }
        ReadOnlySpan<byte> quote = quoted[..Math.Min(quoted.Length, MaxQuote)];
        Ipv4Address source = reporter.IsAny || settings.Subnet.Contains(reporter) ? settings.Address : reporter;
        var header = new Ipv4Header(source, guest.Address, IpProtocol.Icmp, Icmpv4View.HeaderLength + quote.Length) { DontFragment = false };
        if (!sender.TryBegin(guest.Mac, header, out Span<byte> message))
        {
            sender.CountUnsent();
            return;
        }
        quote.CopyTo(message[Icmpv4View.HeaderLength..]);
        Icmpv4View.Write(message, type, code, rest);
        sender.Send(message);
    }
}
