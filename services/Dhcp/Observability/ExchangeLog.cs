using VNetMesh.Dhcp.Protocol;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Observability;

/// <summary>A client's message, what the server decided and why.</summary>
/// <param name="Message">discover, request, decline, release or inform.</param>
/// <param name="Cause">Why there was no answer (docs/drops.md); empty where there was one, or none was due.</param>
public sealed record ExchangeEntry(DateTimeOffset Time, string Network, MacAddress Mac, uint Transaction, string Message, DecisionKind Decision, Ipv4Address Address, string Reason, string Cause);

/// <summary>The last messages of a network's clients, so that "why has it no address" can be told without any backend. One thread.</summary>
public sealed class ExchangeLog(string network, TimeProvider time)
{
    public const int Capacity = 512;

    private readonly Queue<ExchangeEntry> _entries = new();

    public void Add(Decision decision)
    {
        DhcpMessage message = decision.Message;
        if (_entries.Count == Capacity)
            _entries.Dequeue();
        _entries.Enqueue(new ExchangeEntry(time.GetUtcNow(), network, message.Mac, message.TransactionId, DhcpCounters.TypeNames[(int)message.Type], decision.Kind, decision.Address, decision.Reason,
            decision.Cause is { } cause ? DropCauses.NameOf(cause) : ""));
    }

    /// <summary>The newest first; of one client where an address is given.</summary>
    public IEnumerable<ExchangeEntry> List(MacAddress? mac) => _entries.Reverse().Where(entry => mac is null || entry.Mac == mac);
}
