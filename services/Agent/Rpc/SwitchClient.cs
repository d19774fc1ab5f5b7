using Google.Protobuf.WellKnownTypes;
using Grpc.Core;
using Grpc.Net.Client;
using VNetMesh.Agent.Devices;
using VNetMesh.Hosting;
using VNetMesh.Links;
using VNetMesh.Native;
using VNetMesh.Packets;
using VNetMesh.V1;
using PortRole = VNetMesh.Agent.Devices.PortRole;

namespace VNetMesh.Agent.Rpc;

/// <summary>The switch by gRPC and the hand-off socket.</summary>
public sealed class SwitchClient(GrpcChannel channel, RuntimePaths paths) : IFabric
{
    /// <summary>What the agent's ports bear as their owner.</summary>
    public const string Owner = FabricOwner.Name;

    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(5);
    private readonly PortService.PortServiceClient _ports = new(channel);
    private readonly NetworkService.NetworkServiceClient _networks = new(channel);
    private volatile bool _isReachable;

    public bool IsReachable
    {
        get => _isReachable;
        internal set => _isReachable = value;
    }

    public Task ConnectAsync(PortSpec port, TapQueue queue, CancellationToken cancellation) => ConnectAsync(
        port, PortTransport.Tap, new Offloads { Checksum = true, Tso4 = true, Tso6 = true, Uso = queue.Offloads.HasFlag(LinkOffloads.Uso) },
        token => HandoffClient.HandOverTap(paths.HandoffSocket, token, queue.Descriptor, queue.Offloads), cancellation);

    public Task ConnectAsync(PortSpec port, FileDescriptor connection, CancellationToken cancellation) => ConnectAsync(
        port, PortTransport.VmSocket, new Offloads(), token => HandoffClient.HandOverVmSocket(paths.HandoffSocket, token, connection), cancellation);

    private async Task ConnectAsync(PortSpec port, PortTransport transport, Offloads offloads, Action<byte[]> handOver, CancellationToken cancellation)
    {
        var request = new RegisterPortRequest
        {
            Parent = "networks/" + port.NetworkId,
            PortId = port.Id,
            Port = new Port
            {
                Role = port.Role switch
                {
                    PortRole.Host => V1.PortRole.Host,
                    PortRole.Uplink => V1.PortRole.Uplink,
                    _ => V1.PortRole.Guest,
                },
                Transport = transport,
                Mac = port.Mac.ToString(),
                Offloads = offloads,
                Owner = Owner,
            },
        };
        RegisterPortResponse registered = await AskAsync(() => _ports.RegisterPortAsync(request, deadline: DateTime.UtcNow + Limit, cancellationToken: cancellation));
        byte[] token = registered.HandoffToken.ToByteArray();
        if (token.Length != 16)
            throw new FabricException("the switch gave no token to hand the device over with", isUnavailable: false);
        try
        {
            await Task.Run(() => handOver(token), cancellation);
        }
        catch (IOException exception)
        {
            throw new FabricException(exception.Message, exception is SyscallException, exception);
        }
    }

    public async Task DeleteAsync(string port, CancellationToken cancellation)
    {
        try
        {
            await _ports.DeletePortAsync(new DeletePortRequest { Name = port }, deadline: DateTime.UtcNow + Limit, cancellationToken: cancellation);
        }
        catch (RpcException exception) when (exception.StatusCode == StatusCode.NotFound)
        {
            // Gone is what it was to be.
        }
        catch (RpcException exception)
        {
            throw Translate(exception);
        }
    }

    public async Task<NetworkSpec> ChooseNextSubnetAsync(NetworkSpec network, CancellationToken cancellation)
    {
        // An empty subnet lets the switch choose: the first free one after the present.
        var request = new UpdateNetworkRequest
        {
            Network = new Network { Name = network.Name, Revision = network.Revision },
            UpdateMask = new FieldMask { Paths = { "ipv4_subnet" } },
        };
        UpdateNetworkResponse response = await AskAsync(() => _networks.UpdateNetworkAsync(request, deadline: DateTime.UtcNow + Limit, cancellationToken: cancellation));
        return Read(response.Network);
    }

    /// <summary>A network of the registry as the agent needs it.</summary>
    public static NetworkSpec Read(Network network)
    {
        bool hasAdapter = network.Kind is NetworkKind.HostOnly or NetworkKind.Nat;
        return new NetworkSpec(
            network.Name["networks/".Length..],
            Ipv4Subnet.TryParse(network.Ipv4Subnet, out Ipv4Subnet subnet) ? subnet : null,
            network.Ipv4SubnetAuto,
            hasAdapter && Ipv4Address.TryParse(network.Ipv4HostAddress, out Ipv4Address address) ? address : null,
            network.Kind == NetworkKind.Nat,
            network.Mtu,
            network.Revision)
        {
            Egress = network.Egress switch
            {
                NetworkEgress.Snat => EgressMode.Snat,
                NetworkEgress.Routed => EgressMode.Routed,
                _ => EgressMode.None,
            },
            Uplink = network.Kind == NetworkKind.Bridged ? network.Uplink : "",
            UplinkDriver = network.UplinkDriver == V1.UplinkDriver.Pcap ? Devices.UplinkDriver.Pcap : Devices.UplinkDriver.Tc,
            Ipv6Prefix = Ipv6Prefix.TryParse(network.Ipv6Prefix, out Ipv6Prefix prefix) ? prefix : null,
        };
    }

    private static async Task<T> AskAsync<T>(Func<AsyncUnaryCall<T>> call)
    {
        try
        {
            return await call();
        }
        catch (RpcException exception)
        {
            throw Translate(exception);
        }
    }

    private static FabricException Translate(RpcException exception) =>
        new(exception.StatusCode == StatusCode.DeadlineExceeded ? "the switch did not answer within 5 s" : $"the switch: {exception.Status.Detail}", exception.StatusCode is StatusCode.Unavailable or StatusCode.DeadlineExceeded, exception);
}
