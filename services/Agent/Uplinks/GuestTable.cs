using VNetMesh.Packets;

namespace VNetMesh.Agent.Uplinks;

/// <summary>What becomes of a captured frame.</summary>
internal enum CaptureVerdict
{
    /// <summary>Between the host and the LAN alone.</summary>
    NotOurs,
    ToSwitch,

    /// <summary>Our own, come back.</summary>
    Reflected,
}

/// <summary>
/// The guests' addresses, as the pcap driver learns them from what the switch sends: the same rules as those of the programs in the kernel
/// (see BridgePrograms). A guest's frame that is captured within two seconds of one that it sent is taken for that one, come
/// back; later it means that the guest has moved to the LAN.
/// </summary>
internal sealed class GuestTable(MacAddress host)
{
    public const int Capacity = 16384;
    private const long ReflectionTime = 2_000_000; // microseconds
    private readonly Dictionary<ulong, long> _lastSent = [];

    /// <summary>False: nobody but the host sends by the host's address.</summary>
    public bool LearnFromSwitch(MacAddress source, long now)
    {
        if (source == host)
            return false;
        if (_lastSent.Count >= Capacity && !_lastSent.ContainsKey(source.Value))
            ForgetOldest();
        _lastSent[source.Value] = now;
        return true;
    }

    public CaptureVerdict Judge(MacAddress destination, MacAddress source, long now)
    {
        if (_lastSent.TryGetValue(source.Value, out long sent))
        {
            if (now - sent < ReflectionTime)
                return CaptureVerdict.Reflected;
            _lastSent.Remove(source.Value);
        }
        return destination.IsMulticast || _lastSent.ContainsKey(destination.Value) ? CaptureVerdict.ToSwitch : CaptureVerdict.NotOurs;
    }

    /// <summary>Half of them go at once, so that it is done seldom.</summary>
    private void ForgetOldest()
    {
        long middle = _lastSent.Values.Order().ElementAt(_lastSent.Count / 2);
        foreach (ulong address in _lastSent.Where(pair => pair.Value <= middle).Select(pair => pair.Key).ToList())
            _lastSent.Remove(address);
    }
}
