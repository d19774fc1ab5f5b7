using VNetMesh.Dhcp.Protocol;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Leases;

/// <summary>The reservations of one network. One thread.</summary>
public sealed class ReservationBook
{
    private readonly SortedDictionary<string, Reservation> _byId = new(StringComparer.Ordinal);
    private readonly Dictionary<Ipv4Address, Reservation> _byAddress = [];
    private readonly Dictionary<string, Reservation> _byClient = [];

    public IEnumerable<Reservation> All => _byId.Values;

    public int Count => _byId.Count;

    public Reservation? Find(string id) => _byId.GetValueOrDefault(id);

    public Reservation? For(Ipv4Address address) => _byAddress.GetValueOrDefault(address);

    /// <summary>The client's reservation: by its client id first, else by its MAC.</summary>
    public Reservation? For(DhcpMessage message) =>
        (message.ClientIdentifier is { } identifier ? _byClient.GetValueOrDefault("id:" + Convert.ToHexStringLower(identifier)) : null)
        ?? _byClient.GetValueOrDefault("mac:" + message.Mac);

    /// <summary>One that is for the same client.</summary>
    public Reservation? ForSameClient(Reservation reservation) => _byClient.GetValueOrDefault(KeyOf(reservation));

    public void Add(Reservation reservation)
    {
        _byId[reservation.Id] = reservation;
        _byAddress[reservation.Address] = reservation;
        _byClient[KeyOf(reservation)] = reservation;
    }

    public void Remove(Reservation reservation)
    {
        _byId.Remove(reservation.Id);
        _byAddress.Remove(reservation.Address);
        _byClient.Remove(KeyOf(reservation));
    }

    private static string KeyOf(Reservation reservation) => reservation.ClientId.Length > 0 ? "id:" + reservation.ClientId : "mac:" + reservation.Mac;
}
