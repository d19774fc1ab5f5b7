using VNetMesh.Nat.Gateways;
using VNetMesh.Nat.Sockets;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Dns;

/// <summary>
/// DNS on the gateway's address. A query by UDP goes to the host's first resolver from a socket of its own (random source
/// port, random id: RFC 5452, 9), to the next after a time-out or a failure; the answer must come from the server asked and
/// bear the id and the question. Queries by TCP are flows to a resolver, which <see cref="Candidates"/> orders.
/// </summary>
internal sealed class DnsProxy(GatewayContext gateway)
{
    public const int Port = 53;
    public const int MaxQueries = 1024;
    public const int MaxQueriesPerGuest = 256;

    private readonly Dictionary<(Ipv4Address Guest, ushort Port, ushort Id), DnsQuery> _queries = [];
    private int _preferred;
    private int _preferredOf = -1;

    public int Count => _queries.Count;

    /// <summary>The resolvers to ask, the one that answered last first. Never the gateway itself: that would go in circles.</summary>
    public List<HostEndpoint> Candidates(long now)
    {
        IReadOnlyList<HostEndpoint> servers = gateway.Shared.Resolvers.Current(now);
        if (_preferredOf != gateway.Shared.Resolvers.Version)
            (_preferred, _preferredOf) = (0, gateway.Shared.Resolvers.Version);
        var candidates = new List<HostEndpoint>(servers.Count);
        for (int i = 0; i < servers.Count; i++)
        {
            HostEndpoint server = servers[(i + _preferred) % servers.Count];
            if (!server.Address.Equals(gateway.Settings.Address.ToIPAddress()))
                candidates.Add(server);
        }
        return candidates;
    }

    /// <summary>Takes a guest's datagram to port 53 of the gateway.</summary>
    public void Receive(in GuestPacket packet, in UdpView datagram)
    {
        ReadOnlySpan<byte> message = datagram.Payload;
        if (!DnsMessage.TryReadQuery(message, out ReadOnlySpan<byte> question))
        {
            gateway.Drops.Count(DropCause.DnsMalformed);
            return;
        }
        var key = (packet.Guest.Address, datagram.SourcePort, DnsMessage.Id(message));
        if (!DnsMessage.IsStandardQuery(message))
        {
            Fail(packet.Guest, datagram.SourcePort, message, question, DnsMessage.NotImplemented);
            return;
        }
        // The guest asks again before we have given up: the query under way answers it.
        if (_queries.TryGetValue(key, out DnsQuery? asked) && asked.Asks(question))
            return;
        if (asked is not null || _queries.Count >= MaxQueries || packet.Guest.DnsQueries >= MaxQueriesPerGuest)
        {
            gateway.Drops.Count(DropCause.DnsQueryLimit);
            return;
        }
        var query = new DnsQuery(gateway, this, packet.Guest, datagram.SourcePort, message, Candidates(packet.Now), packet.Now);
        _queries.Add(key, query);
        packet.Guest.DnsQueries++;
        query.Start(packet.Now);
    }

    /// <summary>Ends every query, without answers.</summary>
    public void Close()
    {
        foreach (DnsQuery query in _queries.Values.ToArray())
            query.Close();
    }

    /// <summary>A server answered: it is asked first from now on.</summary>
    internal void Prefer(HostEndpoint server, long now)
    {
        IReadOnlyList<HostEndpoint> servers = gateway.Shared.Resolvers.Current(now);
        for (int i = 0; i < servers.Count; i++)
        {
            if (ReferenceEquals(servers[i], server))
                (_preferred, _preferredOf) = (i, gateway.Shared.Resolvers.Version);
        }
    }

    internal void Forget(DnsQuery query)
    {
        if (_queries.Remove((query.Guest.Address, query.GuestPort, query.GuestId)))
            query.Guest.DnsQueries--;
    }

    internal void Fail(Neighbour guest, ushort port, ReadOnlySpan<byte> query, ReadOnlySpan<byte> question, byte code)
    {
        Span<byte> answer = stackalloc byte[DnsMessage.HeaderLength + 260];
        int length = DnsMessage.WriteError(answer, query, question, code);
        gateway.Sender.SendUdp(guest, gateway.Settings.Address, Port, port, answer[..length]);
    }
}
