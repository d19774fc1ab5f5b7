using VNetMesh.Native;
using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Sockets;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Flows;

/// <summary>The mappings of one gateway.</summary>
internal sealed class UdpMappings(GatewayContext gateway)
{
    private readonly Dictionary<(Ipv4Address, ushort), UdpMapping> _mappings = [];

    private readonly UdpOutbox _outbox = new();

    /// <summary>Takes a datagram whose checks are done, to a destination that the guest may reach.</summary>
    public void Receive(in GuestPacket packet, in UdpView datagram)
    {
        if (!_mappings.TryGetValue((packet.Guest.Address, datagram.SourcePort), out UdpMapping? mapping) && (mapping = Begin(packet, datagram)) is null)
            return;
        mapping.Send(packet, datagram, _outbox);
    }

    /// <summary>Sends what the turn's datagrams left; at the end of each batch.</summary>
    public void Flush(long now) => _outbox.Flush(now);

    public void Forget(UdpMapping mapping) => _mappings.Remove((mapping.Guest.Address, mapping.GuestPort));

    private UdpMapping? Begin(in GuestPacket packet, in UdpView datagram)
    {
        if (!gateway.Flows.MayBegin(packet.Guest))
            return null;
        FileDescriptor? socket = HostSocket.Open(SysSocket.AF_INET, SysSocket.SOCK_DGRAM, 0, out _);
        if (socket is null)
        {
            gateway.Drops.Count(DropCause.SocketUnavailable);
            return null;
        }
        _ = SysSocket.SetOption(socket.Number, SysSocket.SOL_IP, SysSocket.IP_RECVERR, 1);
        var mapping = new UdpMapping(gateway, this, packet, datagram, socket);
        _mappings.Add((packet.Guest.Address, datagram.SourcePort), mapping);
        gateway.Flows.Add(mapping, packet.Trace);
        return mapping;
    }
}

/// <summary>Where datagrams go, and how.</summary>
internal readonly record struct UdpTarget(Ipv4Address Address, ushort Port, byte TimeToLive, bool DontFragment);

/// <summary>
/// Gathers datagrams of one mapping, one destination and one size that follow each other, so that one call sends them all
/// (UDP_SEGMENT). It is emptied before anything else is put in and at the end of each batch: nothing waits for more to come.
/// </summary>
internal sealed class UdpOutbox
{
    private const int MaxDatagrams = 64; // UDP_MAX_SEGMENTS of kernels before 6.9
    private const int MaxOctets = 65535 - Ipv4Header.Length - UdpView.HeaderLength;

    private readonly byte[] _data = new byte[MaxOctets];
    private UdpMapping? _mapping;
    private UdpTarget _target;
    private int _length;
    private int _segment;
    private int _count;

    public void Put(UdpMapping mapping, in GuestPacket packet, in UdpView datagram)
    {
        var target = new UdpTarget(packet.Ip.Destination, datagram.DestinationPort, (byte)(packet.Ip.TimeToLive - 1), packet.Ip.DontFragment);
        ReadOnlySpan<byte> payload = datagram.Payload;
        if (packet.GsoKind == VirtioNetHeader.GsoUdpL4 && packet.GsoSize < payload.Length)
        {
            Flush(packet.Now);
            SendWhole(mapping, target, payload, packet.GsoSize, packet.Now);
            return;
        }
        if (!Fits(mapping, target, payload.Length))
            Flush(packet.Now);
        if (_count == 0)
            (_mapping, _target, _segment) = (mapping, target, payload.Length);
        payload.CopyTo(_data.AsSpan(_length));
        _length += payload.Length;
        _count++;
        // A short one is the last of its train; an empty one has no place in any.
        if (payload.Length < _segment || payload.IsEmpty || _count == MaxDatagrams)
            Flush(packet.Now);
    }

    public void Flush(long now)
    {
        if (_mapping is not { } mapping)
            return;
        _mapping = null;
        int length = _length;
        _length = _count = 0;
        mapping.Send(_target, _data.AsSpan(0, length), Math.Max(1, _segment), now);
    }

    private bool Fits(UdpMapping mapping, in UdpTarget target, int length) =>
        _count == 0 || (ReferenceEquals(_mapping, mapping) && _target == target && length > 0 && length <= _segment && _length + length <= MaxOctets);

    // As the guest's kernel put it together: sent from where it lies, in as many calls as the bound on datagrams asks for.
    private static void SendWhole(UdpMapping mapping, in UdpTarget target, ReadOnlySpan<byte> data, int segment, long now)
    {
        int most = segment * MaxDatagrams;
        for (; data.Length > most; data = data[most..])
            mapping.Send(target, data[..most], segment, now);
        mapping.Send(target, data, segment, now);
    }
}

/// <summary>Datagrams of a host socket's, on their way to a guest: as many in one record as the link and the guest's MTU allow.</summary>
internal static class UdpTrain
{
    private const int MaxDatagrams = 64;
    private const int MaxOctets = 65535 - Ipv4Header.Length - UdpView.HeaderLength;

    /// <summary>Sends the datagram at an index, and those behind it that may share its record.</summary>
    /// <param name="index">Moves to the first that was not taken.</param>
    /// <returns>Octets of payload that were sent; what was not is counted.</returns>
    public static ulong Send(GatewayContext gateway, Neighbour guest, ushort guestPort, DatagramBatch batch, ref int index, int count)
    {
        int first = index;
        int segment = batch.SegmentSize(first), length = batch.Data(first).Length, datagrams = Math.Max(1, (length + segment - 1) / Math.Max(1, segment));
        bool mayShare = gateway.Sender.AcceptsDatagramTrains && segment > 0 && Ipv4Header.Length + UdpView.HeaderLength + segment <= gateway.Settings.Mtu;
        index++;
        if (mayShare && datagrams == 1)
        {
            int last = segment;
            while (index < count && datagrams < MaxDatagrams && last == segment && IsNext(batch, first, index, segment)
                && length + batch.Data(index).Length <= MaxOctets)
            {
                last = batch.Data(index).Length;
                length += last;
                datagrams++;
                index++;
            }
        }
        return mayShare && datagrams > 1 && length <= MaxOctets
            ? SendTogether(gateway, guest, guestPort, batch, first, index, length, segment)
            : SendApart(gateway, guest, guestPort, batch, first, segment);
    }

    private static bool IsNext(DatagramBatch batch, int first, int index, int segment)
    {
        int length = batch.Data(index).Length;
        return length > 0 && length <= segment && batch.SegmentSize(index) == length
            && batch.Source(index) == batch.Source(first) && batch.Port(index) == batch.Port(first);
    }

    private static ulong SendTogether(GatewayContext gateway, Neighbour guest, ushort guestPort, DatagramBatch batch, int first, int end, int length, int segment)
    {
        Ipv4Address source = batch.Source(first);
        if (!gateway.Sender.TryBeginTrain(guest, source, length, out Span<byte> data))
            return 0;
        Span<byte> rest = data;
        for (int i = first; i < end; i++)
        {
            batch.Data(i).CopyTo(rest);
            rest = rest[batch.Data(i).Length..];
        }
        return gateway.Sender.SendTrain(guest, source, batch.Port(first), guestPort, data, segment) ? (ulong)length : 0;
    }

    private static ulong SendApart(GatewayContext gateway, Neighbour guest, ushort guestPort, DatagramBatch batch, int index, int segment)
    {
        ulong sent = 0;
        ReadOnlySpan<byte> data = batch.Data(index);
        do
        {
            ReadOnlySpan<byte> piece = data[..Math.Min(segment, data.Length)];
            data = data[piece.Length..];
            if (gateway.Sender.SendUdp(guest, batch.Source(index), batch.Port(index), guestPort, piece))
                sent += (ulong)piece.Length;
        }
        while (!data.IsEmpty);
        return sent;
    }
}
