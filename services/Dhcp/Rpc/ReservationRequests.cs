using System.Text.RegularExpressions;
using Grpc.Core;
using VNetMesh.Dhcp.Protocol;
using VNetMesh.Dhcp.Serving;
using VNetMesh.Hosting;
using VNetMesh.Packets;
using VNetMesh.V1;
using Reservation = VNetMesh.Dhcp.Leases.Reservation;

namespace VNetMesh.Dhcp.Rpc;

/// <summary>What a client may ask for as a reservation, and how it is told why not.</summary>
internal static partial class ReservationRequests
{
    /// <exception cref="RpcException">INVALID_ARGUMENT with the reasons of the contract.</exception>
    public static Reservation Read(CreateReservationRequest request)
    {
        V1.Reservation wanted = request.Reservation ?? new V1.Reservation();
        if (!IdPattern().IsMatch(request.ReservationId))
            throw RpcErrors.InvalidArgument("RESERVATION_ID_INVALID", $"reservation_id must be 1 to 63 of a to z, 0 to 9 and '-', not '{request.ReservationId}'", ("field", "reservation_id"));
        MacAddress mac = default;
        if (wanted.Mac.Length > 0 && (!MacAddress.TryParse(wanted.Mac, out mac) || mac.IsZero || mac.IsMulticast))
            throw RpcErrors.InvalidArgument("MAC_INVALID", $"'{wanted.Mac}' is not the address of a device, such as 02:00:5e:10:00:01", ("field", "mac"));
        if (wanted.ClientId.Length > 0 && !IsClientId(wanted.ClientId))
            throw RpcErrors.InvalidArgument("CLIENT_ID_INVALID", $"client_id must be 2 to {DhcpMessage.MaxClientIdentifierLength} octets in lower-case hex", ("field", "client_id"));
        if (wanted.Mac.Length == 0 && wanted.ClientId.Length == 0)
            throw RpcErrors.InvalidArgument("MAC_INVALID", "a reservation needs a mac or a client_id", ("field", "mac"));
        if (!Ipv4Address.TryParse(wanted.Ipv4Address, out Ipv4Address address))
            throw RpcErrors.InvalidArgument("ADDRESS_OUTSIDE_SUBNET", $"'{wanted.Ipv4Address}' is not an IPv4 address", ("field", "ipv4_address"));
        if (wanted.Hostname.Length > 0 && !HostNamePattern().IsMatch(wanted.Hostname))
            throw RpcErrors.InvalidArgument("HOSTNAME_INVALID", $"'{wanted.Hostname}' is not a host name (RFC 1123, 2.1)", ("field", "hostname"));
        return new Reservation
        {
            Network = request.Parent,
            Id = request.ReservationId,
            Address = address,
            Mac = wanted.Mac.Length > 0 ? mac : null,
            ClientId = wanted.ClientId,
            HostName = wanted.Hostname,
        };
    }

    public static RpcException ToError(ReservationRefusedException refusal, Reservation reservation)
    {
        StatusCode code = refusal.Reason switch
        {
            "RESERVATION_EXISTS" or "ADDRESS_RESERVED_FOR_OTHER" => StatusCode.AlreadyExists,
            "TOO_MANY_RESERVATIONS" => StatusCode.ResourceExhausted,
            _ => StatusCode.InvalidArgument,
        };
        return RpcErrors.Create(code, refusal.Reason, refusal.Message, ("network", reservation.Network), ("address", reservation.Address.ToString()));
    }

    private static bool IsClientId(string text) =>
        text.Length is >= 4 and <= 2 * DhcpMessage.MaxClientIdentifierLength && text.Length % 2 == 0 && text.All(char.IsAsciiHexDigitLower);

    [GeneratedRegex(@"\A[a-z0-9-]{1,63}\z")]
    private static partial Regex IdPattern();

    [GeneratedRegex(@"\A(?=.{1,253}\z)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\z")]
    private static partial Regex HostNamePattern();
}
