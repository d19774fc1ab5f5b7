using System.Net;
using Google.Protobuf.Reflection;
using Grpc.Core;
using PacketDotNet;
using VNetMesh.EndToEnd.Tests.Harness;

namespace VNetMesh.EndToEnd.Tests;

/// <summary>6. A client that knows only the reflection API lists services, calls them, and is a port: it pings a TAP guest.</summary>
public sealed class ReflectionTests(SharedInstance shared) : SharedInstanceTest(shared)
{
    [Theory]
    [InlineData("switch", "vnetmesh.v1.NetworkService", "ListNetworks", "networks")]
    [InlineData("switch", "vnetmesh.v1.PortService", "ListPorts", "ports")]
    [InlineData("dhcp", "vnetmesh.v1.DhcpService", "ListPools", "pools")]
    [InlineData("nat", "vnetmesh.v1.NatService", "ListGateways", "gateways")]
    [InlineData("agent", "vnetmesh.v1.AgentService", "ListDevices", "devices")]
    public async Task Every_service_is_described_and_can_be_called(string process, string service, string method, string field)
    {
        var client = new DynamicClient(Instance.Channel(process));
        IReadOnlyList<string> services = await client.ListServicesAsync();
        Assert.Contains(service, services);
        Assert.Contains("grpc.health.v1.Health", services);

        ServiceDescriptor descriptor = await client.DescribeAsync(service);
        MethodDescriptor call = descriptor.FindMethodByName(method);
        var request = new DynamicMessage();
        if (call.InputType.FindFieldByName("parent") is not null)
            request["parent"] = "networks/-";
        DynamicMessage answer = await client.CallAsync(call, request);
        Assert.NotEmpty(answer.List(field));
        Log($"{service}.{method}: {answer.List(field).Count} {field}");
    }

    [Fact]
    public async Task Networks_have_their_defaults()
    {
        var client = new DynamicClient(Instance.Channel("switch"));
        ServiceDescriptor service = await client.DescribeAsync("vnetmesh.v1.NetworkService");
        DynamicMessage answer = await client.CallAsync(service.FindMethodByName("ListNetworks"), []);
        DynamicMessage[] networks = [.. answer.List("networks").Cast<DynamicMessage>()];
        Assert.Equal(["networks/vmnet0", "networks/vmnet1", "networks/vmnet8"], networks.Select(network => network.Text("name")));
        Assert.Equal(["NETWORK_KIND_BRIDGED", "NETWORK_KIND_HOST_ONLY", "NETWORK_KIND_NAT"], networks.Select(network => network.Text("kind")));
        Assert.Equal("192.168.101.0/24", networks[1].Text("ipv4_subnet"));
        Assert.Equal("192.168.108.0/24", networks[2].Text("ipv4_subnet"));
        Assert.Equal("192.168.108.2", networks[2].Text("ipv4_gateway"));
        Assert.Equal("192.168.108.128", networks[2].Message("dhcpv4").Text("range_start"));
    }

    [Fact]
    public async Task An_error_has_a_code_and_a_reason()
    {
        var client = new DynamicClient(Instance.Channel("switch"));
        ServiceDescriptor service = await client.DescribeAsync("vnetmesh.v1.NetworkService");
        RpcException error = await Assert.ThrowsAsync<RpcException>(() => client.CallAsync(service.FindMethodByName("GetNetwork"), new DynamicMessage { ["name"] = "networks/none" }));
        Assert.Equal(StatusCode.NotFound, error.StatusCode);
        // google.rpc.Status travels in a trailer; the reason stands in it in plain bytes.
        byte[] details = error.Trailers.GetValueBytes("grpc-status-details-bin")!;
        Assert.Contains("NETWORK_NOT_FOUND", System.Text.Encoding.UTF8.GetString(details), StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_attached_client_pings_a_guest()
    {
        await using TestGuest guest = await Instance.AddGuestAsync("pinged", "vmnet1");
        IPAddress target = await guest.AddressAsync();
        IPAddress own = IPAddress.Parse("192.168.101.77");
        byte[] mac = [0x02, 0x00, 0x5E, 0x10, 0x00, 0x77];
        var client = new DynamicClient(Instance.Channel("switch"));
        MethodDescriptor attach = (await client.DescribeAsync("vnetmesh.v1.PortService")).FindMethodByName("Attach");
        using AsyncDuplexStreamingCall<byte[], byte[]> stream = client.Stream(attach);

        Task SendAsync(DynamicMessage message) => stream.RequestStream.WriteAsync(DynamicClient.Encode(attach.InputType, message));
        Task SendFrameAsync(byte[] frame) => SendAsync(new DynamicMessage
        {
            ["frames"] = new DynamicMessage { ["frames"] = new List<object> { new DynamicMessage { ["data"] = frame } } },
        });
        async Task<T> ReceiveAsync<T>(Func<Packet, T?> choose) where T : class
        {
            while (await stream.ResponseStream.MoveNext(Cancellation))
            {
                DynamicMessage answer = DynamicClient.Decode(attach.OutputType, stream.ResponseStream.Current);
                foreach (DynamicMessage frame in answer.ContainsKey("frames") ? answer.Message("frames").List("frames").Cast<DynamicMessage>() : [])
                {
                    if (choose(Packet.ParsePacket(LinkLayers.Ethernet, (byte[])frame["data"])) is { } found)
                        return found;
                }
            }
            throw new InvalidOperationException("the stream ended before the answer came");
        }

        await SendAsync(new DynamicMessage { ["hello"] = new DynamicMessage { ["network"] = "networks/vmnet1", ["port_id"] = "pinger", ["mac"] = "02:00:5e:10:00:77" } });
        Assert.True(await stream.ResponseStream.MoveNext(Cancellation));
        DynamicMessage welcome = DynamicClient.Decode(attach.OutputType, stream.ResponseStream.Current).Message("welcome");
        Assert.Equal("networks/vmnet1/ports/pinger", welcome.Message("port").Text("name"));

        await SendFrameAsync(Frames.ArpRequest(mac, own, target));
        byte[] targetMac = (await ReceiveAsync(packet => packet.Extract<ArpPacket>() is { Operation: ArpOperation.Response } reply && reply.SenderProtocolAddress.Equals(target) ? reply : null))
            .SenderHardwareAddress.GetAddressBytes();
        for (ushort sequence = 1; sequence <= 5; sequence++)
        {
            await SendFrameAsync(Frames.EchoRequest(mac, targetMac, own, target, 0x4711, sequence));
            IcmpV4Packet reply = await ReceiveAsync(packet =>
            {
                // The guest asks who we are before it answers; a host would reply to that by itself.
                if (packet.Extract<ArpPacket>() is { Operation: ArpOperation.Request } question && question.TargetProtocolAddress.Equals(own))
                    SendFrameAsync(Frames.ArpReply(mac, own, targetMac, target)).Wait();
                return packet.Extract<IcmpV4Packet>() is { TypeCode: IcmpV4TypeCode.EchoReply } echo && echo.Id == 0x4711 ? echo : null;
            });
            Assert.Equal(sequence, reply.Sequence);
        }
        await stream.RequestStream.CompleteAsync();
    }
}
