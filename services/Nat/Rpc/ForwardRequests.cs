using System.Text.RegularExpressions;
using VNetMesh.Hosting;
using VNetMesh.Nat.Flows;
using VNetMesh.Nat.Forwards;
using VNetMesh.Nat.Gateways;
using VNetMesh.Packets;
using VNetMesh.V1;
using Endpoint = VNetMesh.V1.Endpoint;

namespace VNetMesh.Nat.Rpc;

/// <summary>Reads what a client asks for as a forward, or says what is wrong with it.</summary>
internal static partial class ForwardRequests
{
    private static readonly Ipv4Address Loopback = new(0x7F000001);

    public static ForwardRule Read(CreatePortForwardRequest request, GatewaySettings settings)
    {
        if (!ForwardId().IsMatch(request.ForwardId))
            throw RpcErrors.InvalidArgument("FORWARD_ID_INVALID", $"'{request.ForwardId}' is not 1 to 63 of a-z, 0-9 and -", ("forward_id", request.ForwardId));
        PortForward forward = request.PortForward ?? new PortForward();
        FlowProtocol protocol = forward.Protocol switch
        {
            Protocol.Tcp => FlowProtocol.Tcp,
            Protocol.Udp => FlowProtocol.Udp,
            _ => throw RpcErrors.InvalidArgument("PROTOCOL_REQUIRED", "port_forward.protocol must be PROTOCOL_TCP or PROTOCOL_UDP"),
        };
        Endpoint listen = forward.Listen ?? new Endpoint();
        Ipv4Address listenAddress = listen.Address.Length == 0 ? Loopback : Address(listen.Address, "listen.address");
        if (listenAddress.IsMulticast || listenAddress.IsBroadcast)
            throw RpcErrors.InvalidArgument("ADDRESS_INVALID", $"listen.address '{listenAddress}' is not an address of a host", ("field", "listen.address"));
        Endpoint guest = forward.Guest ?? new Endpoint();
        Ipv4Address guestAddress = Address(guest.Address, "guest.address");
        if (!settings.Subnet.ContainsHost(guestAddress) || guestAddress == settings.Address || guestAddress == settings.HostAddress || guestAddress == settings.DhcpServer)
        {
            throw RpcErrors.InvalidArgument("ADDRESS_OUTSIDE_SUBNET", $"guest.address {guestAddress} is not an address that a guest of {settings.Network} ({settings.Subnet}) can have",
                ("address", guestAddress.ToString()), ("subnet", settings.Subnet.ToString()));
        }
        return new ForwardRule(settings.Network, request.ForwardId, protocol, listenAddress, Port(listen.Port, "listen.port"), guestAddress, Port(guest.Port, "guest.port"));
    }

    private static int Port(uint port, string field) => port is >= 1 and <= 65535 ? (int)port
        : throw RpcErrors.InvalidArgument("PORT_OUT_OF_RANGE", $"{field} must be 1 to 65535", ("field", field));

    private static Ipv4Address Address(string text, string field) => Ipv4Address.TryParse(text, out Ipv4Address address) ? address
        : throw RpcErrors.InvalidArgument("ADDRESS_INVALID", $"{field} '{text}' is not an IPv4 address such as 192.0.2.1", ("field", field));

    [GeneratedRegex("^[a-z0-9-]{1,63}$")]
    private static partial Regex ForwardId();
}
