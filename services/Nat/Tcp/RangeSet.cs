using System.Runtime.CompilerServices;
using VNetMesh.Packets;

namespace VNetMesh.Nat.Tcp;

/// <summary>
/// A bounded, sorted set of ranges of sequence space that do not touch. The receiver keeps what came out of
/// order in one, the sender what the guest has acknowledged selectively in another.
/// </summary>
internal struct RangeSet
{
    /// <summary>Ranges at the most.</summary>
    public const int Capacity = 32;

    private Ranges? _ranges;

    public int Count { get; private set; }

    public readonly SackBlock this[int index] => _ranges![index];

    public readonly SequenceNumber HighestEnd => _ranges![Count - 1].End;

    /// <summary>Octets in all ranges.</summary>
    public readonly int Octets
    {
        get
        {
            int sum = 0;
            for (int i = 0; i < Count; i++)
                sum += _ranges![i].End.Since(_ranges[i].Start);
            return sum;
        }
    }

    /// <summary>Adds a range, merging it with those that it touches.</summary>
    /// <returns>False: it would be one range too many, and was not added.</returns>
    public bool Add(SequenceNumber start, SequenceNumber end)
    {
        _ranges ??= new Ranges();
        int first = 0;
        while (first < Count && _ranges[first].End.IsBefore(start))
            first++;
        int last = first;
        while (last < Count && _ranges[last].Start.IsAtOrBefore(end))
        {
            start = SequenceNumber.Min(start, _ranges[last].Start);
            end = SequenceNumber.Max(end, _ranges[last].End);
            last++;
        }
        if (last == first)
        {
            if (Count == Capacity)
                return false;
            for (int i = Count; i > first; i--)
                _ranges[i] = _ranges[i - 1];
            Count++;
        }
        else
        {
            for (int i = last; i < Count; i++)
                _ranges[i - (last - first) + 1] = _ranges[i];
            Count -= last - first - 1;
        }
        _ranges[first] = new SackBlock(start, end);
        return true;
    }

    /// <summary>Forgets everything before a number.</summary>
    public void RemoveBefore(SequenceNumber number)
    {
        int gone = 0;
        while (gone < Count && _ranges![gone].End.IsAtOrBefore(number))
            gone++;
        if (gone > 0)
        {
            for (int i = gone; i < Count; i++)
                _ranges![i - gone] = _ranges[i];
            Count -= gone;
        }
        if (Count > 0 && _ranges![0].Start.IsBefore(number))
            _ranges[0] = _ranges[0] with { Start = number };
    }

    public void Clear() => Count = 0;

    /// <summary>An object, made at the first loss, so that the many connections that never lose pay nothing.</summary>
    private sealed class Ranges
    {
        private Blocks _blocks;

        public SackBlock this[int index]
        {
            get => _blocks[index];
            set => _blocks[index] = value;
        }
    }

    [InlineArray(Capacity)]
    private struct Blocks
    {
        private SackBlock _first;
    }
}
