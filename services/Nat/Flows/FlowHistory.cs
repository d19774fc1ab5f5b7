namespace VNetMesh.Nat.Flows;

/// <summary>
/// The last flows of a gateway that ended, so that what became of them can be told without any backend. On the loop's thread.
/// </summary>
public sealed class FlowHistory
{
    public const int Capacity = 512;

    private readonly List<FlowFacts> _ended = [];
    private int _oldest;

    internal void Add(Flow flow)
    {
        if (_ended.Count < Capacity)
        {
            _ended.Add(new FlowFacts(flow));
            return;
        }
        _ended[_oldest] = new FlowFacts(flow);
        _oldest = (_oldest + 1) % Capacity;
    }

    /// <summary>The newest first.</summary>
    internal IEnumerable<FlowFacts> List()
    {
        for (int i = _ended.Count - 1; i >= 0; i--)
            yield return _ended[(_oldest + i) % _ended.Count];
    }
}
