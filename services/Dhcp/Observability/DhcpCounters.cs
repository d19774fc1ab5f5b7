using VNetMesh.Dhcp.Protocol;
using VNetMesh.Packets;

namespace VNetMesh.Dhcp.Observability;

/// <summary>Counts of one network since its server began. One thread counts; any may read.</summary>
public sealed class DhcpCounters
{
    private readonly long[] _messages = new long[TypeNames.Length];
    private readonly long[] _drops = new long[DropCauses.Count];

    /// <summary>By option 53.</summary>
    internal static readonly string[] TypeNames = ["unknown", "discover", "offer", "request", "decline", "ack", "nak", "release", "inform"];

    public void Count(Dhcpv4MessageType type) => Volatile.Write(ref _messages[(int)type], _messages[(int)type] + 1);

    public void Count(DropCause cause) => Volatile.Write(ref _drops[(int)cause], _drops[(int)cause] + 1);

    public long this[DropCause cause] => Volatile.Read(ref _drops[(int)cause]);

    public long this[Dhcpv4MessageType type] => Volatile.Read(ref _messages[(int)type]);

    /// <summary>Messages received and sent, by type; those never seen are absent.</summary>
    public IEnumerable<(string Type, long Count)> Messages()
    {
        for (int i = 1; i < _messages.Length; i++)
        {
            if (Volatile.Read(ref _messages[i]) is > 0 and long count)
                yield return (TypeNames[i], count);
        }
    }

    /// <summary>Drops by cause; those never seen are absent.</summary>
    public IEnumerable<(string Cause, long Count)> Drops()
    {
        for (int i = 0; i < _drops.Length; i++)
        {
            if (Volatile.Read(ref _drops[i]) is > 0 and long count)
                yield return (DropCauses.NameOf((DropCause)i), count);
        }
    }
}
