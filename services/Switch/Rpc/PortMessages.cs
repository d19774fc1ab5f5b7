using Google.Protobuf.WellKnownTypes;
using VNetMesh.Links;
using VNetMesh.Packets;
using VNetMesh.Switch.Registry;
using VNetMesh.V1;
using PortRole = VNetMesh.Switch.Registry.PortRole;
using PortTransport = VNetMesh.Switch.Registry.PortTransport;

namespace VNetMesh.Switch.Rpc;

/// <summary>Ports between their records and their messages.</summary>
internal static class PortMessages
{
    public static Port ToMessage(this PortInfo port, TrafficCounters? counters = null) => new()
    {
        Name = port.Name,
        Role = (V1.PortRole)port.Role,
        Transport = (V1.PortTransport)port.Transport,
        Mac = port.Mac?.ToString() ?? "",
        Offloads = port.Offloads is { } offloads ? ToMessage(offloads) : null,
        Owner = port.Owner,
        State = (V1.PortState)port.State,
        CreateTime = Timestamp.FromDateTimeOffset(port.CreateTime),
        Counters = counters,
    };

    public static Port ToMessageWithCounters(this PortEntry entry) => entry.Info.ToMessage(entry.Forwarding.Counters.ToMessage(entry.Forwarding.Drops));

    /// <exception cref="RegistryException">MAC_INVALID.</exception>
    public static PortInfo ToInfo(string network, string id, Port port) => new()
    {
        Network = network,
        Id = id,
        Role = (PortRole)port.Role,
        Transport = (PortTransport)port.Transport,
        Mac = ToMac(port.Mac),
        Offloads = ToOffloads(port.Offloads),
        Owner = port.Owner,
    };

    /// <exception cref="RegistryException">MAC_INVALID.</exception>
    public static MacAddress? ToMac(string text)
    {
        if (text.Length == 0)
            return null;
        if (MacAddress.TryParse(text, out MacAddress mac) && !mac.IsMulticast && !mac.IsZero)
            return mac;
        throw new RegistryException(RefusalKind.Invalid, "MAC_INVALID", $"'{text}' is not the MAC address of a station, such as 02:00:5e:10:00:01", ("field", "mac"));
    }

    /// <summary>A segment needs its checksum made as well, so TSO or USO without it is none.</summary>
    public static LinkOffloads? ToOffloads(Offloads? offloads)
    {
        if (offloads is null)
            return null;
        if (!offloads.Checksum)
            return LinkOffloads.None;
        return LinkOffloads.Checksum | (offloads.Tso4 ? LinkOffloads.Tso4 : 0) | (offloads.Tso6 ? LinkOffloads.Tso6 : 0) | (offloads.Uso ? LinkOffloads.Uso : 0);
    }

    private static Offloads ToMessage(LinkOffloads offloads) => new()
    {
        Checksum = offloads.HasFlag(LinkOffloads.Checksum),
        Tso4 = offloads.HasFlag(LinkOffloads.Tso4),
        Tso6 = offloads.HasFlag(LinkOffloads.Tso6),
        Uso = offloads.HasFlag(LinkOffloads.Uso),
    };
}
