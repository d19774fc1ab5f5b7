using VNetMesh.Packets;

namespace VNetMesh.Nat.Dns;

/// <summary>
/// Which name an address was last an answer to, so that a flow can be told by the name that led there. A bounded memory of
/// what passed the proxy; nothing depends on it. On the loop's thread.
/// </summary>
internal sealed class DnsNames
{
    public const int Capacity = 4096;

    private readonly Dictionary<Ipv4Address, (string Name, long Time)> _names = [];
    private readonly Queue<Ipv4Address> _order = new();

    /// <summary>Takes the IPv4 addresses of an answer.</summary>
    public void Learn(ReadOnlySpan<byte> answer, long now)
    {
        string? name = null;
        foreach (Ipv4Address address in DnsMessage.Addresses(answer))
        {
            name ??= DnsMessage.QuestionName(answer);
            if (!_names.ContainsKey(address))
            {
                if (_names.Count == Capacity)
                    _names.Remove(_order.Dequeue());
                _order.Enqueue(address);
            }
            _names[address] = (name, now);
        }
    }

    public (string Name, long Time)? Find(Ipv4Address address) => _names.TryGetValue(address, out (string, long) found) ? found : null;
}
