using System.Collections.Immutable;
using System.Text;

namespace VNetMesh.Nat.Gateways;

/// <summary>Why nat did not act on something a guest, a remote or a client sent. docs/drops.md explains each.</summary>
public enum DropCause
{
    RecordMalformed,
    OtherMac,
    SourceMacInvalid,
    VlanNotServed,
    Ipv6NotServed,
    EthertypeNotServed,
    ArpMalformed,
    ArpMismatch,
    ArpConflict,
    ArpUnresolved,
    IpMalformed,
    IpChecksum,
    IpProtocolNotServed,
    SpoofedSource,
    NeighbourTableFull,
    DestinationForbidden,
    DestinationOnLink,
    DestinationMulticast,
    TtlExceeded,
    OffloadMalformed,
    FragmentMalformed,
    FragmentOverlap,
    FragmentStoreFull,
    FragmentTimeout,
    TcpMalformed,
    TcpChecksum,
    TcpNoFlow,
    TcpRateLimited,
    TcpBuffersFull,
    UdpMalformed,
    UdpChecksum,
    UdpPortUnserved,
    UdpFiltered,
    UdpHostFull,
    IcmpMalformed,
    IcmpChecksum,
    IcmpTypeNotServed,
    IcmpRateLimited,
    IcmpHostFull,
    PingNotPermitted,
    FlowLimit,
    FlowLimitGuest,
    SocketUnavailable,
    DialUnreachable,
    ClientAddressBusy,
    DnsMalformed,
    DnsQueryLimit,
    DnsAnswerMismatch,
    LinkDown,
    LinkFull,
    LinkRefused,
}

/// <summary>Counts of one gateway. Written by the loop's thread; read from anywhere, each count is whole.</summary>
public sealed class DropCounters
{
    /// <summary>The causes' names as the API and the metrics give them: snake_case.</summary>
    public static readonly ImmutableArray<string> Names = [.. Enum.GetNames<DropCause>().Select(ToSnakeCase)];

    private readonly ulong[] _counts = new ulong[Names.Length];

    public ulong this[DropCause cause] => Volatile.Read(ref _counts[(int)cause]);

    public void Count(DropCause cause) => _counts[(int)cause]++;

    /// <summary>Causes that were seen.</summary>
    public IEnumerable<KeyValuePair<string, ulong>> Seen()
    {
        for (int i = 0; i < _counts.Length; i++)
        {
            ulong count = Volatile.Read(ref _counts[i]);
            if (count > 0)
                yield return new(Names[i], count);
        }
    }

    public ulong Total()
    {
        ulong total = 0;
        foreach (ulong count in _counts)
            total += count;
        return total;
    }

    private static string ToSnakeCase(string name)
    {
        var text = new StringBuilder();
        foreach (char letter in name)
        {
            if (char.IsAsciiLetterUpper(letter) && text.Length > 0)
                text.Append('_');
            text.Append(char.ToLowerInvariant(letter));
        }
        return text.ToString();
    }
}
