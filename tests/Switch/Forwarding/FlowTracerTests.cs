using System.Diagnostics;
using System.Net;
using System.Net.NetworkInformation;
using PacketDotNet;
using VNetMesh.Links;
using VNetMesh.Packets;
using VNetMesh.Switch.Forwarding;
using VNetMesh.Switch.Observability;
using VNetMesh.Switch.Registry;
using VNetMesh.Switch.Tests.Support;

namespace VNetMesh.Switch.Tests.Forwarding;

/// <summary>Which frames begin a trace, what their span says, and with which frames the context travels.</summary>
public sealed class FlowTracerTests : IDisposable
{
    private const string Network = "networks/traced";

    private readonly List<Activity> _spans = [];
    private readonly ActivityListener _listener;
    private readonly NetworkForwarder _forwarder = new(Network, new ForwardingSettings(1500, 300_000_000, 64, 64, IsolatePorts: false), loop: null, new NobodyWatches());
    private readonly ForwardingPort _guest;
    private readonly FakeLink _guestLink = new();
    private readonly FakeLink _natLink = new();
    private long _now = 1_000_000;

    public FlowTracerTests()
    {
        _listener = new ActivityListener
        {
            ShouldListenTo = source => source == SwitchTelemetry.Source,
            Sample = static (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllDataAndRecorded,
            ActivityStopped = span =>
            {
                // Other tests of the process forward frames at the same time.
                if (Equals(span.GetTagItem("vnetmesh.network"), "traced"))
                    _spans.Add(span);
            },
        };
        ActivitySource.AddActivityListener(_listener);
        _guest = Plug("web1", PortRole.Guest, _guestLink);
        ForwardingPort nat = Plug("nat", PortRole.Service, _natLink);
        // The switch knows where nat is.
        Send(nat, _natLink, Frames.Record(Frames.A, Frames.B));
        _guestLink.Sent.Clear();
        _natLink.Sent.Clear();
    }

    public void Dispose() => _listener.Dispose();

    [Fact]
    public void A_connection_is_one_span_whose_context_goes_with_its_first_frame_alone()
    {
        Send(Tcp(40000, 1, syn: true));
        Activity span = Assert.Single(_spans);
        TraceContext sent = Assert.Single(_natLink.Traces);
        Assert.Equal(TraceContext.Of(span), sent);
        Assert.True(sent.IsSampled);
        Assert.Equal(("web1", "nat", "forwarded", "tcp"), (span.GetTagItem("vnetmesh.port"), span.GetTagItem("vnetmesh.port.egress"), span.GetTagItem("vnetmesh.verdict"), span.GetTagItem("network.transport")));
        Assert.Equal(("192.168.108.128", 40000, "192.0.2.80", 80), (span.GetTagItem("client.address"), span.GetTagItem("client.port"), span.GetTagItem("server.address"), span.GetTagItem("server.port")));
        Send(Tcp(40000, 2, syn: false));
        Send(Tcp(40000, 1, syn: true)); // sent again
        Assert.Single(_spans);
        Assert.All(_natLink.Traces.Skip(1), trace => Assert.False(trace.IsPresent));
        Send(Tcp(40000, 77, syn: true)); // the port used anew
        Send(Tcp(40001, 1, syn: true));
        Assert.Equal(3, _spans.Count);
        Assert.Null(Activity.Current);
    }

    [Fact]
    public void Datagrams_and_echoes_begin_a_trace_when_they_were_not_seen_for_a_minute()
    {
        for (int i = 0; i < 100; i++)
        {
            Send(Udp(5000, 443, [1, 2, 3]));
            Send(Echo(9));
            _now += 1_000_000;
        }
        Assert.Equal(["udp", "icmp"], _spans.Select(span => span.GetTagItem("network.transport")));
        _now += 61_000_000;
        Send(Udp(5000, 443, [1, 2, 3]));
        Assert.Equal(3, _spans.Count);
    }

    [Fact]
    public void Dhcp_clients_without_an_address_are_told_apart_by_their_transactions()
    {
        Send(Udp(68, 67, [1, 1, 6, 0, 0, 0, 0, 1, 0, 0], broadcast: true));
        Send(Udp(68, 67, [1, 1, 6, 0, 0, 0, 0, 1, 0, 4], broadcast: true));
        Send(Udp(68, 67, [1, 1, 6, 0, 0, 0, 0, 2, 0, 0], broadcast: true));
        Assert.Equal(["flooded", "flooded"], _spans.Select(span => span.GetTagItem("vnetmesh.verdict")));
    }

    [Fact]
    public void Frames_between_guests_and_frames_cut_short_begin_none()
    {
        FakeLink other = new();
        ForwardingPort second = Plug("web2", PortRole.Guest, other);
        Send(second, other, Frames.Record(Frames.A, Frames.C));
        byte[] between = Tcp(40000, 1, syn: true);
        Frames.C.Write(between.AsSpan(VirtioNetHeader.Length));
        Send(between);
        Assert.NotEmpty(other.Sent);
        byte[] whole = Tcp(40000, 1, syn: true);
        for (int length = FrameRecord.MinLength; length < whole.Length; length++)
            Send(whole[..length]);
        Assert.Empty(_spans);
    }

    private ForwardingPort Plug(string id, PortRole role, FakeLink link)
    {
        ForwardingPort port = _forwarder.CreatePort($"{Network}/ports/{id}", role);
        _forwarder.AddPort(port);
        _forwarder.Connect(port, link, 1, null);
        return port;
    }

    private void Send(byte[] record) => Send(_guest, _guestLink, record);

    private void Send(ForwardingPort port, FakeLink link, byte[] record)
    {
        link.Inbox.Enqueue(record);
        _forwarder.Serve(port, _now);
    }

    private static byte[] Tcp(ushort port, uint sequence, bool syn) =>
        Ip(new TcpPacket(port, 80) { SequenceNumber = sequence, Synchronize = syn, Acknowledgment = !syn, DataOffset = 5 }, ProtocolType.Tcp, broadcast: false);

    private static byte[] Udp(ushort source, ushort destination, byte[] payload, bool broadcast = false) =>
        Ip(new UdpPacket(source, destination) { PayloadData = payload }, ProtocolType.Udp, broadcast);

    private static byte[] Echo(ushort identifier) =>
        Ip(new IcmpV4Packet(new PacketDotNet.Utils.ByteArraySegment(new byte[16])) { TypeCode = IcmpV4TypeCode.EchoRequest, Id = identifier }, ProtocolType.Icmp, broadcast: false);

    private static byte[] Ip(Packet payload, ProtocolType protocol, bool broadcast)
    {
        IPAddress source = IPAddress.Parse(broadcast ? "0.0.0.0" : "192.168.108.128"), destination = IPAddress.Parse(broadcast ? "255.255.255.255" : "192.0.2.80");
        var ip = new IPv4Packet(source, destination) { Protocol = protocol, PayloadPacket = payload };
        var frame = new EthernetPacket(new PhysicalAddress(Bytes(Frames.A)), new PhysicalAddress(broadcast ? [255, 255, 255, 255, 255, 255] : Bytes(Frames.B)), EthernetType.IPv4) { PayloadPacket = ip };
        byte[] record = new byte[VirtioNetHeader.Length + frame.Bytes.Length];
        new VirtioNetHeader { BufferCount = 1 }.Write(record);
        frame.Bytes.CopyTo(record, VirtioNetHeader.Length);
        return record;
    }

    private static byte[] Bytes(MacAddress address)
    {
        byte[] bytes = new byte[MacAddress.Length];
        address.Write(bytes);
        return bytes;
    }

    private sealed class NobodyWatches : ILinkObserver
    {
        public void OnLinkLost(ForwardingPort port, long connection, string reason) => Assert.Fail(reason);
    }
}
