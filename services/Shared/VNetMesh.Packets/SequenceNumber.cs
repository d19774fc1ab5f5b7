namespace VNetMesh.Packets;

/// <summary>
/// A TCP sequence number: arithmetic modulo 2^32 (RFC 9293, 3.4). Comparisons hold for numbers less than
/// 2^31 apart, as any two numbers of one connection's window are.
/// </summary>
public readonly record struct SequenceNumber(uint Value)
{
    public bool IsBefore(SequenceNumber other) => (int)(Value - other.Value) < 0;

    public bool IsAfter(SequenceNumber other) => (int)(Value - other.Value) > 0;

    public bool IsAtOrBefore(SequenceNumber other) => (int)(Value - other.Value) <= 0;

    public bool IsAtOrAfter(SequenceNumber other) => (int)(Value - other.Value) >= 0;

    /// <summary>first &lt;= this &lt; first + length.</summary>
    public bool InWindow(SequenceNumber first, uint length) => Value - first.Value < length;

    public SequenceNumber Add(int octets) => new(unchecked(Value + (uint)octets));

    /// <summary>Octets from the other number to this one; negative when this one is before it.</summary>
    public int Since(SequenceNumber other) => (int)(Value - other.Value);

    public static SequenceNumber Max(SequenceNumber left, SequenceNumber right) => left.IsAfter(right) ? left : right;

    public static SequenceNumber Min(SequenceNumber left, SequenceNumber right) => left.IsBefore(right) ? left : right;

    public override string ToString() => Value.ToString(System.Globalization.CultureInfo.InvariantCulture);
}
