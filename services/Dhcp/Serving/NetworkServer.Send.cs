using VNetMesh.Dhcp.Observability;
using VNetMesh.Dhcp.Protocol;
using VNetMesh.Links;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Serving;

/// <content>Frames to the port, built in the link's own memory.</content>
public sealed partial class NetworkServer
{
    private delegate int FrameWriter(Span<byte> frame);

    private void Send(Decision decision)
    {
        DropCause? failure = Core.Settings is { } settings
            ? SendFrame(ReplyWriter.MaxFrameLength(settings), frame => ReplyWriter.WriteFrame(frame, decision.Reply!, settings, Mac))
            : DropCause.LinkDown;
        _traces.Answered(decision, failure is { } cause ? DropCauses.NameOf(cause) : null);
        if (failure is not null)
            return;
        Counters.Count(decision.Reply!.Type);
        TimeSpan took = TimeSpan.FromMicroseconds(Math.Max(0, EventLoop.Now - decision.Message.Arrived));
        _context.Metrics.Answered(NetworkId, DhcpCounters.TypeNames[(int)decision.Reply.Type], took);
    }

    private void SendArp(ArpPacket packet, MacAddress to) => SendFrame(EthernetView.HeaderLength + ArpPacket.Length, frame =>
    {
        EthernetView.Write(frame, to, Mac, EtherType.Arp);
        packet.Write(frame[EthernetView.HeaderLength..]);
        return frame.Length;
    });

    private void AnswerEcho(in ReceivedFrame request, NetworkSettings settings)
    {
        if (!Icmpv4View.TryParse(request.Payload, out Icmpv4View echo))
            return;
        const int Headers = EthernetView.HeaderLength + Ipv4Header.Length;
        int length = Headers + echo.Message.Length;
        if (length > EthernetView.HeaderLength + settings.Mtu)
        {
            Counters.Count(DropCause.Malformed);
            return;
        }
        Span<byte> frame = Reserve(length);
        if (frame.IsEmpty)
            return;
        EthernetView.Write(frame, request.From, Mac, EtherType.Ipv4);
        new Ipv4Header(settings.ServerAddress, request.Source, IpProtocol.Icmp, echo.Message.Length).Write(frame[EthernetView.HeaderLength..]);
        echo.Data.CopyTo(frame[(Headers + Icmpv4View.HeaderLength)..]);
        Icmpv4View.Write(frame[Headers..], Icmpv4Type.EchoReply, 0, echo.Rest);
        Commit(length);
    }

    /// <returns>Why it was not sent; null when it was. Counted already.</returns>
    private DropCause? SendFrame(int maxLength, FrameWriter write)
    {
        Span<byte> frame = Reserve(maxLength);
        if (frame.IsEmpty)
            return _link is null ? DropCause.LinkDown : DropCause.LinkFull;
        return Commit(write(frame));
    }

    /// <summary>Room for a frame behind its offload header, which says that nothing is left to be done; empty, and counted, when there is none.</summary>
    private Span<byte> Reserve(int length)
    {
        if (_link is not { } link)
        {
            Counters.Count(DropCause.LinkDown);
            return default;
        }
        Span<byte> record = link.Reserve(VirtioNetHeader.Length + length);
        if (record.IsEmpty)
        {
            Counters.Count(DropCause.LinkFull);
            return default;
        }
        new VirtioNetHeader { BufferCount = 1 }.Write(record);
        return record.Slice(VirtioNetHeader.Length, length);
    }

    private DropCause? Commit(int length)
    {
        SendStatus status = _link!.Commit(VirtioNetHeader.Length + length, default);
        if (status == SendStatus.Sent)
            return null;
        DropCause cause = status == SendStatus.Closed ? DropCause.LinkDown : DropCause.LinkFull;
        Counters.Count(cause);
        return cause;
    }
}
